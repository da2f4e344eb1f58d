<?php
// PHP's Memcached, that is libmemcached, in text and in binary, on one server and on three by ketama.
//
//     php memcached.php HOST:PORT...

require __DIR__ . '/tap.php';

const THIRTY_DAYS_S = 60 * 60 * 24 * 30;
// A server may count time in whole seconds.
const CLOCK_SLACK_US = 1_200_000;

/** A client of `$servers` in one of the two protocols, and what it finds empty. */
function client(array $servers, bool $binary): Memcached
{
    $client = new Memcached();
    $client->setOptions([
        Memcached::OPT_BINARY_PROTOCOL => $binary,
        Memcached::OPT_LIBKETAMA_COMPATIBLE => count($servers) > 1,
        Memcached::OPT_TCP_NODELAY => true,
        Memcached::OPT_COMPRESSION => false,
    ]);
    foreach ($servers as $server) {
        [$host, $port] = explode(':', $server);
        $client->addServer($host, (int) $port);
    }
    same($client->flush(), true, 'flush');
    return $client;
}

/** What holds in either protocol, wherever the keys lie. */
function cases(string $kind, array $servers, bool $binary): array
{
    $client = fn(): Memcached => client($servers, $binary);
    $code = fn(Memcached $c, int $expected) => same($c->getResultCode(), $expected, 'result code');
    $cases = [
        'values of every type are got' => function () use ($client, $code) {
            $c = $client();
            $every_byte = implode(array_map('chr', range(0, 255)));
            $values = ['text', '', "bytes\r\n\0\xff", $every_byte, 7, -7, 1 << 40, 1.5, true, false, null];
            foreach ([...$values, ['a' => [1, 2]]] as $value) {
                same($c->set('k', $value), true, 'set');
                same($c->get('k'), $value);
            }
            same($c->get('nobody'), false);
            $code($c, Memcached::RES_NOTFOUND);
        },
        'large values are got' => function () use ($client) {
            $c = $client();
            foreach ([100_000, 1_000_000] as $size) {
                $value = random_bytes($size);
                same($c->set('k', $value), true, 'set');
                same($c->get('k') === $value, true, 'the same value');
            }
        },
        'values are packed and unpacked' => function () use ($client) {
            $c = $client();
            $c->setOption(Memcached::OPT_COMPRESSION, true);
            $value = str_repeat('packed ', 100_000);
            same($c->set('k', $value), true, 'set');
            same($c->get('k') === $value, true, 'the same value');
        },
        'a value too large is refused and the next request served' => function () use ($client) {
            $c = $client();
            same($c->set('k', str_repeat('x', 1 << 20)), false, 'set');
            same($c->set('other', 'a'), true, 'next set');
            same($c->get('other'), 'a');
        },
        'add and replace' => function () use ($client, $code) {
            $c = $client();
            same($c->replace('k', 'a'), false, 'replace');
            same($c->add('k', 'b'), true, 'add');
            same($c->add('k', 'c'), false, 'add again');
            same($c->replace('k', 'd'), true, 'replace');
            same($c->get('k'), 'd');
        },
        'append and prepend' => function () use ($client, $code) {
            $c = $client();
            same($c->append('k', 'a'), false, 'append to nothing');
            $code($c, Memcached::RES_NOTSTORED);
            same($c->prepend('k', 'a'), false, 'prepend to nothing');
            $c->set('k', 'b');
            same($c->append('k', 'c'), true, 'append');
            same($c->prepend('k', 'a'), true, 'prepend');
            same($c->get('k'), 'abc');
        },
        'numbers go up and down' => function () use ($client, $code) {
            $c = $client();
            $c->set('n', 10);
            same($c->increment('n'), 11);
            same($c->increment('n', 31), 42);
            same($c->decrement('n', 2), 40);
            same($c->decrement('n', 100), 0);
            same($c->increment('nobody'), false);
            $code($c, Memcached::RES_NOTFOUND);
            $c->set('text', 'no number');
            same($c->increment('text'), false);
        },
        'cas is compared' => function () use ($client, $code) {
            $c = $client();
            $c->set('k', 'a');
            $got = $c->get('k', null, Memcached::GET_EXTENDED);
            same($got['value'], 'a');
            same($c->cas($got['cas'], 'k', 'b'), true, 'first cas');
            same($c->cas($got['cas'], 'k', 'c'), false, 'second cas');
            $code($c, Memcached::RES_DATA_EXISTS);
            same($c->get('k'), 'b');
            $c->delete('k');
            same($c->cas($got['cas'], 'k', 'c'), false, 'cas of nothing');
            $code($c, Memcached::RES_NOTFOUND);
        },
        'flags of the user come back' => function () use ($client) {
            $c = $client();
            $c->setOption(Memcached::OPT_USER_FLAGS, 0xABCD);
            $c->set('k', 'a');
            $got = $c->get('k', null, Memcached::GET_EXTENDED);
            same($got['flags'], 0xABCD);
        },
        'delete and touch' => function () use ($client, $code) {
            $c = $client();
            $c->set('k', 'a');
            same($c->touch('k', 100), true, 'touch');
            same($c->touch('nobody', 100), false, 'touch nobody');
            $code($c, Memcached::RES_NOTFOUND);
            same($c->delete('k'), true, 'delete');
            same($c->delete('k'), false, 'delete again');
            $code($c, Memcached::RES_NOTFOUND);
        },
        'items expire' => function () use ($client) {
            $c = $client();
            $c->set('short', 'a', 1);
            $c->set('touched', 'a', 1);
            $c->touch('touched', 100);
            $c->set('past', 'a', THIRTY_DAYS_S + 1);
            $c->set('date', 'a', time() + 100);
            same($c->get('past'), false, 'a date that is over');
            usleep(1_000_000 + CLOCK_SLACK_US);
            same($c->get('short'), false, 'one second is over');
            same($c->get('touched'), 'a');
            same($c->get('date'), 'a');
        },
        'many keys at once' => function () use ($client) {
            $c = $client();
            $items = [];
            for ($n = 0; $n < 300; $n++) {
                $items["key_$n"] = "value $n";
            }
            same($c->setMulti($items, 100), true, 'setMulti');
            $got = $c->getMulti([...array_keys($items), 'nobody'], Memcached::GET_PRESERVE_ORDER);
            same($got, $items + ['nobody' => null]);
            $gone = $c->deleteMulti(['key_0', 'key_1', 'nobody']);
            same($gone, ['key_0' => true, 'key_1' => true, 'nobody' => Memcached::RES_NOTFOUND]);
            same(count($c->getMulti(array_keys($items))), 298);
        },
        'answers that are fetched later' => function () use ($client) {
            $c = $client();
            $c->setMulti(['a' => '1', 'b' => '2', 'c' => '3']);
            same($c->getDelayed(['a', 'b', 'c', 'nobody'], true), true, 'getDelayed');
            $got = array_column($c->fetchAll(), 'value', 'key');
            ksort($got);
            same($got, ['a' => '1', 'b' => '2', 'c' => '3']);
        },
        'keys of 250 bytes' => function () use ($client) {
            $c = $client();
            // libmemcached counts the byte that ends a string.
            $key = str_repeat('k', 249);
            same($c->set($key, 'a'), true, 'set');
            same($c->get($key), 'a');
        },
        'writes in a buffer arrive' => function () use ($client) {
            $c = $client();
            $c->setOption(Memcached::OPT_BUFFER_WRITES, true);
            for ($n = 0; $n < 500; $n++) {
                $c->set("buffered_$n", "$n");
            }
            same($c->flushBuffers(), true, 'flushBuffers');
            same($c->get('buffered_499'), '499');
            same($c->get('buffered_0'), '0');
        },
        'requests without a reply are carried out' => function () use ($client, $binary) {
            $c = $client();
            $c->setOption(Memcached::OPT_NOREPLY, true);
            $c->set('k', 'b');
            $c->append('k', 'c');
            $c->set('gone', 'a');
            $c->delete('gone');
            $c->setOption(Memcached::OPT_NOREPLY, false);
            // What follows on the same connections comes after.
            same($c->get('k'), 'bc');
            same($c->get('gone'), false);
        },
        'statistics and versions are told' => function () use ($client, $servers) {
            $c = $client();
            $stats = $c->getStats();
            same(array_keys($stats), $servers, 'servers that answered');
            foreach ($stats as $of_one) {
                same(isset($of_one['curr_items'], $of_one['evictions'], $of_one['limit_maxbytes']), true, 'lines');
            }
            foreach ($c->getVersion() as $version) {
                same(preg_match('/^\d+\.\d+\.\d+$/', $version), 1, "version $version");
            }
        },
    ];
    if ($binary) {
        $cases['numbers begin where the client says'] = function () use ($client) {
            $c = $client();
            same($c->increment('n', 5, 100, 60), 100, 'absent');
            same($c->increment('n', 5, 100, 60), 105, 'present');
            same($c->decrement('m', 1, 7, 60), 7);
        };
    }
    $named = [];
    foreach ($cases as $name => $case) {
        $named["$kind, $name"] = $case;
    }
    return $named;
}

$servers = array_slice($argv, 1);
run_cases([
    ...cases('text', [$servers[0]], false),
    ...cases('binary', [$servers[0]], true),
    ...cases('text by ketama', $servers, false),
    ...cases('binary by ketama', $servers, true),
]);
