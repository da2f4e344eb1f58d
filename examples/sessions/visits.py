"""Many users at a time: all of them one after another, or any of them by chance."""

import collections
import random
import threading

from users import PATIENCE_S, Line, User


def crowd(port, jobs, width):
    """Begins to carry out `jobs`, each a function of a connection to `port`, `width` at a time; the threads."""
    waiting = collections.deque(jobs)

    def work():
        line = Line(port)
        while True:
            try:
                job = waiting.popleft()
            except IndexError:
                return line.close()
            job(line)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(width)]
    for thread in threads:
        thread.start()
    return threads


class Visits:
    """Users who come and go all the time, one after another, `per_second` in all."""

    def __init__(self, users, port, seed, per_second, width=4):
        self.users = users
        self.port = port
        self.pause_s = width / per_second
        self.is_over = threading.Event()
        chances = [random.Random(f"{seed} {users[0].stack} {number}") for number in range(width)]
        self.threads = [threading.Thread(target=self._visit, args=(it,), daemon=True) for it in chances]
        for thread in self.threads:
            thread.start()

    def end(self):
        """Returns when whoever was visiting has left."""
        self.is_over.set()
        for thread in self.threads:
            thread.join(2 * PATIENCE_S)

    def _visit(self, chance):
        line = Line(self.port)
        while not self.is_over.wait(self.pause_s):
            user = chance.choice(self.users)
            deed = chance.choices((User.check, User.add_to_cart, User.leave_and_return), (50, 45, 5))[0]
            with user.lock:
                deed(user, line)
        line.close()
