"""python-memcached, the client that most others were written after, against real servers."""

import unittest

import memcache

import nodes
from classic import ClassicInterface


class OneServer(ClassicInterface, unittest.TestCase):
    def setUp(self):
        host, port = nodes.addresses()[0]
        self.client = memcache.Client([f"{host}:{port}"], cache_cas=True, socket_timeout=10)
        self.addCleanup(self.client.disconnect_all)
        self.client.flush_all()

    def test_what_was_set_is_got(self):
        values = ["text", "Grüße", b"bytes\r\n\0\xff", 7, 1 << 40, 1.5, {"a": [1, 2]}, "", b"", None, True]
        for value in values:
            self.assertTrue(self.client.set("k", value))
            self.assertEqual(self.client.get("k", default="nothing"), value)
        self.assertIsNone(self.client.get("nobody"))
        self.assertEqual(self.client.get("nobody", default="x"), "x")

    def test_values_are_packed_and_unpacked(self):
        self.assertTrue(self.client.set("k", "packed" * 10_000, min_compress_len=100))
        self.assertEqual(self.client.get("k"), "packed" * 10_000)

    def test_large_values_are_got(self):
        for size in (100_000, 1_000_000):
            large = b"\x80" * size
            self.assertTrue(self.client.set("k", large))
            self.assertEqual(self.client.get("k"), large)

    def test_what_the_server_finds_too_large_is_refused_and_removes_what_was_there(self):
        host, port = nodes.addresses()[0]
        unbound = memcache.Client([f"{host}:{port}"], server_max_value_length=0, socket_timeout=10)
        self.addCleanup(unbound.disconnect_all)
        self.assertTrue(unbound.set("k", b"small"))
        self.assertFalse(unbound.set("k", b"x" * (1 << 20)))
        self.assertIsNone(unbound.get("k"))
        self.assertTrue(unbound.set("k", b"small again"))
        self.assertEqual(unbound.get("k"), b"small again")

    def test_add_replace_append_prepend(self):
        self.assertFalse(self.client.replace("k", "a"))
        self.assertFalse(self.client.append("k", "a"))
        self.assertFalse(self.client.prepend("k", "a"))
        self.assertTrue(self.client.add("k", "b"))
        self.assertFalse(self.client.add("k", "c"))
        self.assertTrue(self.client.append("k", "c"))
        self.assertTrue(self.client.prepend("k", "a"))
        self.assertEqual(self.client.get("k"), "abc")
        self.assertTrue(self.client.replace("k", "d"))
        self.assertEqual(self.client.get("k"), "d")

    def test_numbers_go_up_and_down(self):
        self.client.set("n", 10)
        self.assertEqual(self.client.incr("n"), 11)
        self.assertEqual(self.client.incr("n", 31), 42)
        self.assertEqual(self.client.decr("n", 2), 40)
        self.assertEqual(self.client.decr("n", 100), 0)
        self.assertIsNone(self.client.incr("nobody"))
        self.assertIsNone(self.client.decr("nobody"))
        self.client.set("n", (1 << 64) - 1)
        self.assertEqual(self.client.incr("n"), 0, "wraps at 64 bits")
        self.client.set("text", "no number")
        with self.assertRaises(ValueError):  # the client reads the error as a number
            self.client.incr("text")
        self.assertEqual(self.client.get("text"), "no number")

    def test_cas_is_compared(self):
        self.client.set("k", "a")
        self.assertEqual(self.client.gets("k"), "a")
        self.assertTrue(self.client.cas("k", "b"))
        self.assertFalse(self.client.cas("k", "c"), "the first cas changed the number")
        self.assertEqual(self.client.get("k"), "b")
        self.client.gets("k")
        self.client.delete("k")
        self.assertFalse(self.client.cas("k", "d"))
        self.assertIsNone(self.client.get("k"))

    def test_requests_without_a_reply_are_carried_out(self):
        self.client.set("k", "a", noreply=True)
        self.client.append("k", "b", noreply=True)
        self.client.prepend("k", "-", noreply=True)
        self.client.add("n", 1, noreply=True)
        self.client.incr("n", 9, noreply=True)
        self.client.decr("n", 3, noreply=True)
        self.client.touch("n", 100, noreply=True)
        self.client.set("gone", "a", noreply=True)
        self.client.delete("gone", noreply=True)
        self.assertEqual(self.client.get_multi(["k", "n", "gone"]), {"k": "-ab", "n": 7})

    def test_keys_of_250_bytes_and_of_letters_beyond_ascii(self):
        for key in ("k" * 250, "schlüssel", "鍵"):
            self.assertTrue(self.client.set(key, "a"))
            self.assertEqual(self.client.get(key), "a")
        with self.assertRaises(memcache.Client.MemcachedKeyLengthError):
            self.client.set("k" * 251, "a")

    def test_statistics_are_told(self):
        ((_, stats),) = self.client.get_stats()
        self.assertIn("curr_items", stats)
        ((_, settings),) = self.client.get_stats("settings")
        self.assertIn("maxbytes", settings)
        ((_, slabs),) = self.client.get_slab_stats()
        self.assertIn("active_slabs", slabs)
        self.assertIn("total_malloced", slabs)

    def test_a_connection_that_was_quit_is_made_again(self):
        self.client.set("k", "a")
        self.client.quit_all()
        self.assertEqual(self.client.get("k"), "a")


class ThreeServers(unittest.TestCase):
    def setUp(self):
        servers = [f"{host}:{port}" for host, port in nodes.addresses()]
        self.client = memcache.Client(servers, socket_timeout=10)
        self.addCleanup(self.client.disconnect_all)
        self.client.flush_all()

    def test_keys_are_found_where_they_were_put(self):
        items = {f"spread{n}": n for n in range(300)}
        self.assertEqual(self.client.set_multi(items), [])
        self.assertEqual(self.client.get_multi(list(items)), items)
        for key, value in items.items():
            self.assertEqual(self.client.get(key), value)

    def test_every_server_tells_its_statistics(self):
        self.assertEqual(len(self.client.get_stats()), len(nodes.addresses()))

    def test_a_flush_reaches_every_server(self):
        items = {f"flushed{n}": n for n in range(100)}
        self.client.set_multi(items)
        self.client.flush_all()
        self.assertEqual(self.client.get_multi(list(items)), {})


if __name__ == "__main__":
    unittest.main()
