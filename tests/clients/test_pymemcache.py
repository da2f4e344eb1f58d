"""pymemcache against real servers: every method of its plain, pooled, hashing and retrying client."""

import json
import threading
import time
import unittest

from pymemcache import serde
from pymemcache.client.base import Client, PooledClient
from pymemcache.client.hash import HashClient
from pymemcache.client.retrying import RetryingClient
from pymemcache.client.murmur3 import murmur3_32
from pymemcache.client.rendezvous import RendezvousHash
from pymemcache.exceptions import (
    MemcacheClientError,
    MemcacheIllegalInputError,
    MemcacheServerError,
    MemcacheUnknownCommandError,
)

import nodes

THIRTY_DAYS_S = 60 * 60 * 24 * 30


class JsonSerde:
    """Strings as they are, everything else as JSON; the flags tell which."""

    def serialize(self, key, value):
        if isinstance(value, str):
            return value.encode(), 1
        return json.dumps(value).encode(), 2

    def deserialize(self, key, value, flags):
        return value.decode() if flags == 1 else json.loads(value)


class EveryClient:
    """What holds for each kind of client. A subclass says how one is made."""

    client_class = None
    # Methods a kind of client has for its own bookkeeping: nothing of them reaches a server.
    without_server = {"check_key"}

    @classmethod
    def setUpClass(cls):
        cls.called = set()

    @classmethod
    def tearDownClass(cls):
        forgotten = nodes.public_methods(cls.client_class) - cls.called - cls.without_server
        assert not forgotten, f"{cls.client_class.__name__} also offers {sorted(forgotten)}"

    def make(self, **options):
        raise NotImplementedError

    def client(self, **options):
        made = nodes.Recorder(self.make(**{"default_noreply": False, "timeout": 10, **options}), self.called)
        self.addCleanup(made.close)
        return made

    def setUp(self):
        self.cache = self.client()
        self.cache.flush_all()

    def key(self, suffix=""):
        """A key no other test uses."""
        return f"{type(self).__name__}.{self._testMethodName}{suffix}"

    def test_a_set_value_is_got(self):
        self.assertTrue(self.cache.set(self.key(), b"value"))
        self.assertEqual(self.cache.get(self.key()), b"value")

    def test_a_missing_key_gives_the_default(self):
        self.assertIsNone(self.cache.get(self.key()))
        self.assertEqual(self.cache.get(self.key(), b"default"), b"default")

    def test_set_without_reply_is_seen_by_the_next_get(self):
        self.assertTrue(self.cache.set(self.key(), b"value", noreply=True))
        self.assertEqual(self.cache.get(self.key()), b"value")

    def test_any_bytes_are_a_value(self):
        every_byte = bytes(range(256)) * 3 + b"\r\nEND\r\nVALUE x 0 1\r\n"
        for value in (b"", b"\r\n", every_byte):
            self.cache.set(self.key(), value)
            self.assertEqual(self.cache.get(self.key()), value)

    def test_a_large_value_comes_back_whole(self):
        value = bytes(i % 251 for i in range(1024 * 1024 - 2048))
        self.assertTrue(self.cache.set(self.key(), value))
        self.assertEqual(self.cache.get(self.key()), value)

    def test_a_value_over_the_limit_is_refused_and_the_next_command_works(self):
        with self.assertRaises(MemcacheServerError):
            self.cache.set(self.key(), b"x" * (1024 * 1024 + 1))
        self.assertTrue(self.cache.set(self.key(), b"small"))
        self.assertEqual(self.cache.get(self.key()), b"small")

    def test_the_longest_key_works(self):
        key = "k" * 250
        self.assertTrue(self.cache.set(key, b"value"))
        self.assertEqual(self.cache.get(key), b"value")

    def test_a_key_that_is_none_is_refused(self):
        for key in ("k" * 251, "two words", "new\nline", "null\x00"):
            with self.assertRaises(MemcacheIllegalInputError):
                self.cache.set(key, b"value")

    def test_unicode_keys_work_when_allowed(self):
        cache = self.client(allow_unicode_keys=True)
        self.assertTrue(cache.set("schlüssel.鍵", b"value"))
        self.assertEqual(cache.get("schlüssel.鍵"), b"value")

    def test_a_prefix_keeps_two_users_apart(self):
        one, two = self.client(key_prefix=b"one:"), self.client(key_prefix=b"two:")
        one.set(self.key(), b"1")
        two.set(self.key(), b"2")
        self.assertEqual(one.get(self.key()), b"1")
        self.assertEqual(one.get_many([self.key()]), {self.key(): b"1"})
        self.assertEqual(two.get(self.key()), b"2")

    def test_add_only_stores_what_is_absent(self):
        self.assertTrue(self.cache.add(self.key(), b"first"))
        self.assertFalse(self.cache.add(self.key(), b"second"))
        self.assertEqual(self.cache.get(self.key()), b"first")

    def test_replace_only_stores_what_is_present(self):
        self.assertFalse(self.cache.replace(self.key(), b"value"))
        self.cache.set(self.key(), b"first")
        self.assertTrue(self.cache.replace(self.key(), b"second"))
        self.assertEqual(self.cache.get(self.key()), b"second")

    def test_append_and_prepend_extend_what_is_present(self):
        self.assertFalse(self.cache.append(self.key(), b"c"))
        self.assertFalse(self.cache.prepend(self.key(), b"a"))
        self.cache.set(self.key(), b"b")
        self.assertTrue(self.cache.append(self.key(), b"c"))
        self.assertTrue(self.cache.prepend(self.key(), b"a"))
        self.assertEqual(self.cache.get(self.key()), b"abc")

    def test_cas_stores_only_over_the_value_seen(self):
        self.assertIsNone(self.cache.cas(self.key(), b"value", b"1"))
        self.cache.set(self.key(), b"first")
        value, cas = self.cache.gets(self.key())
        self.assertEqual(value, b"first")
        self.assertTrue(self.cache.cas(self.key(), b"second", cas))
        self.assertFalse(self.cache.cas(self.key(), b"third", cas))
        self.assertEqual(self.cache.get(self.key()), b"second")

    def test_gets_of_a_missing_key_is_empty(self):
        self.assertIn(self.cache.gets(self.key()), [(None, None), None])
        self.assertEqual(self.cache.gets_many([self.key()]), {})

    def test_delete_removes_and_says_whether_there_was_anything(self):
        self.assertFalse(self.cache.delete(self.key(), noreply=False))
        self.cache.set(self.key(), b"value")
        self.assertTrue(self.cache.delete(self.key(), noreply=False))
        self.assertIsNone(self.cache.get(self.key()))

    def test_many_keys_in_one_call(self):
        values = {self.key(f".{i}"): b"%d" % i for i in range(500)}
        self.assertEqual(self.cache.set_many(values), [])
        self.assertEqual(self.cache.get_many(list(values) + [self.key(".missing")]), values)
        seen = self.cache.gets_many(list(values))
        self.assertEqual({key: value for key, (value, _) in seen.items()}, values)
        some = list(values)[:250]
        self.assertTrue(self.cache.delete_many(some))
        self.assertEqual(len(self.cache.get_many(list(values))), 250)

    def test_many_keys_under_their_other_names(self):
        self.cache.set_multi({self.key(): b"value"})
        self.assertEqual(self.cache.get_multi([self.key()]), {self.key(): b"value"})
        self.cache.delete_multi([self.key()])
        self.assertEqual(self.cache.get_multi([self.key()]), {})

    def test_incr_and_decr_count(self):
        self.assertIsNone(self.cache.incr(self.key(), 1))
        self.assertIsNone(self.cache.decr(self.key(), 1))
        self.cache.set(self.key(), b"10")
        self.assertEqual(self.cache.incr(self.key(), 5), 15)
        self.assertEqual(self.cache.decr(self.key(), 3), 12)
        self.assertEqual(self.cache.decr(self.key(), 100), 0)

    def test_incr_wraps_at_64_bits(self):
        self.cache.set(self.key(), b"18446744073709551615")
        self.assertEqual(self.cache.incr(self.key(), 2), 1)

    def test_incr_of_text_is_an_error_of_the_client(self):
        self.cache.set(self.key(), b"text")
        with self.assertRaises(MemcacheClientError):
            self.cache.incr(self.key(), 1)

    def test_counting_without_reply_counts(self):
        self.cache.set(self.key(), b"1")
        self.cache.incr(self.key(), 5, noreply=True)
        self.cache.decr(self.key(), 2, noreply=True)
        self.assertEqual(int(self.cache.get(self.key())), 4)

    def test_flags_come_back(self):
        cache = self.client(serde=FlagsAsValue())
        for flags in (0, 1, 65535, 4294967295):
            cache.set(self.key(), b"value", flags=flags)
            self.assertEqual(cache.get(self.key()), flags)

    def test_an_expired_value_is_gone(self):
        self.cache.set(self.key(), b"value", expire=1)
        self.cache.set(self.key(".stays"), b"value", expire=100)
        nodes.wait_past(1)
        self.assertIsNone(self.cache.get(self.key()))
        self.assertEqual(self.cache.get(self.key(".stays")), b"value")

    def test_over_thirty_days_is_a_date(self):
        self.cache.set(self.key(".past"), b"value", expire=THIRTY_DAYS_S + 1)
        self.cache.set(self.key(".future"), b"value", expire=int(time.time()) + 100)
        self.assertIsNone(self.cache.get(self.key(".past")))
        self.assertEqual(self.cache.get(self.key(".future")), b"value")

    def test_touch_gives_a_new_lifetime(self):
        self.assertFalse(self.cache.touch(self.key(), 10))
        self.cache.set(self.key(".shorter"), b"value", expire=100)
        self.cache.set(self.key(".longer"), b"value", expire=1)
        self.assertTrue(self.cache.touch(self.key(".shorter"), 1))
        self.assertTrue(self.cache.touch(self.key(".longer"), 100))
        nodes.wait_past(1)
        self.assertIsNone(self.cache.get(self.key(".shorter")))
        self.assertEqual(self.cache.get(self.key(".longer")), b"value")

    def test_flush_all_forgets_everything(self):
        values = {self.key(f".{i}"): b"value" for i in range(20)}
        self.cache.set_many(values)
        self.cache.flush_all()
        self.assertEqual(self.cache.get_many(list(values)), {})
        self.cache.set(self.key(), b"again")
        self.assertEqual(self.cache.get(self.key()), b"again")

    def test_flush_all_may_wait(self):
        self.cache.set(self.key(), b"value")
        self.cache.flush_all(delay=1)
        nodes.wait_past(1)
        self.assertIsNone(self.cache.get(self.key()))
        self.cache.flush_all()

    def test_every_command_works_without_reply(self):
        cache = self.client(default_noreply=True)
        cache.set(self.key(), b"b")
        cache.append(self.key(), b"c")
        cache.prepend(self.key(), b"a")
        self.assertEqual(cache.get(self.key()), b"abc")
        cache.replace(self.key(), b"replaced")
        cache.add(self.key(), b"added")
        cache.touch(self.key(), 100)
        self.assertEqual(cache.get(self.key()), b"replaced")
        cache.delete(self.key())
        cache.set_many({self.key(".1"): b"1", self.key(".2"): b"2"})
        cache.delete_many([self.key(".1")])
        self.assertEqual(
            cache.get_many([self.key(), self.key(".1"), self.key(".2")]), {self.key(".2"): b"2"}
        )
        cache.flush_all()
        self.assertIsNone(cache.get(self.key(".2")))

    def test_pickled_objects_come_back(self):
        cache = self.client(serde=serde.pickle_serde)
        for value in ("text", b"bytes", 17, 2**80, 1.5, None, [1, {"two": (3, 4)}], "ünïcode"):
            cache.set(self.key(), value)
            self.assertEqual(cache.get(self.key(), "absent"), value)

    def test_compressed_objects_come_back(self):
        cache = self.client(serde=serde.compressed_serde)
        value = {"text": "long and dull " * 10_000}
        cache.set(self.key(), value)
        self.assertEqual(cache.get(self.key()), value)

    def test_a_serializer_of_ones_own_sees_its_flags(self):
        cache = self.client(serde=JsonSerde())
        cache.set_many({self.key(".text"): "text", self.key(".list"): [1, 2, 3]})
        self.assertEqual(cache.get(self.key(".text")), "text")
        self.assertEqual(cache.get(self.key(".list")), [1, 2, 3])

    def test_a_client_works_on_after_quit_and_close(self):
        self.cache.set(self.key(), b"value")
        self.cache.quit()
        self.assertEqual(self.cache.get(self.key()), b"value")
        self.cache.close()
        self.assertEqual(self.cache.get(self.key()), b"value")


class FlagsAsValue:
    """Gives the flags back in place of the value."""

    def serialize(self, key, value):
        return value, 0

    def deserialize(self, key, value, flags):
        return flags


class OneServer(EveryClient):
    """What clients of a single server offer beside."""

    def test_version_is_a_number(self):
        self.assertRegex(self.cache.version(), rb"^\d+\.\d+\.\d+$")

    def test_the_client_is_a_mapping(self):
        self.cache[self.key()] = b"value"
        self.assertEqual(self.cache[self.key()], b"value")
        del self.cache[self.key()]
        with self.assertRaises(KeyError):
            self.cache[self.key()]

    def test_stats_have_their_types(self):
        self.cache.set(self.key(), b"value")
        self.cache.get(self.key())
        self.cache.get(self.key(".missing"))
        stats = self.cache.stats()
        for name in (b"pid", b"uptime", b"curr_items", b"bytes", b"get_hits", b"limit_maxbytes"):
            self.assertIsInstance(stats[name], int, name)
        self.assertIsInstance(stats[b"rusage_user"], float)
        self.assertGreaterEqual(stats[b"cmd_set"], 1)
        self.assertGreaterEqual(stats[b"get_hits"], 1)
        self.assertGreaterEqual(stats[b"get_misses"], 1)

    def test_stats_settings_tell_the_configuration(self):
        settings = self.cache.stats("settings")
        self.assertIsInstance(settings[b"maxbytes"], int)
        self.assertIsInstance(settings[b"evictions"], (bool, bytes))

    def test_stats_of_items_and_slabs_are_read(self):
        self.cache.set(self.key(), b"value")
        self.assertTrue(self.cache.stats("items"))
        self.assertTrue(self.cache.stats("slabs"))

    def test_a_raw_command_is_answered(self):
        self.cache.set(self.key(), b"value")
        self.assertEqual(self.cache.raw_command(b"mn"), b"MN")
        answer = self.cache.raw_command(f"get {self.key()}", "END\r\n")
        self.assertEqual(answer, b"VALUE %s 0 5\r\nvalue\r\n" % self.key().encode())
        answer = self.cache.raw_command(f"mg {self.key()} s v")
        self.assertEqual(answer, b"VA 5 s5")

    def test_shutdown_is_refused_unless_enabled(self):
        # 1.6.18 begins it with ERROR, later ones with SERVER_ERROR.
        with self.assertRaises((MemcacheServerError, MemcacheUnknownCommandError)):
            self.cache.shutdown()
        with self.assertRaises((MemcacheServerError, MemcacheUnknownCommandError)):
            self.cache.shutdown(graceful=True)
        self.assertTrue(self.cache.set(self.key(), b"value"))


class PlainClient(OneServer, unittest.TestCase):
    client_class = Client

    def make(self, **options):
        return Client(nodes.addresses()[0], **options)

    def test_a_server_error_can_be_taken_for_a_miss(self):
        unreachable = self.client(ignore_exc=True)
        unreachable._client.server = ("127.0.0.1", 1)
        self.assertIsNone(unreachable.get(self.key()))

    def test_cache_memlimit_is_accepted(self):
        limit = self.cache.stats()[b"limit_maxbytes"]
        self.assertTrue(self.cache.cache_memlimit(limit // (1024 * 1024)))
        self.assertEqual(self.cache.stats()[b"limit_maxbytes"], limit)


class Pooled(OneServer, unittest.TestCase):
    client_class = PooledClient

    def make(self, **options):
        return PooledClient(nodes.addresses()[0], max_pool_size=4, **options)

    def test_threads_share_the_pool(self):
        errors = []

        def work(number):
            try:
                for i in range(200):
                    key, value = self.key(f".{number}.{i}"), b"%d" % i
                    self.cache.set(key, value)
                    if self.cache.get(key) != value:
                        errors.append(key)
            except Exception as error:
                errors.append(error)

        # No more threads than connections: the pool refuses, it does not queue.
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(errors, [])


class Hashing(EveryClient, unittest.TestCase):
    client_class = HashClient
    # These two change the client's own list of servers.
    without_server = {"check_key", "add_server", "remove_server"}

    def make(self, **options):
        return HashClient(nodes.addresses(), **options)

    def test_keys_are_spread_over_all_nodes(self):
        values = {self.key(f".{i}"): b"value" for i in range(300)}
        self.cache.set_many(values)
        held = []
        for address in nodes.addresses():
            node = Client(address)
            held.append(len(node.get_many(list(values))))
            node.close()
        # Each node of a cluster answers for all of it.
        self.assertEqual(sum(held), 300 * (len(held) if nodes.are_one_cluster() else 1))
        self.assertTrue(all(count > 30 for count in held), held)

    def test_the_owner_alone_holds_a_key(self):
        self.cache.set(self.key(), b"value")
        ring = RendezvousHash(hash_function=murmur3_32)
        for host, port in nodes.addresses():
            ring.add_node(f"{host}:{port}")
        owner = ring.get_node(self.key())
        for host, port in nodes.addresses():
            node = Client((host, port))
            holds = nodes.are_one_cluster() or f"{host}:{port}" == owner
            expected = b"value" if holds else None
            self.assertEqual(node.get(self.key()), expected)
            node.close()

    def test_a_lost_node_costs_only_its_own_keys(self):
        values = {self.key(f".{i}"): b"value" for i in range(300)}
        nobody = ("127.0.0.1", 1)
        cache = HashClient(
            nodes.addresses() + [nobody], default_noreply=False, retry_attempts=0, ignore_exc=True
        )
        self.addCleanup(cache.close)
        for key, value in values.items():
            cache.set(key, value)  # the first that meets the dead node is lost, then it is left out
        found = cache.get_many(list(values))
        self.assertGreaterEqual(len(found), 299)
        self.assertEqual(found, {key: values[key] for key in found})


class HashingPooled(Hashing):
    def make(self, **options):
        return HashClient(nodes.addresses(), use_pooling=True, max_pool_size=4, **options)


class Retrying(OneServer, unittest.TestCase):
    client_class = Client
    without_server = {"check_key", "cache_memlimit"}

    def make(self, **options):
        return RetryingClient(
            Client(nodes.addresses()[0], **options), attempts=2, retry_for=[ConnectionError]
        )

    def test_a_connection_lost_meanwhile_is_opened_again(self):
        self.cache.set(self.key(), b"value")
        self.cache._client._client.sock.close()
        with self.assertRaises(OSError):
            self.cache.get(self.key())  # EBADF is no ConnectionError: told, not retried
        self.assertEqual(self.cache.get(self.key()), b"value")
