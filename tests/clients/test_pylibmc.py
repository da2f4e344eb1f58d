"""pylibmc, that is libmemcached, against real servers: in text, in binary, over one server and ketama."""

import unittest

import pylibmc

import nodes
from classic import ClassicInterface


class EveryProtocol(ClassicInterface):
    """What holds in either protocol. A subclass says which, and how many servers."""

    binary = False
    count = 1
    behaviors = {}

    def setUp(self):
        servers = [f"{host}:{port}" for host, port in nodes.addresses()[: self.count]]
        behaviors = {"tcp_nodelay": True, "cas": True, **self.behaviors}
        self.client = pylibmc.Client(servers, binary=self.binary, behaviors=behaviors)
        self.addCleanup(self.client.disconnect_all)
        self.client.flush_all()

    def test_what_was_set_is_got(self):
        for value in ["text", b"bytes", 7, 1.5, {"a": [1, 2]}, "x" * 100_000, "", None, True]:
            self.assertTrue(self.client.set("k", value))
            self.assertEqual(self.client.get("k"), value)
        self.assertIsNone(self.client.get("nobody"))

    def test_a_large_value_is_got_and_a_larger_one_refused(self):
        large = b"\x80" * 1_000_000
        self.assertTrue(self.client.set("k", large))
        self.assertEqual(self.client.get("k"), large)
        with self.assertRaises(pylibmc.Error):
            self.client.set("k", b"x" * (1 << 20))
        # Whichever way the client has heard of it, the connection serves on.
        self.assertTrue(self.client.set("other", "a"))
        self.assertEqual(self.client.get("other"), "a")

    def test_add_replace_append_prepend(self):
        # In binary it is an error that nothing is there, in text an answer.
        try:
            self.assertFalse(self.client.replace("k", "a"))
        except pylibmc.NotFound:
            self.assertTrue(self.binary)
        self.assertTrue(self.client.add("k", "b"))
        self.assertFalse(self.client.add("k", "c"))
        self.assertTrue(self.client.append("k", "c"))
        self.assertTrue(self.client.prepend("k", "a"))
        self.assertEqual(self.client.get("k"), "abc")
        self.assertTrue(self.client.replace("k", "d"))
        self.assertEqual(self.client.get("k"), "d")
        try:
            self.assertFalse(self.client.append("nobody", "x"))
        except pylibmc.Error:
            self.assertTrue(self.binary)

    def test_numbers_go_up_and_down(self):
        self.client.set("n", 10)
        self.assertEqual(self.client.incr("n"), 11)
        self.assertEqual(self.client.incr("n", 31), 42)
        self.assertEqual(self.client.decr("n", 2), 40)
        self.assertEqual(self.client.decr("n", 100), 0)
        with self.assertRaises(pylibmc.NotFound):
            self.client.incr("nobody")
        self.client.set("text", "no number")
        with self.assertRaises(pylibmc.Error):
            self.client.incr("text")
        # In binary the client takes that for a failure of the server, and leaves it alone for a while.
        if not self.binary:
            self.assertEqual(self.client.get("text"), "no number")

    def test_cas_is_compared(self):
        self.client.set("k", "a")
        value, cas = self.client.gets("k")
        self.assertEqual(value, "a")
        self.assertTrue(self.client.cas("k", "b", cas))
        self.assertFalse(self.client.cas("k", "c", cas))
        self.assertEqual(self.client.get("k"), "b")

    def test_statistics_are_told(self):
        told = self.client.get_stats()
        self.assertEqual(len(told), self.count)
        for _, stats in told:
            self.assertIn("curr_items", stats)
            self.assertIn("version", stats)


class Text(EveryProtocol, unittest.TestCase):
    pass


class Binary(EveryProtocol, unittest.TestCase):
    binary = True


class BinaryKetama(EveryProtocol, unittest.TestCase):
    binary = True
    count = 3
    behaviors = {"ketama": True}


class TextKetama(EveryProtocol, unittest.TestCase):
    count = 3
    behaviors = {"ketama": True}


if __name__ == "__main__":
    unittest.main()
