"""The servers under test, and what the scripts share.

`run.py` starts the servers and names them in CACHE_NODES as host:port, separated by commas.
"""

import os
import time

# A server may count time in whole seconds, so a lifetime of n seconds ends up to one later.
CLOCK_SLACK_S = 1.2


def addresses():
    """The servers as (host, port) pairs."""
    nodes = []
    for node in os.environ["CACHE_NODES"].split(","):
        host, port = node.rsplit(":", 1)
        nodes.append((host, int(port)))
    return nodes


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


def are_one_cluster():
    """Whether they are the nodes of one cluster, rather than servers that know nothing of each other."""
    return os.environ.get("CACHE_NODES_ARE") == "one cluster"
