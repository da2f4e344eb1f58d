#!/usr/bin/env perl
# Cache::Memcached::Fast, on one server and on three, by its own distribution of keys and by ketama.
#
#     perl fast.pl HOST:PORT...

use strict;
use warnings;
use utf8;

use Cache::Memcached::Fast;
use Time::HiRes qw(sleep);

use constant THIRTY_DAYS_S => 60 * 60 * 24 * 30;
# A server may count time in whole seconds.
use constant CLOCK_SLACK_S => 1.2;

my ($cases, $failed) = (0, 0);

# Runs one case and tells how it ended, in a line that tests/clients/tap.py reads.
sub case {
    my ($name, $run) = @_;
    $cases++;
    if (eval { $run->(); 1 }) {
        print "ok $name\n";
    } else {
        $failed++;
        my $why = $@;
        $why =~ s/\s+/ /g;
        print "not ok $name: $why\n";
    }
}

sub shown {
    my ($value) = @_;
    return 'undef' unless defined $value;
    $value =~ s/([^ -~])/sprintf '\x{%x}', ord $1/ge;
    return length $value > 100 ? substr($value, 0, 100) . '...' : "'$value'";
}

# The prototypes have calls give one value, undef too, and not a list of none.
sub same($$;$) {
    my ($got, $expected, $what) = @_;
    return if !defined $got && !defined $expected;
    return if defined $got && defined $expected && $got eq $expected;
    my $line = (caller)[2];
    die(($what // 'value') . ' is ' . shown($got) . ', expected ' . shown($expected) . " (line $line)\n");
}

sub done($;$) { same($_[0] ? "yes" : "no", "yes", $_[1]) }
# Carried out, and answered with no; undef would be that there was no answer.
sub refused($;$) { same(defined $_[0] ? ($_[0] ? 'yes' : 'no') : 'no answer', 'no', $_[1]) }

sub cases_of {
    my ($kind, $servers, %options) = @_;
    my $client = sub {
        my $cache = Cache::Memcached::Fast->new({
            servers => $servers,
            connect_timeout => 10,
            io_timeout => 10,
            max_failures => 0,
            %options, @_,
        });
        done((values %{ $cache->flush_all })[0], 'flush_all');
        return $cache;
    };
    my $case = sub { my ($name, $run) = @_; case("$kind, $name", sub { $run->($client->()) }) };

    $case->('what was set is got', sub {
        my ($cache) = @_;
        for my $value ('text', '', '0', "bytes\r\n\0\xff", join('', map { chr } 0 .. 255), 'x' x 1_000_000) {
            done($cache->set('k', $value), 'set');
            same($cache->get('k'), $value);
        }
        same($cache->get('nobody'), undef);
    });
    $case->('structures are kept', sub {
        my ($cache) = @_;
        done($cache->set('k', { a => [ 1, 2, { b => 'c' } ] }), 'set');
        same($cache->get('k')->{a}[2]{b}, 'c');
    });
    case("$kind, a value too large is refused and the next request served", sub {
        my $cache = $client->(max_size => 1 << 22);
        done(!$cache->set('k', 'x' x (1 << 20)), 'set');
        done($cache->set('k', 'a'), 'next set');
        same($cache->get('k'), 'a');
    });
    $case->('add and replace', sub {
        my ($cache) = @_;
        refused($cache->replace('k', 'a'), 'replace');
        done($cache->add('k', 'b'), 'add');
        refused($cache->add('k', 'c'), 'add again');
        done($cache->replace('k', 'd'), 'replace');
        same($cache->get('k'), 'd');
    });
    $case->('append and prepend', sub {
        my ($cache) = @_;
        refused($cache->append('k', 'a'), 'append to nothing');
        refused($cache->prepend('k', 'a'), 'prepend to nothing');
        $cache->set('k', 'b');
        done($cache->append('k', 'c'), 'append');
        done($cache->prepend('k', 'a'), 'prepend');
        same($cache->get('k'), 'abc');
    });
    $case->('numbers go up and down', sub {
        my ($cache) = @_;
        $cache->set('n', 10);
        same($cache->incr('n'), 11);
        same($cache->incr('n', 31), 42);
        same($cache->decr('n', 2), 40);
        same($cache->decr('n', 100), '0E0', 'a zero that is true');
        refused($cache->incr('nobody'), 'incr of nothing');
        $cache->set('n', '18446744073709551615');
        same($cache->incr('n', 2), 1, 'wraps at 64 bits');
        $cache->set('text', 'no number');
        same($cache->incr('text'), undef, 'incr of text');
        same($cache->get('text'), 'no number');
    });
    $case->('cas is compared', sub {
        my ($cache) = @_;
        $cache->set('k', 'a');
        my ($cas, $value) = @{ $cache->gets('k') };
        same($value, 'a');
        done($cache->cas('k', $cas, 'b'), 'cas');
        refused($cache->cas('k', $cas, 'c'), 'cas again');
        same($cache->get('k'), 'b');
        refused($cache->cas('nobody', $cas, 'c'), 'cas of nothing');
    });
    $case->('delete and touch', sub {
        my ($cache) = @_;
        $cache->set('k', 'a');
        done($cache->touch('k', 100), 'touch');
        refused($cache->touch('nobody', 100), 'touch nobody');
        done($cache->delete('k'), 'delete');
        refused($cache->delete('k'), 'delete again');
        $cache->set('k', 'a');
        done($cache->remove('k'), 'remove');
    });
    $case->('items expire', sub {
        my ($cache) = @_;
        $cache->set('short', 'a', 1);
        $cache->set('touched', 'a', 1);
        $cache->touch('touched', 100);
        $cache->set('read', 'a', 1);
        same($cache->gat(100, 'read'), 'a');
        my ($cas, $value) = @{ $cache->gats(100, 'read') };
        same($value, 'a');
        done($cache->cas('read', $cas, 'b', 100), 'cas');
        same($cache->gat(100, 'nobody'), undef);
        same(join(' ', keys %{ $cache->gat_multi(100, 'read', 'nobody') }), 'read');
        $cache->set('past', 'a', THIRTY_DAYS_S + 1);
        $cache->set('date', 'a', time + 100);
        same($cache->get('past'), undef, 'a date that is over');
        sleep 1 + CLOCK_SLACK_S;
        same($cache->get('short'), undef, 'one second is over');
        same($cache->get('touched'), 'a');
        same($cache->get('read'), 'b');
        same($cache->get('date'), 'a');
    });
    $case->('many keys at once', sub {
        my ($cache) = @_;
        my %items = map { ("key_$_" => "value $_") } 0 .. 299;
        my $set = $cache->set_multi(map { [ $_ => $items{$_} ] } sort keys %items);
        same(scalar(grep { $_ } values %$set), 300, 'stored');
        my $got = $cache->get_multi(keys %items, 'nobody');
        same(scalar(keys %$got), 300, 'found');
        same($got->{$_}, $items{$_}) for keys %items;
        my $cas = $cache->gets_multi('key_1', 'key_2');
        my $changed = $cache->cas_multi(map { [ $_, $cas->{$_}[0], 'new' ] } sort keys %$cas);
        same(scalar(grep { $_ } values %$changed), 2, 'changed');
        my $gone = $cache->delete_multi(map { "key_$_" } 0 .. 99);
        same(scalar(grep { $_ } values %$gone), 100, 'deleted');
        same(scalar(keys %{ $cache->get_multi(keys %items) }), 200, 'left');
    });
    $case->('numbers, many at once', sub {
        my ($cache) = @_;
        $cache->set_multi([ 'a', 1 ], [ 'b', 2 ]);
        my $up = $cache->incr_multi([ 'a', 10 ], 'b', 'nobody');
        same($up->{a}, 11);
        same($up->{b}, 3);
        refused($up->{nobody}, 'incr of nothing');
        same($cache->decr_multi([ 'a', 1 ])->{a}, 10);
        my $touched = $cache->touch_multi([ 'a', 100 ], [ 'nobody', 100 ]);
        done($touched->{a}, 'touch');
        refused($touched->{nobody}, 'touch nobody');
        my $longer = $cache->append_multi([ 'a', '5' ], [ 'b', '5' ]);
        done($longer->{$_}, 'append') for qw(a b);
        same($cache->get('a'), '105');
    });
    $case->('requests without a reply are carried out', sub {
        my ($cache) = @_;
        # In void context nobody waits for an answer.
        $cache->set("k$_", $_) for 0 .. 99;
        $cache->append('k1', '!');
        $cache->incr('k2', 5);
        $cache->delete('k3');
        $cache->nowait_push;
        same($cache->get('k99'), 99);
        same($cache->get('k1'), '1!');
        same($cache->get('k2'), 7);
        same($cache->get('k3'), undef);
    });
    $case->('keys of 250 bytes', sub {
        my ($cache) = @_;
        done($cache->set('k' x 250, 'a'), 'set');
        same($cache->get('k' x 250), 'a');
    });
    $case->('every server tells its version', sub {
        my ($cache) = @_;
        my $versions = $cache->server_versions;
        same(scalar(keys %$versions), scalar(@$servers), 'servers');
        $_ =~ /^\d+\.\d+\.\d+$/ or die "version $_\n" for values %$versions;
    });
    case("$kind, text beyond ASCII, under a prefix", sub {
        my $cache = $client->(utf8 => 1, namespace => 'app:');
        done($cache->set('k', 'Grüße'), 'set');
        same($cache->get('k'), 'Grüße');
        return if @$servers > 1;    # The prefix is not part of what decides on the server.
        $cache->namespace('');
        same($cache->get('app:k'), 'Grüße');
    });
    case("$kind, values are packed and unpacked", sub {
        my $cache = $client->(compress_threshold => 100);
        done($cache->set('k', 'packed ' x 100_000), 'set');
        same($cache->get('k'), 'packed ' x 100_000);
    });
}

my @servers = @ARGV;
$| = 1;
cases_of('one server', [ $servers[0] ]);
cases_of('three servers', \@servers);
cases_of('three servers by ketama', \@servers, ketama_points => 150);
print "1..$cases\n";
exit($failed ? 1 : 0);
