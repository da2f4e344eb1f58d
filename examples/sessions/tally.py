"""What happened to users, counted by application and by the fault that was going on."""

import collections
import dataclasses
import threading
import time


@dataclasses.dataclass
class Tally:
    """What happened to the users of one application during one kind of fault."""

    checked: int = 0
    requests: int = 0
    failed: int = 0
    logouts: int = 0
    wrong_identity: int = 0
    lost: int = 0
    doubled: int = 0
    revived: int = 0
    gave_up: int = 0
    longest_wait_s: float = 0.0

    def add(self, other):
        for field in dataclasses.fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            merge = max if field.name == "longest_wait_s" else sum
            setattr(self, field.name, merge((mine, theirs)))


class Book:
    """Tallies by application and fault; any thread writes into those of the fault that is going on."""

    def __init__(self):
        self.fault = "log in"
        self.tallies = collections.defaultdict(Tally)
        self.notes = []
        self._lock = threading.Lock()

    def count(self, stack, tally):
        with self._lock:
            self.tallies[stack, self.fault].add(tally)

    def note(self, text):
        """Something that must not happen: the run has failed."""
        with self._lock:
            self.notes.append(f"{time.strftime('%H:%M:%S')} during {self.fault}: {text}")
