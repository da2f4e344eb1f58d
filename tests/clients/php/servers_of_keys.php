<?php
// Which server libmemcached sends a key to, asked through PHP's Memcached. No server has to run.
//
//     php servers_of_keys.php > cache-client/src/routing/libmemcached.txt     makes the answers anew
//     php servers_of_keys.php FILE                                            compares them, as TAP

require __DIR__ . '/tap.php';

const KEYS = 40;
const SETTINGS = [
    'ketama' => [Memcached::OPT_LIBKETAMA_COMPATIBLE => true],
    'consistent' => [Memcached::OPT_DISTRIBUTION => Memcached::DISTRIBUTION_CONSISTENT],
    'consistent-md5' => [
        Memcached::OPT_DISTRIBUTION => Memcached::DISTRIBUTION_CONSISTENT,
        Memcached::OPT_HASH => Memcached::HASH_MD5,
    ],
    'consistent-crc32' => [
        Memcached::OPT_DISTRIBUTION => Memcached::DISTRIBUTION_CONSISTENT,
        Memcached::OPT_HASH => Memcached::HASH_CRC,
    ],
    'modulo' => [],
    'modulo-md5' => [Memcached::OPT_HASH => Memcached::HASH_MD5],
    'modulo-crc32' => [Memcached::OPT_HASH => Memcached::HASH_CRC],
];
const FLEETS = [
    '10.0.1.1:11211 10.0.1.2:11211 10.0.1.3:11211',
    'cache-a.example:11211 cache-b.example:11212 cache-c.example:11213 cache-d.example:11211 cache-e.example:21211',
    '10.0.1.1:11211*600 10.0.1.2:11211*300 10.0.1.3:11222*200 10.0.1.4:11211*350 10.0.1.5:11211*1000 10.0.1.6:11211*800',
    '127.0.0.1:11301*1 127.0.0.1:11302*3',
    '/run/cache/a.sock /run/cache/b.sock 10.0.1.1:11211',
    'alone.example:11211',
];

function keys(): array
{
    $keys = ['k', 'café', 'ключ', '鍵', str_repeat('x', 80), 'user:1:profile', '{tag}:1'];
    for ($n = 0; count($keys) < KEYS; $n++) {
        $keys[] = $n % 2 ? "key_$n" : 'memc.sess.' . md5("session $n");
    }
    return $keys;
}

/** The answers of one client, a line a key. */
function answers(string $scheme, string $fleet): string
{
    $client = new Memcached();
    $client->setOptions(SETTINGS[$scheme]);
    foreach (explode(' ', $fleet) as $server) {
        [$address, $weight] = explode('*', "$server*0");
        [$host, $port] = $address[0] === '/' ? [$address, 0] : explode(':', $address);
        $client->addServer($host, (int) $port, (int) $weight);
    }
    $lines = ["fleet $scheme $fleet"];
    foreach (keys() as $key) {
        $server = $client->getServerByKey($key);
        // The port that it makes up for a socket means nothing.
        $lines[] = "$key {$server['host']}" . ($server['host'][0] === '/' ? '' : ":{$server['port']}");
    }
    return implode("\n", $lines) . "\n";
}

/** The version of the library, which PHP tells in no other way. */
function version(): string
{
    ob_start();
    (new ReflectionExtension('memcached'))->info();
    preg_match('/libmemcached library version => (\S+)/', ob_get_clean(), $found);
    return $found[1];
}

$all = [];
foreach (array_keys(SETTINGS) as $scheme) {
    foreach (FLEETS as $number => $fleet) {
        $all["$scheme over fleet $number"] = answers($scheme, $fleet);
    }
}
if ($argc < 2) {
    echo '# Which server libmemcached ', version(), " sends a key to, by tests/clients/php/servers_of_keys.php.\n";
    echo implode('', $all);
    exit;
}
$recorded = file_get_contents($argv[1]);
run_cases(array_map(
    fn(string $answers) => fn() => same(str_contains($recorded, $answers), true, 'the recorded answers'),
    $all,
));
