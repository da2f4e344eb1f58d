// An application of express that keeps its sessions in memcached, as `sessions.js` starts it.
//
//     node app.js STORE HOST:PORT...
//
// Tells its parent the port it listens on.
'use strict';

const express = require('express');
const session = require('express-session');

const [kind, ...servers] = process.argv.slice(2);
const SECRET = 'not a secret: nothing here leaves this machine';

function storeOf() {
    if (kind === 'connect-memcached') {
        const Store = require('connect-memcached')(session);
        return new Store({ hosts: servers, prefix: 'app:', retries: 0, failures: 1_000 });
    }
    const Store = require('connect-memjs')(session);
    return new Store({ servers, prefix: 'app:', retries: 1 });
}

const app = express();
app.use(session({
    store: storeOf(),
    secret: SECRET,
    name: 'id',
    resave: false,
    saveUninitialized: false,
    cookie: { maxAge: Number(process.env.APP_LIFETIME_MS) },
}));

app.post('/count', (request, response) => {
    request.session.count = (request.session.count ?? 0) + 1;
    response.json(request.session.count);
});
app.post('/keep', express.text({ limit: '2mb' }), (request, response) => {
    request.session.kept = request.body;
    response.json(true);
});
app.get('/read', (request, response) => {
    response.json({ count: request.session.count, kept: request.session.kept });
});
app.post('/rename', (request, response, next) => {
    const { count } = request.session;
    request.session.regenerate((error) => {
        if (error) return next(error);
        request.session.count = count;
        response.json(true);
    });
});
app.post('/end', (request, response, next) => {
    request.session.destroy((error) => (error ? next(error) : response.json(true)));
});
app.use((error, request, response, next) => response.status(500).json(String(error)));

const listener = app.listen(0, '127.0.0.1', () => process.send(listener.address().port));
process.on('disconnect', () => process.exit(0));
