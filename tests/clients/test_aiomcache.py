"""aiomcache, for asyncio, against real servers."""

import asyncio
import unittest

import aiomcache

import nodes

THIRTY_DAYS_S = 60 * 60 * 24 * 30


class OneServer(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        host, port = nodes.addresses()[0]
        # The test case runs the loop so that it tells of whatever takes long.
        asyncio.get_running_loop().slow_callback_duration = 60
        self.client = aiomcache.Client(host, port, pool_size=4)
        await self.client.flush_all()

    async def asyncTearDown(self):
        await self.client.close()

    async def test_what_was_set_is_got(self):
        for value in (b"text", b"", b"\r\nEND\r\n", bytes(range(256)), b"\x80" * 1_000_000):
            self.assertTrue(await self.client.set(b"k", value))
            self.assertEqual(await self.client.get(b"k"), value)
        self.assertIsNone(await self.client.get(b"nobody"))
        self.assertEqual(await self.client.get(b"nobody", b"x"), b"x")

    async def test_a_value_too_large_is_refused_and_the_next_request_is_served(self):
        with self.assertRaises(aiomcache.ClientException):
            await self.client.set(b"k", b"x" * (1 << 20))
        self.assertTrue(await self.client.set(b"k", b"a"))
        self.assertEqual(await self.client.get(b"k"), b"a")

    async def test_add_replace_append_prepend(self):
        self.assertFalse(await self.client.replace(b"k", b"a"))
        self.assertFalse(await self.client.append(b"k", b"a"))
        self.assertFalse(await self.client.prepend(b"k", b"a"))
        self.assertTrue(await self.client.add(b"k", b"b"))
        self.assertFalse(await self.client.add(b"k", b"c"))
        self.assertTrue(await self.client.append(b"k", b"c"))
        self.assertTrue(await self.client.prepend(b"k", b"a"))
        self.assertEqual(await self.client.get(b"k"), b"abc")
        self.assertTrue(await self.client.replace(b"k", b"d"))
        self.assertEqual(await self.client.get(b"k"), b"d")

    async def test_numbers_go_up_and_down(self):
        await self.client.set(b"n", b"10")
        self.assertEqual(await self.client.incr(b"n"), 11)
        self.assertEqual(await self.client.incr(b"n", 31), 42)
        self.assertEqual(await self.client.decr(b"n", 2), 40)
        self.assertEqual(await self.client.decr(b"n", 100), 0)
        await self.client.set(b"text", b"no number")
        for key, word in ((b"nobody", "NOT_FOUND"), (b"text", "CLIENT_ERROR")):
            with self.assertRaisesRegex(aiomcache.ClientException, word):
                await self.client.incr(key)

    async def test_cas_is_compared(self):
        await self.client.set(b"k", b"a")
        value, cas = await self.client.gets(b"k")
        self.assertEqual(value, b"a")
        self.assertTrue(await self.client.cas(b"k", b"b", cas))
        self.assertFalse(await self.client.cas(b"k", b"c", cas))
        self.assertEqual(await self.client.get(b"k"), b"b")
        self.assertEqual(await self.client.gets(b"nobody"), (None, None))

    async def test_delete_and_touch(self):
        await self.client.set(b"k", b"a")
        self.assertTrue(await self.client.touch(b"k", 100))
        self.assertFalse(await self.client.touch(b"nobody", 100))
        self.assertTrue(await self.client.delete(b"k"))
        self.assertFalse(await self.client.delete(b"k"))

    async def test_many_keys_at_once(self):
        items = {b"key_%d" % n: b"value %d" % n for n in range(300)}
        await asyncio.gather(*(self.client.set(key, value) for key, value in items.items()))
        got = await self.client.multi_get(*items, b"nobody")
        self.assertEqual(got, (*items.values(), None))

    async def test_tasks_on_a_few_connections_do_not_get_each_others_answers(self):
        async def one(number):
            key, value = b"task%d" % number, b"%d" % number * 100
            for _ in range(10):
                await self.client.set(key, value)
                self.assertEqual(await self.client.get(key), value)

        await asyncio.gather(*map(one, range(50)))

    async def test_numbers_counted_up_by_many_at_once_miss_none(self):
        await self.client.set(b"n", b"0")
        await asyncio.gather(*(self.client.incr(b"n") for _ in range(500)))
        self.assertEqual(await self.client.get(b"n"), b"500")

    async def test_keys_of_250_bytes(self):
        self.assertTrue(await self.client.set(b"k" * 250, b"a"))
        self.assertEqual(await self.client.get(b"k" * 250), b"a")

    async def test_items_expire(self):
        await self.client.set(b"short", b"a", exptime=1)
        await self.client.set(b"touched", b"a", exptime=1)
        await self.client.touch(b"touched", 100)
        await self.client.set(b"past", b"a", exptime=THIRTY_DAYS_S + 1)
        self.assertIsNone(await self.client.get(b"past"))
        await asyncio.to_thread(nodes.wait_past, 1)
        self.assertIsNone(await self.client.get(b"short"))
        self.assertEqual(await self.client.get(b"touched"), b"a")

    async def test_version_and_statistics_are_told(self):
        self.assertRegex(await self.client.version(), rb"^\d+\.\d+\.\d+$")
        stats = await self.client.stats()
        self.assertIn(b"curr_items", stats)
        self.assertIn(b"maxbytes", await self.client.stats(b"settings"))


class FlagsOfTheClient(unittest.IsolatedAsyncioTestCase):
    async def test_flags_come_back_as_they_were_given(self):
        async def read(value, flags):
            return value.decode(), flags

        async def write(value):
            text, flags = value
            return text.encode(), flags

        host, port = nodes.addresses()[0]
        client = aiomcache.FlagClient(host, port, get_flag_handler=read, set_flag_handler=write)
        for flags in (1, 0xFFFF, 0xFFFF_FFFF):
            self.assertTrue(await client.set(b"k", ("text", flags)))
            self.assertEqual(await client.get(b"k"), ("text", flags))
        await client.close()


if __name__ == "__main__":
    unittest.main()
