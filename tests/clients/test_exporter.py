"""What dashboards and alerts are made of: the metrics of memcached_exporter (exporter.py), and their truth."""

import time
import unittest

from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheServerError

import exporter
import nodes

# How long a server may take to free what was flushed and to see what was closed, and for how long both must have
# stayed as they are.
REST_LIMIT_S = 20
REST_S = 0.3


@nodes.not_in_a_cluster("a node tells of itself alone")
class Metrics(unittest.TestCase):
    def setUp(self):
        self.cache = Client(nodes.addresses()[0], timeout=10)
        self.addCleanup(self.cache.close)
        self.cache.flush_all(noreply=False)
        self.cache.set("resident", b"value", noreply=False)
        self.exporter = exporter.Exporter(nodes.addresses()[0])
        self.wait_until_rested()

    def wait_until_rested(self):
        """Returns when all that is over has been noticed: items flushed, connections closed, bytes sent.

        A server counts them in its own time, which must not be between two looks.
        """
        limit = time.monotonic() + REST_LIMIT_S
        told, since = None, time.monotonic()
        while time.monotonic() < since + REST_S:
            self.assertLess(time.monotonic(), limit, f"{told} goes on changing")
            now = {name: self.cache.stats()[name] for name in (b"curr_items", b"curr_connections", b"reclaimed")}
            if now != told:
                told, since = now, time.monotonic()
            time.sleep(0.1)

    def grown(self, work):
        """By how much each metric that is not what it was has grown while `work` was done."""
        before = self.exporter.scrape()
        self.wait_until_rested()
        work()
        self.wait_until_rested()
        after = self.exporter.scrape()
        return {name: after[name] - before.get(name, 0.0) for name in after if after[name] != before.get(name, 0.0)}

    def commands_of(self, work):
        grown = self.grown(work)
        prefix = "commands_total{"
        return {name.removeprefix(prefix): by for name, by in grown.items() if name.startswith(prefix)}

    def test_every_metric_is_there_and_a_number(self):
        metrics = self.exporter.scrape()
        self.assertEqual(self.exporter.missing, [])
        self.assertEqual(metrics["up"], 1.0)
        self.assertGreater(len(metrics), 90)

    def test_every_value_is_the_one_of_stats(self):
        metrics = self.exporter.scrape()
        stats = {name.decode(): value for name, value in self.cache.stats().items()}
        # All that does not change between two looks.
        moving = {"uptime", "time", "rusage_user", "rusage_system", "bytes_read", "bytes_written"}
        moving |= {"curr_connections", "total_connections", "lru_crawler_starts", "crawler_items_checked"}
        moving |= {"total_malloced", "crawler_reclaimed", "moves_to_cold"}
        for metric, name in exporter.GENERAL.items():
            if name not in moving:
                self.assertEqual(metrics[metric], float(stats[name]), metric)
        version = stats["version"].decode()
        self.assertEqual(metrics[f'version{{version="{version}"}}'], 1.0)

    def test_gets_and_sets_are_counted(self):
        def work():
            for n in range(7):
                self.cache.set(f"k{n}", b"value", noreply=False)
            self.cache.get_many(["k0", "k1", "nobody"])
            self.cache.get("nobody")

        self.assertEqual(
            self.commands_of(work),
            {
                'command="set",status="hit"}': 7,
                'command="get",status="hit"}': 2,
                'command="get",status="miss"}': 2,
            },
        )

    def test_a_cas_is_not_a_set(self):
        def work():
            _, cas = self.cache.gets("resident")
            self.cache.cas("resident", b"b", cas, noreply=False)
            self.cache.cas("resident", b"c", cas, noreply=False)
            self.cache.cas("nobody", b"d", cas, noreply=False)

        told = self.commands_of(work)
        self.assertEqual(
            told,
            {
                'command="get",status="hit"}': 1,
                'command="cas",status="hit"}': 1,
                'command="cas",status="badval"}': 1,
                'command="cas",status="miss"}': 1,
            },
        )

    def test_the_other_commands_are_counted(self):
        def work():
            self.cache.set("n", b"5", noreply=False)
            self.cache.incr("n", 1)
            self.cache.decr("n", 1)
            self.cache.touch("n", 100, noreply=False)
            self.cache.delete("n", noreply=False)
            self.cache.incr("n", 1)
            self.cache.decr("n", 1)
            self.cache.touch("n", 100, noreply=False)
            self.cache.delete("n", noreply=False)
            self.cache.flush_all(noreply=False)

        told = self.commands_of(work)
        expected = {
            f'command="{command}",status="{status}"}}': 1
            for command in ("incr", "decr", "touch", "delete")
            for status in ("hit", "miss")
        }
        expected |= {'command="set",status="hit"}': 1, 'command="flush",status="hit"}': 1}
        self.assertEqual(told, expected)

    def test_items_and_their_bytes_are_counted(self):
        def work():
            for n in range(20):
                self.cache.set(f"sized:{n:02}", b"v" * 1_000, noreply=False)

        grown = self.grown(work)
        self.assertEqual(grown["current_items"], 20)
        self.assertEqual(grown["items_total"], 20)
        self.assertGreaterEqual(grown["current_bytes"], 20 * 1_008)
        self.assertLess(grown["current_bytes"], 20 * 1_200)
        of_classes = [by for name, by in grown.items() if name.startswith("slab_current_items{")]
        self.assertEqual(sum(of_classes), 20)

    def test_traffic_and_connections_are_counted(self):
        def work():
            with_more = [Client(nodes.addresses()[0], timeout=10) for _ in range(5)]
            for client in with_more:
                client.set("large", b"v" * 100_000, noreply=False)
                client.get("large")
            self.addCleanup(lambda: [client.close() for client in with_more])

        grown = self.grown(work)
        self.assertEqual(grown["current_connections"], 5)
        # The second look is a connection, too.
        self.assertEqual(grown["connections_total"], 6)
        for metric in ("read_bytes_total", "written_bytes_total"):
            self.assertGreater(grown[metric], 500_000)
            self.assertLess(grown[metric], 600_000)

    def test_what_is_too_large_is_counted(self):
        def work():
            with self.assertRaises(MemcacheServerError):
                self.cache.set("k", b"v" * (1 << 20), noreply=False)

        self.assertEqual(self.grown(work)["item_too_large_total"], 1)

    def test_time_goes_on(self):
        first = self.exporter.scrape()
        time.sleep(2.1)
        second = self.exporter.scrape()
        for metric in ("uptime_seconds", "time_seconds"):
            self.assertIn(second[metric] - first[metric], (2, 3), metric)
        self.assertAlmostEqual(second["time_seconds"], time.time(), delta=2)

    def test_limits_are_those_of_the_command_line(self):
        metrics = self.exporter.scrape()
        self.assertEqual(metrics["limit_bytes"], 64 << 20)
        self.assertEqual(metrics["max_connections"], 1024)
        self.assertEqual(metrics["accepting_connections"], 1)


if __name__ == "__main__":
    unittest.main()
