"""Users with a browser each, and what they have been told.

A user does one thing at a time, so that what was acknowledged is known: a cart holds `sure` items, and up to
`unsure` more whose answer never came. Each answer is held against that.
"""

import dataclasses
import http.client
import json
import threading
import time
import urllib.parse

import processes
from tally import Tally

# How long a user goes on asking for a page.
PATIENCE_S = 60
# How long the balancer may take for one answer; longer than its own time-outs.
ANSWER_LIMIT_S = 30
PAUSE_S = 0.05
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@dataclasses.dataclass
class Page:
    """An answer that an application gave."""

    status: int
    user: str | None
    cart: int


class Line:
    """A thread's connection to the balancer."""

    def __init__(self, port):
        self.port = port
        self.connection = None

    def ask(self, method, path, cookies, form=None):
        """(status, cookies set, body); an `OSError` or `HTTPException` without an answer."""
        if self.connection is None:
            self.connection = http.client.HTTPConnection(processes.HOST, self.port, timeout=ANSWER_LIMIT_S)
        body = urllib.parse.urlencode(form or {}) if method == "POST" else None
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
        try:
            self.connection.request(method, path, body, {**headers, **(FORM if body is not None else {})})
            answer = self.connection.getresponse()
            told = answer.read()
        except (OSError, http.client.HTTPException):
            self.close()
            raise
        if answer.will_close:
            self.close()
        return answer.status, answer.headers.get_all("Set-Cookie", []), told

    def close(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None


class User:
    """Somebody with an account and a browser."""

    def __init__(self, stack, name, book):
        self.stack = stack
        self.name = name
        self.book = book
        self.cookies = {}
        self.sure = 0
        self.unsure = 0
        self.lock = threading.Lock()

    def log_in(self, line):
        """Again and again until an answer comes: a session too many harms nobody."""
        page = self._insist(line, "POST", "/login", {"user": self.name})
        if page is None:
            return
        if page.status != 200 or page.user != self.name:
            self._wrong(f"{self.name} logs in and is told {page}", wrong_identity=1)
        self.sure, self.unsure = 0, 0

    def check(self, line):
        """Looks at a page, and holds what it says against what is known."""
        page = self._insist(line, "GET", "/")
        self.book.count(self.stack, Tally(checked=1))
        if page is not None:
            self._compare(line, page)

    def add_to_cart(self, line):
        """Once: asked again without knowing it might be done twice."""
        self.unsure += 1
        page = self._ask(line, "POST", "/cart")
        if page is not None:
            self._compare(line, page, at_least=self.sure + 1)

    def leave_and_return(self, line):
        """Logs out, makes sure that the old cookie is worth nothing, and logs in again."""
        before = dict(self.cookies)
        if self._insist(line, "POST", "/logout") is None:
            return
        self.cookies = before
        page = self._insist(line, "GET", "/")
        if page is not None and page.user is not None:
            self._wrong(f"{self.name} has logged out and is told {page}", revived=1)
        self.log_in(line)

    def _compare(self, line, page, at_least=None):
        at_least = self.sure if at_least is None else at_least
        at_most = self.sure + self.unsure
        expected = f"{self.name} with {at_least} to {at_most} items is told {page}"
        if page.user is None:
            self._wrong(expected, logouts=1)
            return self.log_in(line)
        if page.user != self.name:
            self._wrong(expected, wrong_identity=1)
            return self.log_in(line)
        if page.cart < at_least:
            self._wrong(expected, lost=at_least - page.cart)
        if page.cart > at_most:
            self._wrong(expected, doubled=page.cart - at_most)
        self.sure, self.unsure = page.cart, 0

    def _insist(self, line, method, path, form=None):
        """Asks until there is an answer; None if there is none for as long as anybody would wait."""
        start = time.monotonic()
        while (page := self._ask(line, method, path, form)) is None:
            if time.monotonic() - start > PATIENCE_S:
                self._wrong(f"{self.name} gives up {method} {path}", gave_up=1)
                break
            time.sleep(PAUSE_S)
        self.book.count(self.stack, Tally(longest_wait_s=time.monotonic() - start))
        return page

    def _ask(self, line, method, path, form=None):
        """A page, or None where the application could not say."""
        start = time.monotonic()
        try:
            status, cookies, told = line.ask(method, path, self.cookies, form)
        except (OSError, http.client.HTTPException):
            status, cookies, told = None, [], b""
        is_answer = status in (200, 204, 401)
        spent = time.monotonic() - start
        self.book.count(self.stack, Tally(requests=1, failed=int(not is_answer), longest_wait_s=spent))
        if not is_answer:
            return None
        for cookie in cookies:
            self._take(cookie)
        page = json.loads(told) if told else {"user": None, "cart": 0}
        return Page(status, page["user"], page["cart"])

    def _take(self, cookie):
        """As a browser does: one without a value is being taken away."""
        name, value = cookie.split(";")[0].strip().split("=", 1)
        if value in ("", '""', "deleted"):
            self.cookies.pop(name, None)
        else:
            self.cookies[name] = value

    def _wrong(self, text, **counts):
        self.book.note(f"{self.stack}: {text}")
        self.book.count(self.stack, Tally(**counts))
