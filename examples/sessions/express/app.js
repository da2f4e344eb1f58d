// A shop of two pages, whose sessions are express-session's, in the cache.
//
//     CACHE_NODES=127.0.0.1:21000,127.0.0.1:21001 SECRET=... PORT=8080 node app.js
'use strict';

const express = require('express');
const session = require('express-session');
const MemcachedStore = require('connect-memjs')(session);

const { CACHE_NODES, SECRET, PORT } = process.env;

const store = new MemcachedStore({
    // All nodes: each of them answers for every key.
    servers: CACHE_NODES.split(','),
    prefix: 'express:',
    // A node that fails once is left out for so many seconds, and the request goes to the next.
    failover: true,
    failoverTime: 2,
    retries: 1,
    retry_delay: 0,
    conntimeout: 1,
    // Longer than a node takes to say that it cannot say (5 s). At the half second that is the default a
    // write may be given up, sent again by way of another node, and arrive once more after the next write.
    timeout: 8,
    logger: { log() {} },
});

const app = express();
app.get('/health', (request, response) => response.sendStatus(204));
app.use(session({
    store,
    secret: SECRET,
    name: 'id',
    resave: false,
    saveUninitialized: false,
    cookie: { maxAge: 24 * 3600 * 1000 },
}));
app.use(express.urlencoded({ extended: false }));

// Who is logged in, and what of theirs the session holds.
function page(request, response) {
    const { user = null, cart = 0 } = request.session;
    response.status(user === null ? 401 : 200).json({ user, cart });
}

// Answers once the session is written. Left to the end of the request, a write that fails goes unnoticed.
function saveThenPage(request, response, next) {
    request.session.save((error) => (error ? next(error) : page(request, response)));
}

app.get('/', page);
app.post('/login', (request, response, next) => {
    request.session.regenerate((error) => {
        if (error) return next(error);
        request.session.user = request.body.user;
        saveThenPage(request, response, next);
    });
});
app.post('/cart', (request, response, next) => {
    if (request.session.user === undefined) return page(request, response);
    request.session.cart = (request.session.cart ?? 0) + 1;
    saveThenPage(request, response, next);
});
app.post('/logout', (request, response, next) => {
    request.session.destroy((error) => (error ? next(error) : response.sendStatus(204)));
});
app.use((error, request, response, next) => {
    console.error(error.message);
    if (response.headersSent) return next(error);
    response.sendStatus(503);
});

app.listen(Number(PORT), '127.0.0.1');
