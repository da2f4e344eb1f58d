"""Django's cache framework over PyMemcacheCache: every method, on three nodes and on one."""

import asyncio
import unittest

import django_setup

django_setup.setup()

from django.core.cache import caches  # noqa: E402
from django.core.cache.backends.base import InvalidCacheKey  # noqa: E402
from django.core.cache.backends.memcached import PyMemcacheCache  # noqa: E402

import nodes  # noqa: E402


class EveryMethod:
    """What holds for each configured cache. A subclass names one."""

    alias = None

    @classmethod
    def setUpClass(cls):
        # What calls another one counts for itself only, so each method must be called by a test.
        cls.called = set()

    @classmethod
    def tearDownClass(cls):
        # These three make keys and timeouts, and ask the server nothing.
        without_server = {"make_key", "make_and_validate_key", "get_backend_timeout"}
        forgotten = nodes.public_methods(PyMemcacheCache) - cls.called - without_server
        assert not forgotten, f"the backend also offers {sorted(forgotten)}"

    def setUp(self):
        self.cache = nodes.Recorder(caches[self.alias], self.called)
        self.cache.clear()
        self.addCleanup(self.cache.close)

    def key(self, suffix=""):
        return f"{type(self).__name__}.{self._testMethodName}{suffix}"

    def test_a_set_value_is_got(self):
        for value in ("text", b"bytes", 0, 17, 2**70, 1.5, None, True, [1, {"two": (3,)}], "ünïcode"):
            self.cache.set(self.key(), value)
            self.assertEqual(self.cache.get(self.key(), "absent"), value)

    def test_a_missing_key_gives_the_default(self):
        self.assertIsNone(self.cache.get(self.key()))
        self.assertEqual(self.cache.get(self.key(), "default"), "default")

    def test_a_value_of_none_is_there(self):
        self.cache.set(self.key(), None)
        self.assertIsNone(self.cache.get(self.key(), "default"))
        self.assertTrue(self.cache.has_key(self.key()))

    def test_add_only_stores_what_is_absent(self):
        self.assertTrue(self.cache.add(self.key(), 1))
        self.assertFalse(self.cache.add(self.key(), 2))
        self.assertEqual(self.cache.get(self.key()), 1)

    def test_delete_says_whether_there_was_anything(self):
        self.assertFalse(self.cache.delete(self.key()))
        self.cache.set(self.key(), 1)
        self.assertTrue(self.cache.delete(self.key()))
        self.assertIsNone(self.cache.get(self.key()))

    def test_has_key_and_in_tell_presence(self):
        self.assertFalse(self.cache.has_key(self.key()))
        self.assertNotIn(self.key(), self.cache)
        self.cache.set(self.key(), 1)
        self.assertTrue(self.cache.has_key(self.key()))
        self.assertIn(self.key(), self.cache)

    def test_get_or_set_computes_once(self):
        self.assertEqual(self.cache.get_or_set(self.key(), lambda: "computed"), "computed")
        self.assertEqual(self.cache.get_or_set(self.key(), "again"), "computed")

    def test_many_keys_in_one_call(self):
        values = {self.key(f".{i}"): i for i in range(200)}
        self.assertEqual(self.cache.set_many(values), [])
        self.assertEqual(self.cache.get_many(list(values) + [self.key(".missing")]), values)
        self.cache.delete_many(list(values)[:100])
        self.assertEqual(len(self.cache.get_many(list(values))), 100)

    def test_incr_and_decr_count(self):
        self.cache.set(self.key(), 10)
        self.assertEqual(self.cache.incr(self.key()), 11)
        self.assertEqual(self.cache.incr(self.key(), 9), 20)
        self.assertEqual(self.cache.decr(self.key()), 19)
        self.assertEqual(self.cache.decr(self.key(), 9), 10)
        self.assertEqual(self.cache.incr(self.key(), -4), 6)
        self.assertEqual(self.cache.get(self.key()), 6)

    def test_a_counter_keeps_its_value_when_it_gets_shorter(self):
        self.cache.set(self.key(), 100)
        self.assertEqual(self.cache.decr(self.key(), 91), 9)
        self.assertEqual(self.cache.get(self.key()), 9)

    def test_counting_what_is_absent_is_an_error(self):
        with self.assertRaises(ValueError):
            self.cache.incr(self.key())
        with self.assertRaises(ValueError):
            self.cache.decr(self.key())

    def test_a_timeout_of_zero_stores_nothing(self):
        self.cache.set(self.key(), 1, timeout=0)
        self.assertIsNone(self.cache.get(self.key()))
        self.cache.set(self.key(), 1)
        self.cache.set(self.key(), 2, timeout=-1)
        self.assertIsNone(self.cache.get(self.key()))

    def test_a_timeout_of_none_never_ends(self):
        self.cache.set(self.key(), 1, timeout=None)
        self.assertEqual(self.cache.get(self.key()), 1)

    def test_a_timeout_over_thirty_days_holds(self):
        self.cache.set(self.key(), 1, timeout=60 * 60 * 24 * 30 + 1)
        self.assertEqual(self.cache.get(self.key()), 1)

    def test_an_expired_value_is_gone(self):
        self.cache.set(self.key(), 1, timeout=1)
        self.cache.add(self.key(".added"), 1, timeout=1)
        self.cache.set_many({self.key(".many"): 1}, timeout=1)
        self.cache.set(self.key(".stays"), 1, timeout=100)
        nodes.wait_past(1)
        self.assertIsNone(self.cache.get(self.key()))
        self.assertIsNone(self.cache.get(self.key(".added")))
        self.assertIsNone(self.cache.get(self.key(".many")))
        self.assertEqual(self.cache.get(self.key(".stays")), 1)

    def test_touch_gives_a_new_timeout(self):
        self.assertFalse(self.cache.touch(self.key()))
        self.cache.set(self.key(".longer"), 1, timeout=1)
        self.cache.set(self.key(".shorter"), 1, timeout=100)
        self.cache.set(self.key(".ended"), 1, timeout=100)
        self.assertTrue(self.cache.touch(self.key(".longer"), 100))
        self.assertTrue(self.cache.touch(self.key(".shorter"), 1))
        self.assertTrue(self.cache.touch(self.key(".ended"), 0))
        self.assertIsNone(self.cache.get(self.key(".ended")))
        nodes.wait_past(1)
        self.assertEqual(self.cache.get(self.key(".longer")), 1)
        self.assertIsNone(self.cache.get(self.key(".shorter")))

    def test_versions_are_kept_apart(self):
        self.cache.set(self.key(), "one", version=1)
        self.cache.set(self.key(), "two", version=2)
        self.assertEqual(self.cache.get(self.key(), version=1), "one")
        self.assertEqual(self.cache.get(self.key(), version=2), "two")
        self.cache.delete(self.key(), version=1)
        self.assertIsNone(self.cache.get(self.key(), version=1))
        self.assertEqual(self.cache.get_many([self.key()], version=2), {self.key(): "two"})
        self.cache.delete_many([self.key()], version=2)
        self.assertFalse(self.cache.has_key(self.key(), version=2))

    def test_a_version_can_be_moved(self):
        self.cache.set(self.key(), "value", version=1)
        self.assertEqual(self.cache.incr_version(self.key(), version=1), 2)
        self.assertIsNone(self.cache.get(self.key(), version=1))
        self.assertEqual(self.cache.get(self.key(), version=2), "value")
        self.assertEqual(self.cache.decr_version(self.key(), version=2), 1)
        self.assertEqual(self.cache.get(self.key(), version=1), "value")
        with self.assertRaises(ValueError):
            self.cache.incr_version(self.key(".missing"))

    def test_clear_forgets_everything(self):
        values = {self.key(f".{i}"): i for i in range(20)}
        self.cache.set_many(values)
        self.cache.clear()
        self.assertEqual(self.cache.get_many(list(values)), {})

    def test_an_unusable_key_is_refused_before_it_is_sent(self):
        for key in ("two words", "k" * 300):
            with self.assertRaises(InvalidCacheKey):
                self.cache.set(key, 1)
        self.cache.validate_key("usable")

    def test_a_large_value_comes_back_whole(self):
        value = "x" * (1000 * 1000)
        self.cache.set(self.key(), value)
        self.assertEqual(self.cache.get(self.key()), value)

    def test_a_value_over_the_limit_is_refused_and_the_cache_works_on(self):
        with self.assertRaises(Exception):
            self.cache.set(self.key(), "x" * (2 * 1024 * 1024))
        self.assertIsNone(self.cache.get(self.key()))
        self.cache.set(self.key(), "small")
        self.assertEqual(self.cache.get(self.key()), "small")

    def test_every_method_has_an_awaitable_twin(self):
        asyncio.run(self.the_same_awaited())

    async def the_same_awaited(self):
        cache, key = self.cache, self.key()
        await cache.aset(key, 1)
        self.assertEqual(await cache.aget(key), 1)
        self.assertFalse(await cache.aadd(key, 2))
        self.assertTrue(await cache.atouch(key, 100))
        self.assertTrue(await cache.ahas_key(key))
        self.assertEqual(await cache.aincr(key, 4), 5)
        self.assertEqual(await cache.adecr(key, 2), 3)
        self.assertEqual(await cache.aget_or_set(key + ".new", "made"), "made")
        await cache.aset_many({key + ".1": 1, key + ".2": 2})
        self.assertEqual(await cache.aget_many([key + ".1", key + ".2"]), {key + ".1": 1, key + ".2": 2})
        await cache.adelete_many([key + ".1"])
        self.assertIsNone(await cache.aget(key + ".1"))
        await cache.aset(key, "moved", version=1)
        self.assertEqual(await cache.aincr_version(key, version=1), 2)
        self.assertEqual(await cache.adecr_version(key, version=2), 1)
        self.assertTrue(await cache.adelete(key, version=1))
        await cache.aclear()
        self.assertIsNone(await cache.aget(key + ".2"))
        await cache.aclose()


class ThreeNodes(EveryMethod, unittest.TestCase):
    alias = "default"


class OneNode(EveryMethod, unittest.TestCase):
    alias = "one-node"


class Prefixed(EveryMethod, unittest.TestCase):
    alias = "prefixed"

    def test_the_prefix_and_version_are_in_the_key(self):
        self.cache.set(self.key(), "value")
        self.assertIsNone(caches["default"].get(self.key()))
        self.assertEqual(self.cache.get(self.key(), version=7), "value")
