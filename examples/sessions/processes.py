"""Processes that this example starts: each in a group of its own, so that ending it ends its workers too.

Nothing is ended but by the id of a group that was started here.
"""

import os
import random
import signal
import socket
import subprocess
import time

HOST = "127.0.0.1"
# How long a process that was told to end may take before it is killed.
STOP_LIMIT_S = 60
POLL_S = 0.05
# Where ports are looked for: below those that systems give out by themselves.
PORTS = range(27000, 28700)


class NotInTime(Exception):
    """Something that was waited for did not come about."""


def wait_until(what, is_so, limit_s=120):
    """Returns what `is_so` returns, once that is true."""
    deadline = time.monotonic() + limit_s
    while not (answer := is_so()):
        if time.monotonic() > deadline:
            raise NotInTime(f"not within {limit_s} s: {what}")
        time.sleep(POLL_S)
    return answer


def serves(port):
    """Whether somebody accepts connections at `port`."""
    try:
        socket.create_connection((HOST, port), timeout=1).close()
        return True
    except OSError:
        return False


def free_ports(offsets):
    """A base from which all `offsets` are free ports."""
    for _ in range(100):
        base = random.choice(PORTS)
        if not any(serves(base + offset) for offset in offsets):
            return base
    raise NotInTime("no ports are free")


class Process:
    """A program, its log, and whatever it starts itself."""

    def __init__(self, name, command, log, environment=None):
        self.name = name
        self.command = [str(word) for word in command]
        self.log = log
        self.environment = {**os.environ, **(environment or {})}
        self.process = None

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        """Ends it as `kill -9` does, workers and all."""
        self._signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        """Ends it in order, or in the end by force. Nothing happens to one that has ended."""
        if self.process is None:
            return
        self._signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            pass
        self.kill()

    def _signal(self, number):
        # The group is ours as long as its leader has not been waited for; workers may outlive it.
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            pass
