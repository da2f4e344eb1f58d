// express-session over memcached: two processes of one application (app.js), with each of the stores.
//
//     node sessions.js HOST:PORT...
'use strict';

const { fork } = require('node:child_process');
const { once } = require('node:events');
const path = require('node:path');
const { assert, pause, runCases } = require('./tap.js');

const servers = process.argv.slice(2);
const STORES = ['connect-memcached', 'connect-memjs'];
const LIFETIME_MS = 100_000;
const SHORT_MS = 2_000;

const replicas = [];

// Starts one process of the application; returns where it answers.
async function start(store, lifetimeMs) {
    const env = { ...process.env, APP_LIFETIME_MS: String(lifetimeMs) };
    const replica = fork(path.join(__dirname, 'app.js'), [store, ...servers], { env });
    replicas.push(replica);
    const [port] = await once(replica, 'message');
    return `http://127.0.0.1:${port}`;
}

// One who visits any replica with the cookie that the last answer set.
class Visitor {
    cookie = '';

    async ask(replica, page, body) {
        const method = page === '/read' ? 'GET' : 'POST';
        const headers = { cookie: this.cookie, 'content-type': 'text/plain' };
        const answer = await fetch(replica + page, { method, headers, body });
        const told = await answer.json();
        assert.equal(answer.status, 200, told);
        const [set] = answer.headers.getSetCookie();
        if (set) this.cookie = set.split(';')[0];
        return told;
    }
}

function casesOf(store) {
    let one;
    let other;
    const named = [];
    const add = (name, run) => named.push([`${store}, ${name}`, run]);

    add('what one replica wrote another reads', async () => {
        [one, other] = await Promise.all([start(store, LIFETIME_MS), start(store, LIFETIME_MS)]);
        const visitor = new Visitor();
        for (const [replica, count] of [[one, 1], [other, 2], [one, 3], [other, 4]]) {
            assert.equal(await visitor.ask(replica, '/count'), count);
        }
        assert.deepEqual(await visitor.ask(one, '/read'), { count: 4 });
    });
    add('visitors do not see each other', async () => {
        const visitors = Array.from({ length: 20 }, () => new Visitor());
        await Promise.all(visitors.map((visitor, n) => visitor.ask(one, '/keep', `of ${n}`)));
        const read = await Promise.all(visitors.map((visitor) => visitor.ask(other, '/read')));
        assert.deepEqual(read.map(({ kept }) => kept), visitors.map((_, n) => `of ${n}`));
        assert.equal(new Set(visitors.map(({ cookie }) => cookie)).size, visitors.length);
    });
    add('large sessions and all letters are kept', async () => {
        const visitor = new Visitor();
        for (const kept of ['Grüße\r\nEND\r\n', 'x'.repeat(200_000)]) {
            await visitor.ask(one, '/keep', kept);
            assert.deepEqual(await visitor.ask(other, '/read'), { kept });
        }
    });
    add('an ended session is empty everywhere', async () => {
        const visitor = new Visitor();
        await visitor.ask(one, '/count');
        await visitor.ask(other, '/end');
        assert.deepEqual(await visitor.ask(one, '/read'), {});
    });
    add('a renamed session keeps its variables and the old name is void', async () => {
        const visitor = new Visitor();
        await visitor.ask(one, '/count');
        const before = Object.assign(new Visitor(), { cookie: visitor.cookie });
        await visitor.ask(one, '/rename');
        assert.notEqual(visitor.cookie, before.cookie);
        assert.deepEqual(await visitor.ask(other, '/read'), { count: 1 });
        assert.deepEqual(await before.ask(other, '/read'), {});
    });
    add('sessions outlive a replica', async () => {
        const visitor = new Visitor();
        await visitor.ask(one, '/count');
        const another = await start(store, LIFETIME_MS);
        assert.equal(await visitor.ask(another, '/count'), 2);
    });
    add('sessions expire, and visits keep them', async () => {
        const short = await start(store, SHORT_MS);
        const [regular, gone] = [new Visitor(), new Visitor()];
        await Promise.all([regular.ask(short, '/count'), gone.ask(short, '/count')]);
        for (let visits = 2; visits < 6; visits += 1) {
            await pause(800);
            assert.equal(await regular.ask(short, '/count'), visits);
        }
        assert.deepEqual(await gone.ask(short, '/read'), {});
    });
    return named;
}

process.on('exit', () => replicas.forEach((replica) => replica.kill()));
runCases(STORES.flatMap(casesOf));
