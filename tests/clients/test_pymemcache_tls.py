"""pymemcache over TLS: a context of Python's own, against a server that this script starts."""

import os
import pathlib
import shutil
import ssl
import subprocess
import tempfile
import time
import unittest

from pymemcache.client.base import Client, PooledClient

import nodes

START_LIMIT_S = 20


def certificate(folder):
    """A certificate for localhost that vouches for itself, and its key."""
    chain, key = folder / "chain.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command += ["-keyout", str(key), "-out", str(chain)]
    subprocess.run(command, check=True, capture_output=True)
    return chain, key


@unittest.skipUnless(shutil.which("openssl"), "openssl makes the certificates")
@nodes.not_in_a_cluster("the script starts a server of its own")
class OverTls(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.chain, key = certificate(pathlib.Path(cls.folder.name))
        cls.port = nodes.free_port()
        command = [os.environ["CACHE_SERVER_PROGRAM"], "-p", str(cls.port), "-l", "127.0.0.1"]
        # As root, if this is root: certificates are read again from a folder of its own.
        command += ["-U", "0", "-u", "root", "-Z"]
        command += ["-o", f"ssl_chain_cert={cls.chain},ssl_key={key},ssl_session_cache"]
        cls.server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        cls.addClassCleanup(cls.stop)
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline:
            try:
                return cls.client().close()
            except OSError:
                time.sleep(0.05)
        raise AssertionError("the server does not serve")

    @classmethod
    def stop(cls):
        cls.server.terminate()
        cls.server.wait()

    @classmethod
    def context(cls, version=None):
        context = ssl.create_default_context(cafile=str(cls.chain))
        if version is not None:
            context.minimum_version = context.maximum_version = version
        return context

    @classmethod
    def client(cls, version=None, kind=Client):
        # The name in the certificate is compared with this host.
        client = kind(("localhost", cls.port), tls_context=cls.context(version), timeout=10)
        client.version()
        return client

    def test_values_of_all_sizes_over_both_versions(self):
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            client = self.client(version)
            for size in (0, 1, 16_384, 100_000, 1_000_000):
                value = os.urandom(size)
                self.assertTrue(client.set("k", value, noreply=False))
                self.assertEqual(client.get("k"), value)
            client.close()

    def test_many_keys_at_once_from_a_pool(self):
        client = self.client(kind=PooledClient)
        values = {f"key{number}": b"v" * number for number in range(300)}
        self.assertEqual(client.set_many(values, noreply=False), [])
        self.assertEqual(client.get_many(list(values)), values)
        client.close()

    def test_a_client_that_does_not_know_the_authority_refuses_the_server(self):
        client = Client(("localhost", self.port), tls_context=ssl.create_default_context())
        with self.assertRaises(ssl.SSLCertVerificationError):
            client.version()

    def test_certificates_are_read_again(self):
        client = self.client()
        self.assertEqual(client.raw_command("refresh_certs", "\r\n"), b"OK")
        client.close()


if __name__ == "__main__":
    unittest.main()
