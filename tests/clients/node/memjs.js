// npm's memjs, which speaks binary alone, on one server and on three.
//
//     node memjs.js HOST:PORT...
'use strict';

const memjs = require('memjs');
const { assert, runCases, waitPast } = require('./tap.js');

const LIFETIME_S = 100;
const THIRTY_DAYS_S = 60 * 60 * 24 * 30;
const silent = { log: () => {} };

function casesOf(kind, servers) {
    const client = memjs.Client.create(servers.join(','), {
        expires: LIFETIME_S, timeout: 10, conntimeout: 10, retries: 1, logger: silent,
    });
    // What each server tells in `stats GROUP`, as pairs of its address and the lines.
    const statsOf = (group) => new Promise((resolve, reject) => {
        const told = [];
        client.statsWithKey(group, (error, server, lines) => {
            if (error) reject(error);
            if (told.push([server, lines]) === servers.length) resolve(told);
        });
    });
    const text = async (key) => (await client.get(key)).value?.toString() ?? null;
    const named = [];
    const add = (name, run) => named.push([`${kind}, ${name}`, async () => {
        await client.flush();
        await run();
    }]);

    add('values of all bytes and sizes are got', async () => {
        const everyByte = Buffer.from(Array.from({ length: 256 }, (_, n) => n));
        const sized = [0, 1, 2_048, 65_536, 1_000_000].map((size) => Buffer.alloc(size, 0x80));
        for (const value of [everyByte, Buffer.from('Grüße'), ...sized]) {
            assert.equal(await client.set('k', value), true);
            assert.ok((await client.get('k')).value.equals(value), `${value.length} bytes`);
        }
        assert.deepEqual(await client.get('nobody'), { value: null, flags: null });
    });
    add('keys of all letters and of 250 bytes', async () => {
        for (const key of ['Grüße', 'k'.repeat(250)]) {
            assert.equal(await client.set(key, 'a'), true);
            assert.equal(await text(key), 'a');
        }
    });
    add('a value too large is refused and the next request served', async () => {
        await client.set('k', 'small');
        await assert.rejects(client.set('k', Buffer.alloc(1 << 20)), /Value too large/);
        assert.equal(await text('k'), null);
        assert.equal(await client.set('k', 'a'), true);
    });
    add('add and replace', async () => {
        assert.equal(await client.replace('k', 'a'), false);
        assert.equal(await client.add('k', 'b'), true);
        assert.equal(await client.add('k', 'c'), false);
        assert.equal(await client.replace('k', 'd'), true);
        assert.equal(await text('k'), 'd');
    });
    add('append', async () => { // its prepend sends the same frame
        await client.set('k', 'b');
        assert.equal(await client.append('k', 'c'), true);
        assert.equal(await text('k'), 'bc');
        await assert.rejects(client.append('nobody', 'a'), /not stored/i);
    });
    add('numbers go up and down from where the client says', async () => {
        assert.deepEqual(await client.increment('n', 5, { initial: 10 }), { success: true, value: 10 });
        assert.deepEqual(await client.increment('n', 32, { initial: 10 }), { success: true, value: 42 });
        assert.deepEqual(await client.decrement('n', 2, {}), { success: true, value: 40 });
        assert.deepEqual(await client.decrement('n', 100, {}), { success: true, value: 0 });
        await client.set('text', 'no number');
        await assert.rejects(client.increment('text', 1, {}), /non-numeric/i);
        assert.equal(await text('text'), 'no number');
    });
    add('delete and touch', async () => {
        await client.set('k', 'a');
        assert.equal(await client.touch('k', LIFETIME_S), true);
        assert.equal(await client.touch('nobody', LIFETIME_S), false);
        assert.equal(await client.delete('k'), true);
        assert.equal(await client.delete('k'), false);
    });
    add('items expire', async () => {
        await client.set('short', 'a', { expires: 1 });
        await client.set('touched', 'a', { expires: 1 });
        await client.touch('touched', LIFETIME_S);
        await client.set('past', 'a', { expires: THIRTY_DAYS_S + 1 });
        await client.set('date', 'a', { expires: Math.floor(Date.now() / 1_000) + LIFETIME_S });
        assert.equal(await text('past'), null);
        await waitPast(1);
        assert.equal(await text('short'), null);
        assert.equal(await text('touched'), 'a');
        assert.equal(await text('date'), 'a');
    });
    add('a thousand requests at once', async () => {
        const numbers = Array.from({ length: 500 }, (_, n) => n);
        const sets = await Promise.all(numbers.map((n) => client.set(`k${n}`, `${n}`)));
        assert.ok(sets.every((stored) => stored));
        const got = await Promise.all(numbers.map((n) => text(`k${n}`)));
        assert.deepEqual(got, numbers.map(String));
    });
    add('statistics are told', async () => {
        const general = await statsOf('');
        assert.deepEqual(general.map(([server]) => server).sort(), [...servers].sort());
        assert.ok(general.every(([, lines]) => 'curr_items' in lines && 'evictions' in lines));
        const settings = await statsOf('settings');
        assert.ok(settings.every(([, lines]) => lines.cas_enabled === 'yes'));
    });
    return named;
}

const servers = process.argv.slice(2);
runCases([...casesOf('one server', servers.slice(0, 1)), ...casesOf('three servers', servers)]);
