"""PHP: its Memcached, and the session handler that comes with it, whose sessions are locked while a request runs.

The application (php/sessions.php) runs twice, as behind a balancer, each replica with processes enough for
several requests at once.
"""

import concurrent.futures
import http.client
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time
import unittest
import urllib.parse

import nodes
import tap

HERE = pathlib.Path(__file__).resolve().parent / "php"
# What the Rust client is tested against.
SERVERS_OF_KEYS = HERE.parents[2] / "cache-client/src/routing/libmemcached.txt"
REPLICAS = 2
PROCESSES = 8
START_LIMIT_S = 20
OPTIONS = {
    "session.save_handler": "memcached",
    "session.use_strict_mode": "0",
    "memcached.sess_locking": "1",
    "memcached.sess_lock_wait_min": "10",
    "memcached.sess_lock_wait_max": "10",
    "memcached.sess_lock_retries": "2000",
    "memcached.sess_lock_expire": "30",
}


def missing():
    """What this machine lacks, or None."""
    if not shutil.which("php"):
        return "PHP is not installed (Debian: php-cli)"
    modules = subprocess.run(["php", "-m"], capture_output=True, text=True).stdout.split()
    return None if "memcached" in modules else "PHP has no Memcached (Debian: php-memcached)"


MISSING = missing()


def load_tests(loader, tests, pattern):
    tests.addTest(tap.Script("PHP's Memcached", ["php", HERE / "memcached.php"], MISSING))
    servers = ["php", HERE / "servers_of_keys.php", SERVERS_OF_KEYS]
    tests.addTest(tap.Script("libmemcached's choice of servers", servers, MISSING))
    return tests


class Replica:
    """One process of the application and its workers."""

    def __init__(self, binary):
        self.port = nodes.free_port()
        servers = ",".join(f"{host}:{port}" for host, port in nodes.addresses())
        options = {
            **OPTIONS,
            "session.save_path": servers,
            "memcached.sess_binary_protocol": str(int(binary)),
        }
        command = ["php", *(f"-d{name}={value}" for name, value in options.items())]
        command += ["-S", f"127.0.0.1:{self.port}", str(HERE / "sessions.php")]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PHP_CLI_SERVER_WORKERS": str(PROCESSES)},
            start_new_session=True,
        )
        nodes.wait_until_served(self.port, self.process, START_LIMIT_S)

    def ask(self, path, session, body=None, **options):
        """(status, answer, new session id) of one request."""
        query = urllib.parse.urlencode({f"set[{n.replace('__', '.')}]": v for n, v in options.items()})
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            both = "&" if "?" in path else "?"
            headers = {"Cookie": f"PHPSESSID={session}"} if session else {}
            connection.request("POST" if body else "GET", path + both + query, body, headers)
            answer = connection.getresponse()
            cookie = answer.getheader("Set-Cookie") or ""
            named = cookie.partition("PHPSESSID=")[2].partition(";")[0]
            return answer.status, json.loads(answer.read()), named or session
        finally:
            connection.close()

    def stop(self):
        # The whole group: a worker outlives the first process where that is the one that was killed.
        try:
            os.killpg(self.process.pid, signal.SIGTERM)
        except ProcessLookupError:
            pass
        self.process.wait()


class Sessions:
    """What holds over either protocol."""

    @classmethod
    def setUpClass(cls):
        cls.replicas = []
        for _ in range(REPLICAS):
            cls.replicas.append(Replica(cls.binary))
            cls.addClassCleanup(cls.replicas[-1].stop)

    def setUp(self):
        nodes.flush(nodes.addresses())
        self.session = f"session{time.time_ns()}"

    def ask(self, replica, path, **more):
        status, answer, self.session = self.replicas[replica].ask(path, self.session, **more)
        self.assertEqual(status, 200, answer)
        return answer["variables"]

    def test_what_one_replica_wrote_another_reads(self):
        self.ask(0, "/keep", body="a shopping cart")
        self.assertEqual(self.ask(1, "/read"), {"kept": "a shopping cart"})

    def test_a_first_visit_gets_a_session(self):
        self.session = None
        self.assertEqual(self.ask(0, "/count"), {"count": 1})
        self.assertTrue(self.session)
        self.assertEqual(self.ask(1, "/count"), {"count": 2})

    def test_large_sessions_are_kept(self):
        self.ask(0, "/keep", body="x" * 900_000)
        self.assertEqual(self.ask(1, "/read"), {"kept": "x" * 900_000})

    def test_requests_to_one_session_follow_each_other(self):
        with concurrent.futures.ThreadPoolExecutor(PROCESSES) as visitors:
            asked = [
                visitors.submit(
                    self.replicas[n % REPLICAS].ask, "/count?milliseconds=30", self.session
                )
                for n in range(PROCESSES)
            ]
            answers = [one.result() for one in asked]
        self.assertEqual({status for status, _, _ in answers}, {200})
        turns = sorted((told["entered"], told["left"]) for _, told, _ in answers)
        for (_, left), (entered, _) in zip(turns, turns[1:]):
            self.assertLessEqual(left, entered, "two requests had the session at once")
        self.assertEqual(self.ask(0, "/read"), {"count": PROCESSES})

    def test_requests_to_different_sessions_do_not_wait_for_each_other(self):
        # The one that holds its session ends only after the other has been answered.
        with concurrent.futures.ThreadPoolExecutor(1) as visitor:
            slow = visitor.submit(self.replicas[0].ask, "/count?milliseconds=1500", "slow")
            self.wait_for_lock("slow")
            _, quick, _ = self.replicas[1].ask("/count", "quick")
            _, told, _ = slow.result()
        self.assertLess(quick["left"], told["left"])

    def test_the_lock_is_released_with_the_session(self):
        with concurrent.futures.ThreadPoolExecutor(1) as visitor:
            slow = visitor.submit(self.replicas[0].ask, "/count?milliseconds=500", self.session)
            self.wait_for_lock(self.session)
            slow.result()
        self.assertFalse(self.is_locked(self.session))

    def test_who_does_not_get_the_lock_is_told(self):
        with concurrent.futures.ThreadPoolExecutor(1) as visitor:
            slow = visitor.submit(self.replicas[0].ask, "/count?milliseconds=1500", self.session)
            self.wait_for_lock(self.session)
            status, told, _ = self.replicas[1].ask(
                "/count", self.session, memcached__sess_lock_retries=3
            )
            slow.result()
        self.assertEqual(status, 503)
        self.assertIn("Failed to read session data", told["error"])
        self.assertEqual(self.ask(1, "/read"), {"count": 1})

    def test_the_lock_of_a_process_that_was_killed_expires(self):
        self.ask(0, "/count")
        with self.assertRaises((ConnectionError, http.client.HTTPException)):
            self.replicas[0].ask("/die", self.session, memcached__sess_lock_expire=1)
        self.assertTrue(self.is_locked(self.session))
        self.assertEqual(self.ask(1, "/count"), {"count": 2})

    def test_an_ended_session_is_empty(self):
        self.ask(0, "/count")
        self.ask(1, "/end")
        self.assertEqual(self.ask(0, "/read"), [])

    def test_a_renamed_session_keeps_its_variables(self):
        self.ask(0, "/count")
        before = self.session
        self.ask(0, "/rename")
        self.assertNotEqual(self.session, before)
        self.assertEqual(self.ask(1, "/read"), {"count": 1})
        self.session = before
        self.assertEqual(self.ask(1, "/read"), [])

    def test_sessions_expire_and_reading_keeps_them(self):
        options = {"session__gc_maxlifetime": 3, "session__lazy_write": 1}
        read, left_alone = f"{self.session}r", f"{self.session}l"
        for session in (read, left_alone):
            self.replicas[0].ask("/count", session, **options)
        for _ in range(3):
            time.sleep(1.5)
            self.session = read
            self.assertEqual(self.ask(1, "/read", **options), {"count": 1})
        self.session = left_alone
        self.assertEqual(self.ask(1, "/read", **options), [])

    def is_locked(self, session):
        return any(
            nodes.get(address, f"memc.sess.key.lock.{session}") is not None
            for address in nodes.addresses()
        )

    def wait_for_lock(self, session):
        deadline = time.monotonic() + START_LIMIT_S
        while not self.is_locked(session):
            self.assertLess(time.monotonic(), deadline, "nobody locks the session")
            time.sleep(0.01)


@unittest.skipIf(MISSING, MISSING)
class TextSessions(Sessions, unittest.TestCase):
    binary = False


@unittest.skipIf(MISSING, MISSING)
class BinarySessions(Sessions, unittest.TestCase):
    binary = True


if __name__ == "__main__":
    unittest.main()
