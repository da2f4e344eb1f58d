"""nginx's memcached_pass: pages out of the cache, and from the application where the cache has none.

The application writes what it answers into the cache, as those do for which the module was made.
"""

import gzip
import http.client
import http.server
import os
import pathlib
import shutil
import string
import subprocess
import tempfile
import threading
import unittest

from pymemcache.client.base import Client

import nodes

START_LIMIT_S = 20
# The flag of a value that is packed, as the configuration says.
PACKED = 2
NGINX = shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))

CONFIGURATION = string.Template(
    """
daemon off;
master_process off;
pid nginx.pid;
error_log error.log;
events {}
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    scgi_temp_path scgi;
    uwsgi_temp_path uwsgi;

    upstream one { server $first; keepalive 4; }
    upstream all { hash $$uri consistent; $all keepalive 4; }

    server {
        listen 127.0.0.1:$port;
        default_type text/plain;
        memcached_connect_timeout 10s;
        set $$memcached_key $$uri;

        location /page/ { memcached_pass one; error_page 404 502 504 = @application; }
        location /only/ { memcached_pass one; }
        location /spread/ { memcached_pass all; error_page 404 = @application; }
        location /packed/ { memcached_pass one; memcached_gzip_flag $packed; gunzip on; }
        location /asked/ { set $$memcached_key "asked:$$arg_key"; memcached_pass one; }
        location /down/ { memcached_pass 127.0.0.1:$nobody; error_page 502 = @application; }
        location @application { proxy_pass http://127.0.0.1:$application; }
    }
}
"""
)


class Application(http.server.BaseHTTPRequestHandler):
    """Answers with the path it was asked for, and keeps that in the cache for the next."""

    asked = []

    def do_GET(self):
        page = f"made for {self.path}".encode()
        Application.asked.append(self.path)
        for address in nodes.addresses():
            with_cache = Client(address, timeout=10)
            with_cache.set(self.path, page, noreply=False)
            with_cache.close()
        self.send_response(200)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_):
        pass


@unittest.skipUnless(NGINX, "nginx is not installed (Debian: nginx-light)")
class MemcachedPass(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        application = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Application)
        threading.Thread(target=application.serve_forever, daemon=True).start()
        cls.addClassCleanup(application.server_close)
        cls.addClassCleanup(application.shutdown)
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.port = nodes.free_port()
        servers = [f"{host}:{port}" for host, port in nodes.addresses()]
        text = CONFIGURATION.substitute(
            first=servers[0],
            all=" ".join(f"server {server};" for server in servers),
            port=cls.port,
            packed=PACKED,
            nobody=nodes.free_port(),
            application=application.server_port,
        )
        configuration = pathlib.Path(folder.name, "nginx.conf")
        configuration.write_text(text)
        command = [NGINX, "-p", folder.name, "-c", str(configuration)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        cls.addClassCleanup(process.wait)
        cls.addClassCleanup(process.terminate)
        nodes.wait_until_served(cls.port, process, START_LIMIT_S)

    def setUp(self):
        nodes.flush(nodes.addresses())
        Application.asked.clear()
        self.cache = Client(nodes.addresses()[0], timeout=10)
        self.addCleanup(self.cache.close)
        self.visitor = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        self.addCleanup(self.visitor.close)

    def ask(self, path, method="GET", **headers):
        self.visitor.request(method, path, headers=headers)
        answer = self.visitor.getresponse()
        return answer.status, answer.read(), answer

    def put(self, path, value, flags=0):
        self.assertTrue(self.cache.set(path, value, flags=flags, noreply=False))

    def test_a_page_in_the_cache_is_served_without_the_application(self):
        self.put("/page/a", b"cached")
        for _ in range(3):
            self.assertEqual(self.ask("/page/a")[:2], (200, b"cached"))
        self.assertEqual(Application.asked, [])

    def test_a_page_that_is_not_in_the_cache_is_made_once(self):
        for _ in range(3):
            self.assertEqual(self.ask("/page/new")[:2], (200, b"made for /page/new"))
        self.assertEqual(Application.asked, ["/page/new"])

    def test_a_miss_without_an_application_is_a_404(self):
        self.assertEqual(self.ask("/only/nothing")[0], 404)

    def test_pages_of_every_size_are_served_whole(self):
        for size in (0, 1, 4_095, 4_096, 65_536, 1_000_000):
            page = os.urandom(size)
            self.put("/page/sized", page)
            status, body, answer = self.ask("/page/sized")
            self.assertEqual((status, body == page), (200, True), f"{size} bytes")
            self.assertEqual(answer.getheader("Content-Length"), str(size))

    def test_a_page_may_hold_what_ends_an_answer(self):
        for page in (b"\r\nEND\r\n", b"END\r\n" * 1_000, b"\r\n", b"VALUE k 0 1\r\na\r\nEND"):
            self.put("/page/tricky", page)
            self.assertEqual(self.ask("/page/tricky")[:2], (200, page))

    def test_only_the_head_is_sent_where_only_that_is_asked_for(self):
        self.put("/page/a", b"cached")
        status, body, answer = self.ask("/page/a", method="HEAD")
        self.assertEqual((status, body, answer.getheader("Content-Length")), (200, b"", "6"))
        self.assertEqual(self.ask("/page/a")[:2], (200, b"cached"))

    def test_a_packed_page_is_unpacked_for_those_who_cannot(self):
        page = b"packed " * 10_000
        self.put("/packed/a", gzip.compress(page), PACKED)
        status, body, answer = self.ask("/packed/a")
        self.assertEqual((status, body == page), (200, True))
        self.assertIsNone(answer.getheader("Content-Encoding"))
        status, body, answer = self.ask("/packed/a", **{"Accept-Encoding": "gzip"})
        self.assertEqual(answer.getheader("Content-Encoding"), "gzip")
        self.assertEqual((status, gzip.decompress(body) == page), (200, True))

    def test_a_page_without_the_flag_is_not_taken_for_packed(self):
        self.put("/packed/plain", b"plain", flags=PACKED << 1)
        status, body, answer = self.ask("/packed/plain", **{"Accept-Encoding": "gzip"})
        self.assertEqual((status, body), (200, b"plain"))
        self.assertIsNone(answer.getheader("Content-Encoding"))

    def test_the_key_is_what_the_configuration_makes_of_the_request(self):
        self.put("asked:7", b"seven")
        self.assertEqual(self.ask("/asked/any?key=7")[:2], (200, b"seven"))
        self.put("/only/with%20a%20space", b"found")
        self.assertEqual(self.ask("/only/with%20a%20space")[:2], (200, b"found"))

    def test_a_key_that_is_too_long_is_an_error_and_the_next_page_is_served(self):
        self.put("/page/a", b"cached")
        self.assertEqual(self.ask("/only/" + "k" * 250)[0], 502)
        self.assertEqual(self.ask("/page/a")[:2], (200, b"cached"))

    def test_a_cache_that_is_down_leaves_the_application(self):
        self.assertEqual(self.ask("/down/a")[:2], (200, b"made for /down/a"))

    def test_pages_are_spread_over_the_servers(self):
        paths = [f"/spread/{n}" for n in range(60)]
        for _ in range(2):
            for path in paths:
                self.assertEqual(self.ask(path)[:2], (200, f"made for {path}".encode()))
        self.assertEqual(Application.asked, paths)

    @nodes.not_in_a_cluster("a node tells of itself alone")
    def test_many_pages_come_over_few_connections(self):
        self.put("/page/a", b"cached")
        self.ask("/page/a")
        before = self.cache.stats()[b"total_connections"]
        for _ in range(200):
            self.assertEqual(self.ask("/page/a")[:2], (200, b"cached"))
        self.assertEqual(self.cache.stats()[b"total_connections"], before)


if __name__ == "__main__":
    unittest.main()
