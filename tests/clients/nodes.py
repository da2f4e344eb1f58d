"""The servers under test, and what the scripts share.

`run.py` starts the servers and names them in CACHE_NODES as host:port, separated by commas, and their
program in CACHE_SERVER_PROGRAM.
"""

import os
import socket
import time
import unittest

# A server may count time in whole seconds, so a lifetime of n seconds ends up to one later.
CLOCK_SLACK_S = 1.2


def addresses():
    """The servers as (host, port) pairs."""
    nodes = []
    for node in os.environ["CACHE_NODES"].split(","):
        host, port = node.rsplit(":", 1)
        nodes.append((host, int(port)))
    return nodes


def free_port():
    """A port that nobody listens on at the moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_past(seconds):
    """Returns when a lifetime of `seconds` that began before the call is certainly over."""
    time.sleep(seconds + CLOCK_SLACK_S)


def public_methods(client_class):
    """The names of the methods that `client_class` offers, without operators and aliases."""
    by_function = {}
    for name in dir(client_class):
        method = getattr(client_class, name)
        if callable(method) and not name.startswith("_") and not isinstance(method, type):
            by_function.setdefault(method, name)
    return set(by_function.values())


class Recorder:
    """Passes every call on to `client` and remembers the methods called, in `called`.

    A suite that claims to use all that a client offers compares `called` with `public_methods`.
    """

    def __init__(self, client, called):
        self._client = client
        self._called = called

    def __getattr__(self, name):
        attribute = getattr(self._client, name)
        if callable(attribute):
            self._called.add(name)
        return attribute

    def __setitem__(self, key, value):
        self._client[key] = value

    def __getitem__(self, key):
        return self._client[key]

    def __delitem__(self, key):
        del self._client[key]

    def __contains__(self, key):
        return key in self._client


def flush(servers):
    """Empties `servers`, for clients that cannot."""
    for host, port in servers:
        with socket.create_connection((host, port), timeout=10) as connection:
            connection.sendall(b"flush_all\r\n")
            answer = connection.recv(64)
            assert answer == b"OK\r\n", answer


def are_one_cluster():
    """Whether they are the nodes of one cluster, rather than servers that know nothing of each other."""
    return os.environ.get("CACHE_NODES_ARE") == "one cluster"


# How the reason begins for which a test is left out that could not mean anything; see `not_in_a_cluster`.
NOT_MEANT = "not meant for a cluster: "


def not_in_a_cluster(why):
    """Leaves a test out where the servers are one cluster. Nothing is missing then, so nothing was skipped."""
    return unittest.skipIf(are_one_cluster(), NOT_MEANT + why)


def get(address, key):
    """The value of `key` at one server, or None: for looking at what a client keeps there."""
    with socket.create_connection(address, timeout=10) as connection, connection.makefile("rwb") as lines:
        lines.write(f"get {key}\r\n".encode())
        lines.flush()
        head = lines.readline().split()
        return lines.read(int(head[3])) if head[:1] == [b"VALUE"] else None


def wait_until_served(port, process, limit_s):
    """Returns when `process` accepts connections at `port`."""
    deadline = time.monotonic() + limit_s
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{process.args[0]} does not serve") from None
            time.sleep(0.02)
