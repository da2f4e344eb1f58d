"""meta-memcache, which speaks meta commands alone, against real servers."""

import unittest

from meta_memcache import (
    CacheClient,
    Conflict,
    Key,
    LeasePolicy,
    MemcacheError,
    Miss,
    NotStored,
    RecachePolicy,
    RequestFlags,
    ServerAddress,
    SetMode,
    StalePolicy,
    Success,
    Value,
    connection_pool_factory_builder,
)

import nodes

LIFETIME_S = 100


def client_of(addresses):
    return CacheClient.cache_client_from_servers(
        servers=[ServerAddress(host, port) for host, port in addresses],
        connection_pool_factory_fn=connection_pool_factory_builder(
            connection_timeout=10, recv_timeout=10
        ),
    )


class MetaCase(unittest.TestCase):
    count = 1
    lost = 0

    def setUp(self):
        addresses = nodes.addresses()[: self.count]
        # The client has no flush_all.
        nodes.flush(addresses)
        self.client = client_of(addresses)

    def tearDown(self):
        # An answer that it cannot read has the client drop the connection.
        lost = sum(pool.total_errors for pool in self.client.get_counters().values())
        self.assertEqual(lost, self.lost)


class OneServer(MetaCase):
    def test_what_was_set_is_got(self):
        values = ["text", "Grüße", b"bytes\r\n\0\xff", 7, -7, 1.5, {"a": [1, 2]}, b"", None, True]
        for value in values:
            self.assertTrue(self.client.set("k", value, LIFETIME_S))
            self.assertEqual(self.client.get("k"), value)
        self.assertIsNone(self.client.get("nobody"))
        self.client.set("k", 7, LIFETIME_S)
        self.assertEqual(self.client.get_typed("k", int), 7)
        self.assertIsNone(self.client.get_typed("k", str))

    def test_large_values_are_got(self):
        key = Key("k", disabled_compression=True)
        for size in (1_000, 100_000, 1_000_000):
            text = "".join(chr(33 + n * n % 90) for n in range(size))
            self.assertTrue(self.client.set(key, text, LIFETIME_S))
            self.assertEqual(self.client.get(key), text)

    def test_modes_add_replace_append_prepend(self):
        def put(value, mode):
            return self.client.set("k", value, LIFETIME_S, set_mode=mode)

        for mode in (SetMode.REPLACE, SetMode.APPEND, SetMode.PREPEND):
            self.assertFalse(put("a", mode))
        self.assertTrue(put("b", SetMode.ADD))
        self.assertFalse(put("c", SetMode.ADD))
        self.assertTrue(put("c", SetMode.APPEND))
        self.assertTrue(put("a", SetMode.PREPEND))
        self.assertEqual(self.client.get("k"), "abc")
        self.assertTrue(put("d", SetMode.REPLACE))
        self.assertEqual(self.client.get("k"), "d")

    def test_refill_keeps_what_is_there(self):
        self.assertTrue(self.client.refill("k", "a", LIFETIME_S))
        self.assertFalse(self.client.refill("k", "b", LIFETIME_S))
        self.assertEqual(self.client.get("k"), "a")

    def test_deleted_is_told_from_absent(self):
        self.client.set("k", "a", LIFETIME_S)
        self.assertTrue(self.client.delete("k"))
        self.assertFalse(self.client.delete("k"))
        self.assertTrue(self.client.invalidate("k"), "it is not there, which is all that was asked")

    def test_numbers_go_up_and_down(self):
        self.assertFalse(self.client.delta("n", 1))
        self.assertIsNone(self.client.delta_and_get("n", 1))
        self.assertEqual(self.client.delta_initialize_and_get("n", 1, 10, LIFETIME_S), 10)
        self.assertEqual(self.client.delta_initialize_and_get("n", 1, 10, LIFETIME_S), 11)
        self.assertEqual(self.client.delta_and_get("n", 31), 42)
        self.assertEqual(self.client.delta_and_get("n", -2), 40)
        self.assertEqual(self.client.delta_and_get("n", -100), 0)
        self.assertTrue(self.client.delta("n", 5))
        self.assertTrue(self.client.delta_initialize("other", 1, 3, LIFETIME_S))

    def test_what_is_no_number_is_an_error_of_the_server(self):
        self.client.set("text", "no number", LIFETIME_S)
        # The client does not read CLIENT_ERROR: it tells of it in its log, and connects anew.
        with self.assertLogs("meta_memcache"), self.assertRaises(MemcacheError):
            self.client.delta("text", 1)
        self.assertEqual(self.client.get("text"), "no number")
        self.lost = 1

    def test_requests_without_a_reply_are_carried_out(self):
        self.client.set("k", "a", LIFETIME_S, no_reply=True)
        self.client.set("n", 5, LIFETIME_S, no_reply=True)
        self.client.delta("n", 2, no_reply=True)
        self.client.touch("n", LIFETIME_S, no_reply=True)
        self.client.set("gone", "a", LIFETIME_S, no_reply=True)
        self.client.delete("gone", no_reply=True)
        self.client.invalidate("never there", no_reply=True)
        self.assertEqual(self.client.get("k"), "a")
        self.assertEqual(self.client.get("n"), 7)
        self.assertIsNone(self.client.get("gone"))

    def test_items_expire_and_are_touched(self):
        self.client.set("short", "a", 1)
        self.client.set("touched", "a", 1)
        self.client.set("touched by a get", "a", 1)
        self.assertTrue(self.client.touch("touched", LIFETIME_S))
        self.assertFalse(self.client.touch("nobody", LIFETIME_S))
        self.assertEqual(self.client.get("touched by a get", touch_ttl=LIFETIME_S), "a")
        nodes.wait_past(1)
        self.assertIsNone(self.client.get("short"))
        self.assertEqual(self.client.get("touched"), "a")
        self.assertEqual(self.client.get("touched by a get"), "a")

    def test_one_of_those_who_miss_gets_the_lease_and_the_others_its_value(self):
        waits = []
        lease = LeasePolicy(ttl=LIFETIME_S, miss_retries=2, miss_retry_wait=0.01)
        self.assertIsNone(self.client.get_or_lease("k", lease))
        # A second one waits, and hears nothing as long as the first has not written.
        self.assertIsNone(self.client.get_or_lease("k", lease, lease_wait_fn=waits.append))
        self.assertEqual(len(waits), 1)
        self.client.set("k", "made", LIFETIME_S)
        self.assertEqual(self.client.get_or_lease("k", lease), "made")

    def test_one_of_those_who_read_shortly_before_the_end_makes_it_anew(self):
        self.client.set("k", "old", 20)
        early = RecachePolicy(ttl=30)
        self.assertIsNone(self.client.get("k", recache_policy=early), "the winner is told a miss")
        self.assertEqual(self.client.get("k", recache_policy=early), "old")
        self.client.set("k", "new", LIFETIME_S)
        self.assertEqual(self.client.get("k", recache_policy=early), "new")

    def test_what_was_marked_stale_is_served_to_all_but_one(self):
        stale = StalePolicy(mark_stale_on_deletion_ttl=30)
        self.client.set("k", "old", LIFETIME_S)
        self.assertTrue(self.client.delete("k", stale_policy=stale))
        self.assertIsNone(self.client.get("k"))
        self.assertEqual(self.client.get("k"), "old")
        self.client.set("k", "new", LIFETIME_S)
        self.assertEqual(self.client.get("k"), "new")
        self.assertEqual(self.client.get("k"), "new")

    def test_keys_that_no_line_can_hold_travel_in_base64(self):
        for key in ("with a space", "Grüße", "line\r\nend"):
            self.assertTrue(self.client.set(key, key, LIFETIME_S))
            self.assertEqual(self.client.get(key), key)
            self.assertEqual(self.client.multi_get([key]), {Key(key): key})
            self.assertTrue(self.client.delete(key))
        self.assertTrue(self.client.set("k" * 250, "a", LIFETIME_S))
        self.assertEqual(self.client.get("k" * 250), "a")

    def test_flags_of_the_answers(self):
        key = Key("k")
        everything = RequestFlags(
            return_value=True,
            return_ttl=True,
            return_size=True,
            return_client_flag=True,
            return_cas_token=True,
            return_last_access=True,
            return_fetched=True,
            return_key=True,
            opaque=b"77",
        )
        self.assertIsInstance(self.client.meta_get(key, everything), Miss)
        put = RequestFlags(cache_ttl=LIFETIME_S, return_cas_token=True, opaque=b"78")
        stored = self.client.meta_set(key, "value", put)
        self.assertIsInstance(stored, Success)
        self.assertEqual(stored.flags.opaque, b"78")
        for fetched in (False, True):
            got = self.client.meta_get(key, everything)
            self.assertIsInstance(got, Value)
            self.assertEqual((got.value, got.size), ("value", 5))
            self.assertEqual(got.flags.cas_token, stored.flags.cas_token)
            self.assertIn(got.flags.ttl, range(LIFETIME_S - 10, LIFETIME_S + 1))
            self.assertEqual(bool(got.flags.fetched), fetched)
            self.assertEqual(got.flags.opaque, b"77")
        without = self.client.meta_get(key, RequestFlags(return_size=True, return_ttl=True))
        self.assertIsInstance(without, Success)
        self.assertEqual(without.flags.size, 5)
        self.assertIsInstance(self.client.meta_delete(key), Success)
        self.assertIsInstance(self.client.meta_delete(key), Miss)

    def test_the_kinds_of_refusal_are_told_apart(self):
        key = Key("k")
        add = RequestFlags(mode=SetMode.ADD.value, cache_ttl=LIFETIME_S)
        self.assertIsInstance(self.client.meta_set(key, "a", add), Success)
        self.assertIsInstance(self.client.meta_set(key, "b", add), NotStored)
        old = RequestFlags(cas_token=1, cache_ttl=LIFETIME_S)
        self.assertIsInstance(self.client.meta_set(key, "b", old), Conflict)
        self.assertIsInstance(self.client.meta_set(Key("nobody"), "b", old), Miss)
        self.assertIsInstance(self.client.meta_delete(key, old), Conflict)


@nodes.not_in_a_cluster("the client reads a cas of 32 bits; those of a cluster are longer")
class Cas(MetaCase):
    def test_cas_is_compared(self):
        written = self.client.set_cas("k", "a", LIFETIME_S)
        self.assertEqual(self.client.get_cas("k"), ("a", written))
        self.assertTrue(self.client.set("k", "b", LIFETIME_S, cas_token=written))
        self.assertFalse(self.client.set("k", "c", LIFETIME_S, cas_token=written))
        value, newer = self.client.get_cas("k")
        self.assertEqual(value, "b")
        self.assertGreater(newer, written)
        self.assertFalse(self.client.delete("k", cas_token=written))
        self.assertTrue(self.client.delete("k", cas_token=newer))

    def test_a_delta_may_carry_a_cas(self):
        cas = self.client.set_cas("n", 10, LIFETIME_S)
        self.assertEqual(self.client.delta_and_get("n", 1, cas_token=cas), 11)
        self.assertIsNone(self.client.delta_and_get("n", 1, cas_token=cas))

    def test_the_lease_carries_a_cas_for_its_winner(self):
        lease = LeasePolicy(ttl=LIFETIME_S)
        value, cas = self.client.get_or_lease_cas("k", lease)
        self.assertIsNone(value)
        self.assertTrue(self.client.set("k", "made", LIFETIME_S, cas_token=cas))
        self.assertEqual(self.client.get("k"), "made")

    def test_a_write_with_a_cas_from_before_the_mark_is_stored_as_stale(self):
        stale = StalePolicy(mark_stale_on_deletion_ttl=30, mark_stale_on_cas_mismatch=True)
        cas = self.client.set_cas("k", "old", LIFETIME_S)
        self.client.invalidate("k", stale_policy=stale)
        self.assertTrue(self.client.set("k", "late", LIFETIME_S, cas_token=cas, stale_policy=stale))
        self.assertIsNone(self.client.get("k"))
        self.assertEqual(self.client.get("k"), "late")


class ThreeServers(MetaCase):
    count = 3

    def test_many_keys_at_once(self):
        items = {f"key_{n}": f"value {n}" for n in range(300)}
        for key, value in items.items():
            self.assertTrue(self.client.set(key, value, LIFETIME_S))
        got = self.client.multi_get([*items, "nobody"])
        self.assertEqual(got, {Key("nobody"): None, **{Key(k): v for k, v in items.items()}})

    def test_a_routing_key_decides_where_keys_lie(self):
        for n in range(30):
            key = Key(f"k{n}", routing_key="together")
            self.assertTrue(self.client.set(key, n, LIFETIME_S))
            self.assertEqual(self.client.get(key), n)


if __name__ == "__main__":
    unittest.main()
