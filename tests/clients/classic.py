"""What holds for every client with the interface of python-memcached, which pylibmc took over."""

import nodes

THIRTY_DAYS_S = 60 * 60 * 24 * 30


class ClassicInterface:
    """Asks `self.client`, which the test has connected."""

    def test_many_keys_at_once(self):
        items = {f"key_{n}": f"value {n}" for n in range(300)}
        self.assertEqual(self.client.set_multi(items, key_prefix="p:"), [])
        self.assertEqual(self.client.get_multi([*items, "nobody"], key_prefix="p:"), items)
        self.assertEqual(self.client.get("p:key_7"), "value 7")
        self.assertTrue(self.client.delete_multi(list(items)[:100], key_prefix="p:"))
        self.assertEqual(len(self.client.get_multi(list(items), key_prefix="p:")), 200)

    def test_delete_and_touch(self):
        self.client.set("k", "a")
        self.assertTrue(self.client.touch("k", 100))
        self.assertFalse(self.client.touch("nobody", 100))
        self.assertTrue(self.client.delete("k"))
        self.assertFalse(self.client.delete("k"))

    def test_items_expire(self):
        self.client.set("short", "a", time=1)
        self.client.set("touched", "a", time=1)
        self.client.touch("touched", 100)
        self.client.set("past", "a", time=THIRTY_DAYS_S + 1)
        self.assertIsNone(self.client.get("past"))
        nodes.wait_past(1)
        self.assertIsNone(self.client.get("short"))
        self.assertEqual(self.client.get("touched"), "a")
