"""memcached-tool, the Perl script that comes with memcached, against real servers: every mode that it has."""

import pathlib
import shutil
import subprocess
import unittest

from pymemcache.client.base import Client

import nodes

# Debian and Red Hat, and where `make install` has no place for it: beside the source.
PLACES = ("/usr/share/memcached/scripts/memcached-tool", "/usr/bin/memcached-tool")
LIMIT_S = 30


def installed():
    there = [place for place in PLACES if pathlib.Path(place).exists()]
    return there[0] if there and shutil.which("perl") else None


@unittest.skipUnless(installed(), "memcached-tool is not installed (Debian: memcached)")
@nodes.not_in_a_cluster("a node tells of itself alone")
class MemcachedTool(unittest.TestCase):
    def setUp(self):
        host, port = nodes.addresses()[0]
        self.address = f"{host}:{port}"
        self.cache = Client((host, port))
        self.cache.flush_all()
        for number in range(10):
            self.cache.set(f"tool:{number}", b"value", noreply=False)
        self.cache.get("tool:1")

    def tearDown(self):
        self.cache.close()

    def run_tool(self, mode):
        done = subprocess.run(
            ["perl", installed(), self.address, *mode.split()],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_display_shows_a_row_for_the_items(self):
        head, *rows = self.run_tool("display").splitlines()
        self.assertIn("Item_Size", head)
        counts = [row.split()[4] for row in rows]
        self.assertIn("10", counts, "items of the class")

    def test_stats_tells_every_line(self):
        told = dict(line.split()[:2] for line in self.run_tool("stats").splitlines()[1:])
        self.assertEqual(told["curr_items"], "10")
        self.assertIn("evictions", told)

    def test_settings_tells_every_line(self):
        told = dict(line.split()[:2] for line in self.run_tool("settings").splitlines()[1:])
        self.assertEqual(told["cas_enabled"], "yes")
        self.assertIn("maxbytes", told)

    def test_sizes_is_answered(self):
        self.assertIn("sizes_status", self.run_tool("sizes"))

    def test_keys_lists_every_item(self):
        keys = [line for line in self.run_tool("keys").splitlines() if line.startswith("key=tool")]
        self.assertEqual(len(keys), 10)
        self.assertIn("fetch=yes", next(line for line in keys if line.startswith("key=tool%3A1 ")))

    def test_dump_writes_every_item_as_a_request(self):
        dumped = self.run_tool("dump").splitlines()
        self.assertEqual(sum(line.startswith("add tool:") for line in dumped), 10)
        self.assertEqual(sum(line == "value" for line in dumped), 10)


if __name__ == "__main__":
    unittest.main()
