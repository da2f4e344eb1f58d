// npm's memcached, on one server and on three.
//
//     node memcached.js HOST:PORT...
'use strict';

const { promisify } = require('node:util');
const Memcached = require('memcached');
const { assert, pause, runCases, waitPast } = require('./tap.js');

const LIFETIME_S = 100;
const THIRTY_DAYS_S = 60 * 60 * 24 * 30;
const METHODS = [
    'touch', 'get', 'gets', 'getMulti', 'set', 'replace', 'add', 'cas', 'append', 'prepend', 'incr', 'decr', 'del',
    'version', 'flush', 'stats', 'settings', 'slabs', 'items', 'cachedump',
];

// The client with promises for callbacks.
function clientOf(servers, options = {}) {
    const client = new Memcached(servers, { timeout: 10_000, retries: 0, failures: 1_000, ...options });
    const methods = METHODS.map((name) => [name, promisify(client[name]).bind(client)]);
    return { ...Object.fromEntries(methods), end: () => client.end() };
}

function casesOf(kind, servers) {
    const client = clientOf(servers);
    const named = [];
    const add = (name, run) => named.push([`${kind}, ${name}`, async () => {
        await client.flush();
        await run();
    }]);

    add('values of every type are got', async () => {
        const everyByte = Buffer.from(Array.from({ length: 256 }, (_, n) => n));
        for (const value of ['text', 'Grüße', '', 7, -1.5, { a: [1, { b: 'c' }] }, true, null, everyByte]) {
            assert.equal(await client.set('k', value, LIFETIME_S), true);
            assert.deepEqual(await client.get('k'), value);
        }
        assert.equal(await client.get('nobody'), undefined);
    });
    add('large values are got', async () => {
        for (const size of [2_048, 65_536, 1_000_000]) {
            const value = 'x'.repeat(size);
            assert.equal(await client.set('k', value, LIFETIME_S), true);
            assert.ok(await client.get('k') === value, `${size} bytes`);
        }
    });
    add('a value too large is refused and takes the one that was there with it', async () => {
        await client.set('k', 'small', LIFETIME_S);
        const unbound = clientOf(servers, { maxValue: 1 << 24 });
        // The client takes SERVER_ERROR for an issue of the connection and never settles the call.
        unbound.set('k', 'x'.repeat(1 << 20), LIFETIME_S).catch(() => {});
        while (await client.get('k') !== undefined) {
            await pause(10);
        }
        unbound.end();
    });
    add('add and replace', async () => {
        await assert.rejects(client.replace('k', 'a', LIFETIME_S), { notStored: true });
        assert.equal(await client.add('k', 'b', LIFETIME_S), true);
        await assert.rejects(client.add('k', 'c', LIFETIME_S), { notStored: true });
        assert.equal(await client.replace('k', 'd', LIFETIME_S), true);
        assert.equal(await client.get('k'), 'd');
    });
    add('append and prepend', async () => {
        await assert.rejects(client.append('k', 'a'), { notStored: true });
        await assert.rejects(client.prepend('k', 'a'), { notStored: true });
        await client.set('k', 'b', LIFETIME_S);
        assert.equal(await client.append('k', 'c'), true);
        assert.equal(await client.prepend('k', 'a'), true);
        assert.equal(await client.get('k'), 'abc');
    });
    add('numbers go up and down', async () => {
        await client.set('n', 10, LIFETIME_S);
        assert.equal(await client.incr('n', 32), 42);
        assert.equal(await client.decr('n', 2), 40);
        assert.equal(await client.decr('n', 100), 0);
        assert.equal(await client.incr('nobody', 1), false);
        await client.set('text', 'no number', LIFETIME_S);
        await assert.rejects(client.incr('text', 1), /non-numeric/);
        assert.equal(await client.get('text'), 'no number');
    });
    add('cas is compared', async () => {
        await client.set('k', 'a', LIFETIME_S);
        const { k, cas } = await client.gets('k');
        assert.equal(k, 'a');
        assert.equal(await client.cas('k', 'b', cas, LIFETIME_S), true);
        assert.equal(await client.cas('k', 'c', cas, LIFETIME_S), false);
        assert.equal(await client.get('k'), 'b');
        assert.equal(await client.cas('nobody', 'c', cas, LIFETIME_S), false);
    });
    add('delete and touch', async () => {
        await client.set('k', 'a', LIFETIME_S);
        assert.equal(await client.touch('k', LIFETIME_S), true);
        assert.equal(await client.touch('nobody', LIFETIME_S), false);
        assert.equal(await client.del('k'), true);
        assert.equal(await client.del('k'), false);
    });
    add('items expire', async () => {
        await client.set('short', 'a', 1);
        await client.set('touched', 'a', 1);
        await client.touch('touched', LIFETIME_S);
        await client.set('past', 'a', THIRTY_DAYS_S + 1).catch(() => {}); // the client itself may refuse it
        await client.set('date', 'a', Math.floor(Date.now() / 1_000) + LIFETIME_S).catch(() => {});
        assert.equal(await client.get('past'), undefined);
        await waitPast(1);
        assert.equal(await client.get('short'), undefined);
        assert.equal(await client.get('touched'), 'a');
    });
    add('many keys at once', async () => {
        const items = Object.fromEntries(Array.from({ length: 300 }, (_, n) => [`key_${n}`, `value ${n}`]));
        const sets = Object.entries(items).map(([key, value]) => client.set(key, value, LIFETIME_S));
        assert.ok((await Promise.all(sets)).every((stored) => stored === true));
        assert.deepEqual(await client.getMulti([...Object.keys(items), 'nobody']), items);
    });
    add('a thousand requests at once', async () => {
        await client.set('n', 0, LIFETIME_S);
        await Promise.all(Array.from({ length: 1_000 }, () => client.incr('n', 1)));
        assert.equal(await client.get('n'), 1_000);
    });
    add('keys of 250 bytes', async () => {
        assert.equal(await client.set('k'.repeat(250), 'a', LIFETIME_S), true);
        assert.equal(await client.get('k'.repeat(250)), 'a');
    });
    add('keys under a prefix', async () => {
        const prefixed = clientOf(servers, { namespace: 'app:' });
        await prefixed.set('k', 'a', LIFETIME_S);
        assert.deepEqual(await prefixed.getMulti(['k', 'nobody']), { k: 'a' });
        assert.equal(await client.get('app:k'), 'a');
        prefixed.end();
    });
    add('statistics and versions are told', async () => {
        for (const { version } of await client.version()) {
            assert.match(version, /^\d+\.\d+\.\d+$/);
        }
        const stats = await client.stats();
        assert.deepEqual(stats.map(({ server }) => server).sort(), [...servers].sort());
        for (const ofOne of stats) {
            assert.equal(typeof ofOne.curr_items, 'number');
            assert.equal(typeof ofOne.limit_maxbytes, 'number');
        }
        for (const settings of await client.settings()) {
            assert.equal(settings.cas_enabled, 'yes');
        }
    });
    if (process.env.CACHE_NODES_ARE !== 'one cluster') { // where a node tells of itself alone
        add('classes and their items are told', async () => {
            await client.set('listed', 'value', LIFETIME_S);
            let number = 0;
            for (const { server, ...classes } of await client.items()) {
                for (const [slab, told] of Object.entries(classes)) {
                    number += told.number;
                    // memcached lists what has cooled down, which may be nothing yet.
                    await client.cachedump(server, Number(slab), 100);
                }
            }
            assert.ok(number >= 1);
            assert.equal((await client.slabs()).length, servers.length);
        });
    }
    return named;
}

const servers = process.argv.slice(2);
runCases([...casesOf('one server', servers.slice(0, 1)), ...casesOf('three servers', servers)]);
