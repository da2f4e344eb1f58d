"""Django's session backends `cache` and `cached_db` over the servers."""

import asyncio
import datetime
import unittest

import django_setup

django_setup.setup()

from django.contrib.sessions.backends.base import CreateError, UpdateError  # noqa: E402
from django.contrib.sessions.backends.cache import SessionStore as CacheStore  # noqa: E402
from django.contrib.sessions.backends.cached_db import SessionStore as CachedDbStore  # noqa: E402
from django.core.cache import caches  # noqa: E402

import nodes  # noqa: E402


class EverySession:
    """What holds for each backend. A subclass names one."""

    store = None

    def setUp(self):
        self.session = self.store()

    def again(self, session=None):
        """The session as the next request finds it."""
        return self.store((session or self.session).session_key)

    def test_a_saved_session_is_loaded_by_its_key(self):
        self.session["user"] = {"id": 17, "roles": ["admin", "ünïcode"]}
        self.session.save()
        self.assertEqual(self.again()["user"], {"id": 17, "roles": ["admin", "ünïcode"]})

    def test_a_new_session_is_empty_and_has_no_key(self):
        self.assertIsNone(self.session.session_key)
        self.assertTrue(self.session.is_empty())
        self.assertEqual(dict(self.session.items()), {})

    def test_create_makes_a_key_nobody_has(self):
        self.session.create()
        self.assertTrue(self.session.exists(self.session.session_key))
        other = self.store()
        other.create()
        self.assertNotEqual(other.session_key, self.session.session_key)

    def test_an_unknown_key_does_not_exist_and_loads_empty(self):
        unknown = self.store("a" * 32)
        self.assertFalse(unknown.exists("a" * 32))
        self.assertEqual(unknown.load(), {})
        self.assertIsNone(unknown.session_key)

    def test_saving_over_a_session_that_must_be_new_is_refused(self):
        self.session.create()
        with self.assertRaises(CreateError):
            self.again().save(must_create=True)

    def test_a_session_deleted_meanwhile_is_not_saved_again(self):
        self.session["a"] = 1
        self.session.save()
        stale = self.again()
        stale["a"] = 2
        self.session.delete()
        with self.assertRaises(UpdateError):
            stale.save()
        self.assertFalse(self.session.exists(stale.session_key))

    def test_the_session_is_a_mapping(self):
        self.session["a"] = 1
        self.session.update({"b": 2})
        self.assertEqual(self.session.setdefault("c", 3), 3)
        self.assertEqual(self.session.pop("a"), 1)
        del self.session["b"]
        self.session.save()
        again = self.again()
        self.assertEqual(dict(again.items()), {"c": 3})
        self.assertIn("c", again)
        self.assertTrue(again.has_key("c"))
        self.assertEqual((list(again.keys()), list(again.values())), (["c"], [3]))
        self.assertEqual(again.get("missing", "default"), "default")

    def test_cycle_key_keeps_the_data_under_a_new_key(self):
        self.session["cart"] = [1, 2, 3]
        self.session.save()
        old = self.session.session_key
        self.session.cycle_key()
        self.session.save()
        self.assertNotEqual(self.session.session_key, old)
        self.assertFalse(self.session.exists(old))
        self.assertEqual(self.again()["cart"], [1, 2, 3])

    def test_flush_removes_the_session(self):
        self.session["a"] = 1
        self.session.save()
        key = self.session.session_key
        self.session.flush()
        self.assertFalse(self.session.exists(key))
        self.assertIsNone(self.session.session_key)
        self.assertEqual(self.store(key).load(), {})

    def test_delete_by_key_removes_another_session(self):
        self.session["a"] = 1
        self.session.save()
        self.store().delete(self.session.session_key)
        self.assertFalse(self.session.exists(self.session.session_key))

    def test_clear_empties_it_and_keeps_the_key(self):
        self.session["a"] = 1
        self.session.save()
        key = self.session.session_key
        self.session.clear()
        self.session.save()
        self.assertEqual(self.session.session_key, key)
        self.assertEqual(self.again().load(), {})

    def test_an_expired_session_is_gone(self):
        self.session["a"] = 1
        self.session.set_expiry(1)
        self.session.save()
        self.assertEqual(self.again()["a"], 1)
        nodes.wait_past(1)
        self.assertEqual(self.again().load(), {})

    def test_the_expiry_is_kept_with_the_session(self):
        self.session.set_expiry(300)
        self.session["a"] = 1
        self.session.save()
        self.assertEqual(self.again().get_expiry_age(), 300)
        self.assertIsInstance(self.again().get_expiry_date(), datetime.datetime)
        self.assertFalse(self.again().get_expire_at_browser_close())

    def test_the_test_cookie_works(self):
        self.session.set_test_cookie()
        self.session.save()
        again = self.again()
        self.assertTrue(again.test_cookie_worked())
        again.delete_test_cookie()
        again.save()
        self.assertFalse(self.again().test_cookie_worked())

    def test_a_large_session_comes_back_whole(self):
        self.session["blob"] = "x" * 500_000
        self.session.save()
        self.assertEqual(self.again()["blob"], "x" * 500_000)

    def test_many_sessions_live_side_by_side(self):
        sessions = []
        for number in range(200):
            session = self.store()
            session["number"] = number
            session.save()
            sessions.append(session)
        self.assertEqual([self.again(session)["number"] for session in sessions], list(range(200)))

    def test_clear_expired_leaves_living_sessions(self):
        self.session["a"] = 1
        self.session.save()
        self.store.clear_expired()
        self.assertEqual(self.again()["a"], 1)


class Cache(EverySession, unittest.TestCase):
    store = CacheStore

    def test_the_session_lives_in_the_cache_alone(self):
        self.session["a"] = 1
        self.session.save()
        caches["default"].clear()
        self.assertEqual(self.again().load(), {})

    def test_an_expired_session_does_not_exist(self):
        self.session.set_expiry(1)
        self.session.save()
        nodes.wait_past(1)
        self.assertFalse(self.session.exists(self.session.session_key))

    def test_the_same_awaited(self):
        async def awaited():
            session = CacheStore()
            await session.aset("user", 17)
            await session.asave()
            again = CacheStore(session.session_key)
            self.assertEqual(await again.aget("user"), 17)
            self.assertTrue(await again.aexists(session.session_key))
            await again.acycle_key()
            await again.asave()
            self.assertFalse(await again.aexists(session.session_key))
            await again.adelete()
            self.assertEqual(await CacheStore(again.session_key).aload(), {})
            await again.acreate()
            self.assertTrue(await again.aexists(again.session_key))
            await CacheStore.aclear_expired()

        asyncio.run(awaited())


class CachedDb(EverySession, unittest.TestCase):
    store = CachedDbStore

    def test_a_session_survives_the_loss_of_the_cache(self):
        self.session["a"] = 1
        self.session.save()
        caches["default"].clear()
        self.assertEqual(self.again()["a"], 1)
        self.assertIn(self.session.cache_key, caches["default"])

    def test_the_cache_is_read_first(self):
        self.session["a"] = 1
        self.session.save()
        caches["default"].set(self.session.cache_key, {"a": 2})
        self.assertEqual(self.again()["a"], 2)
