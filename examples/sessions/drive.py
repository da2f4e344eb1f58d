#!/usr/bin/env python3
"""Logs users in, does harm to whatever keeps their sessions, and looks whether they are still there.

    drive.py --bin target/release                        a thousand users of each application, ten rounds
    drive.py --bin target/release --short                the same in about a minute
    drive.py --bin target/release --stack php --seed 7   one application, the faults in another order

Starts a cluster of three nodes, two replicas of each application and HAProxy, on free ports of this machine,
and ends them all. Prints a table; exits with 0 only if nobody was logged out, took anybody else's place, or
lost a thing that was acknowledged. Logs are kept where something went wrong.
"""

import argparse
import functools
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True  # nothing is left behind in the source tree
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import cluster  # noqa: E402, beside this file
import processes  # noqa: E402
import shop  # noqa: E402
import tally  # noqa: E402
import users  # noqa: E402
import visits  # noqa: E402

USERS, ROUNDS = 1000, 10
USERS_SHORT, ROUNDS_SHORT = 50, 2
# In the short form no round is begun after this.
SHORT_S = 45
# Visits a second to each application, beside those that look after everybody.
VISITS_PER_S = 60
# Harm is done so long after everybody has begun to be looked after.
UNDER_WAY_S = 0.3
# How many look at a time, of each application.
WIDTH = 8
# Of what must not happen so much is told.
NOTES_MAX = 20
# A run that has not ended by then has failed: for the start, and for each round.
START_LIMIT_S = 120
ROUND_LIMIT_S = 300


class Faults:
    """What is done, by name. Each yields what is to happen while everybody is being looked after, or None."""

    def __init__(self, nodes, replicas, chance):
        self.nodes = nodes
        self.shop = replicas
        self.chance = chance
        self.by_name = {
            "kill a replica": self.kill_a_replica,
            "kill all replicas": self.kill_all_replicas,
            "kill a node": self.kill_a_node,
            "drain a node": self.drain_a_node,
            "restart all nodes": self.restart_all_nodes,
        }

    def kill_a_replica(self):
        killed = [self.chance.choice(replicas) for replicas in self.shop.replicas.values()]
        yield lambda: each(killed, shop.Replica.kill)
        yield lambda: each(killed, shop.Replica.start)

    def kill_all_replicas(self):
        replicas = self.shop.all_replicas()
        yield lambda: (each(replicas, shop.Replica.kill), each(replicas, shop.Replica.start))

    def kill_a_node(self):
        node = self.chance.randrange(cluster.NODES)
        yield lambda: self.nodes.kill(node)
        yield self.nodes.wait_until_well

    def drain_a_node(self):
        node = self.chance.randrange(cluster.NODES)
        yield lambda: self.nodes.drain(node)
        yield None
        yield lambda: self.nodes.undrain(node)

    def restart_all_nodes(self):
        for node in self.chance.sample(range(cluster.NODES), cluster.NODES):
            yield lambda node=node: self.nodes.restart(node)
            self.nodes.wait_until_well()


def each(all_of_them, do):
    for one in all_of_them:
        do(one)


class Run:
    """One call of this program."""

    def __init__(self, options, folder):
        offsets = [*cluster.OFFSETS, *shop.OFFSETS]
        server, ctl = options.bin / "cache-server", options.bin / "cache-ctl"
        self.nodes = cluster.Cluster(server, ctl, folder, processes.free_ports(offsets))
        self.shop = shop.Shop(options.stacks, folder, self.nodes, options.bin)
        self.book = tally.Book()
        self.rounds = options.rounds
        self.rounds_s = SHORT_S if options.short else ROUND_LIMIT_S * options.rounds
        self.seed = options.seed
        self.users = {
            stack: [users.User(stack, f"{stack}-user-{number}", self.book) for number in range(options.users)]
            for stack in options.stacks
        }

    def go(self):
        self.nodes.start()
        self.shop.start()
        self.everybody(users.User.log_in)
        coming_and_going = [
            visits.Visits(whose, self.shop.ports[stack], self.seed, VISITS_PER_S)
            for stack, whose in self.users.items()
        ]
        self.harm()
        each(coming_and_going, visits.Visits.end)
        self.book.fault = "log out"
        self.everybody(users.User.check)
        self.everybody(users.User.leave_and_return)

    def harm(self):
        chance = random.Random(self.seed)
        faults = Faults(self.nodes, self.shop, chance)
        begin = time.monotonic()
        for number in range(1, self.rounds + 1):
            if time.monotonic() - begin > self.rounds_s:
                return print("no more rounds: the time is over", flush=True)
            for name in chance.sample(list(faults.by_name), len(faults.by_name)):
                self.book.fault = name
                self.do(f"round {number}: {name}", faults.by_name[name]())

    def do(self, name, fault):
        start = time.monotonic()
        for harm in fault:
            self.everybody(users.User.check, harm)
        # And when it is over.
        self.everybody(users.User.check)
        print(f"{name}, {time.monotonic() - start:.1f} s", flush=True)

    def everybody(self, deed, meanwhile=None):
        """Every user does this, while others of them come and go, and `meanwhile` happens."""

        def done_by(user, line):
            with user.lock:
                deed(user, line)

        threads = []
        for stack, whose in self.users.items():
            jobs = [functools.partial(done_by, user) for user in whose]
            threads += visits.crowd(self.shop.ports[stack], jobs, WIDTH)
        if meanwhile:
            time.sleep(UNDER_WAY_S)
            meanwhile()
        for thread in threads:
            thread.join()

    def stop(self):
        try:
            self.shop.stop()
        finally:
            self.nodes.stop()


def tell(book):
    """Prints what happened to whom; returns whether all is well."""
    heads = ("application", "fault", "checked", "logged out", "taken for others", "writes lost", "doubled")
    heads += ("revived", "gave up", "requests", "failed", "longest wait")
    sums = {}
    for (stack, _), it in book.tallies.items():
        sums.setdefault((stack, "all"), tally.Tally()).add(it)
    rows = [heads]
    for (stack, fault), it in sorted({**book.tallies, **sums}.items()):
        counts = (it.checked, it.logouts, it.wrong_identity, it.lost, it.doubled, it.revived, it.gave_up)
        counts += (it.requests, it.failed, f"{it.longest_wait_s:.2f} s")
        rows.append((stack, fault, *map(str, counts)))
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip(), flush=True)
    for note in book.notes[:NOTES_MAX]:
        print(f"FAILED: {note}", file=sys.stderr)
    return not book.notes


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", type=pathlib.Path, help="where cache-server, cache-ctl and axum-shop are")
    parser.add_argument("--stack", choices=[*shop.STACKS, "all"], default="all", help="which application")
    parser.add_argument("--users", type=int, help=f"of each application; {USERS} if not given")
    parser.add_argument("--rounds", type=int, help=f"of all faults; {ROUNDS} if not given")
    parser.add_argument("--seed", type=int, default=1, help="what comes by chance, such as the faults' order")
    parser.add_argument("--short", action="store_true", help=f"{USERS_SHORT} users and {ROUNDS_SHORT} rounds")
    parser.add_argument("--keep-logs", action="store_true", help="of a run without a failure too")
    parser.add_argument("--can-run", action="store_true", help="only say whether all programs are there")
    options = parser.parse_args()
    lacks = shop.missing()
    if options.can_run or lacks:
        print(*lacks, sep="\n", end="\n" if lacks else "")
        return 1 if lacks else 0
    if options.bin is None:
        parser.error("--bin says where cache-server, cache-ctl and axum-shop are")
    options.users = options.users or (USERS_SHORT if options.short else USERS)
    options.rounds = options.rounds or (ROUNDS_SHORT if options.short else ROUNDS)
    options.stacks = shop.STACKS if options.stack == "all" else (options.stack,)
    options.bin = options.bin.resolve()

    def leave(number, _):
        raise SystemExit(f"ended by {signal.Signals(number).name}")

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, leave)
    signal.alarm(START_LIMIT_S + options.rounds * ROUND_LIMIT_S)

    folder = pathlib.Path(tempfile.mkdtemp(prefix="sessions-"))
    run = Run(options, folder)
    is_well = False
    # A thread that ends by a bug of this program has left users unlooked at.
    threading.excepthook = lambda it: run.book.note(f"{it.exc_type.__name__}: {it.exc_value}")
    try:
        run.go()
        is_well = tell(run.book)
    finally:
        # Not to be cut short: whoever asks twice would leave processes behind.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN)
        run.stop()
        if is_well and not options.keep_logs:
            shutil.rmtree(folder)
        else:
            print(f"logs are in {folder}", file=sys.stderr)
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
