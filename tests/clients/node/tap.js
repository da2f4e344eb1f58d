// Runs cases and tells how they ended, in the lines that tests/clients/tap.py reads.
'use strict';

const assert = require('node:assert/strict');
const { setTimeout: pause } = require('node:timers/promises');

const LIMIT_MS = 20_000;
// A server may count time in whole seconds, so a lifetime of n seconds ends up to one later.
const CLOCK_SLACK_MS = 1_200;

// Returns when a lifetime of `seconds` that began before the call is certainly over.
const waitPast = (seconds) => pause(1_000 * seconds + CLOCK_SLACK_MS);

// Rejects when `promise` has not settled within the limit: a client that lost an answer waits for ever.
async function withinLimit(promise) {
    const given = new AbortController();
    const late = pause(LIMIT_MS, undefined, { signal: given.signal }).then(() => {
        throw new Error(`no answer within ${LIMIT_MS} ms`);
    });
    late.catch(() => {});
    try {
        return await Promise.race([promise, late]);
    } finally {
        given.abort();
    }
}

// `cases` are pairs of a name and an async function; they run one after the other.
async function runCases(cases) {
    let failed = 0;
    for (const [name, run] of cases) {
        try {
            await withinLimit(run());
            console.log(`ok ${name}`);
        } catch (error) {
            failed += 1;
            const why = String(error?.stack ?? error).replace(/\s+/g, ' ').slice(0, 600);
            console.log(`not ok ${name}: ${why}`);
        }
    }
    console.log(`1..${cases.length}`);
    process.exit(failed > 0 ? 1 : 0);
}

module.exports = { assert, pause, runCases, waitPast };
