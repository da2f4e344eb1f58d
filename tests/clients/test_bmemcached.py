"""python-binary-memcached against real servers: a client that speaks binary alone, and pipelines quiet sets."""

import unittest

import bmemcached

import nodes


class OneServer(unittest.TestCase):
    def setUp(self):
        host, port = nodes.addresses()[0]
        self.client = bmemcached.Client([f"{host}:{port}"])
        self.addCleanup(self.client.disconnect_all)
        self.client.flush_all()

    def test_what_was_set_is_got(self):
        for value in ["text", b"bytes", 7, {"a": [1, 2]}, "x" * 500_000, ""]:
            self.assertTrue(self.client.set("k", value))
            self.assertEqual(self.client.get("k"), value)
        self.assertIsNone(self.client.get("nobody"))
        self.assertEqual(self.client.get("nobody", "other"), "other")

    def test_add_and_replace(self):
        self.assertFalse(self.client.replace("k", "a"))
        self.assertTrue(self.client.add("k", "b"))
        self.assertFalse(self.client.add("k", "c"))
        self.assertTrue(self.client.replace("k", "d"))
        self.assertEqual(self.client.get("k"), "d")

    def test_many_keys_at_once(self):
        items = {f"key{n}": f"value {n}" for n in range(300)}
        self.assertEqual(self.client.set_multi(items), [])
        self.assertEqual(self.client.get_multi([*items, "nobody"]), items)
        self.assertTrue(self.client.delete_multi(list(items)[:100]))
        self.assertEqual(len(self.client.get_multi(list(items))), 200)

    def test_cas_is_compared(self):
        self.client.set("k", "a")
        value, cas = self.client.gets("k")
        self.assertEqual(value, "a")
        self.assertTrue(self.client.cas("k", "b", cas))
        self.assertFalse(self.client.cas("k", "c", cas))
        self.assertFalse(self.client.cas("nobody", "c", cas))
        self.assertEqual(self.client.get("k"), "b")

    def test_numbers_are_created_and_changed(self):
        self.assertEqual(self.client.incr("n", 5, default=40), 40)
        self.assertEqual(self.client.incr("n", 5), 45)
        self.assertEqual(self.client.decr("n", 3), 42)
        self.assertEqual(self.client.decr("n", 100), 0)

    def test_delete_and_expiry(self):
        self.client.set("k", "a")
        self.assertTrue(self.client.delete("k"))
        # It takes deleting nothing for deleting.
        self.assertTrue(self.client.delete("k"))
        self.assertIsNone(self.client.get("k"))
        self.client.set("short", "a", time=1)
        nodes.wait_past(1)
        self.assertIsNone(self.client.get("short"))

    def test_statistics_are_told(self):
        (stats,) = self.client.stats().values()
        self.assertIn("curr_items", stats)
        (settings,) = self.client.stats("settings").values()
        self.assertIn("maxbytes", settings)


class ThreeServers(unittest.TestCase):
    def test_keys_are_found_where_they_were_put(self):
        servers = [f"{host}:{port}" for host, port in nodes.addresses()]
        client = bmemcached.DistributedClient(servers)
        self.addCleanup(client.disconnect_all)
        items = {f"spread{n}": n for n in range(200)}
        for key, value in items.items():
            self.assertTrue(client.set(key, value))
        self.assertEqual(client.get_multi(list(items)), items)


if __name__ == "__main__":
    unittest.main()
