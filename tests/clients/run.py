#!/usr/bin/env python3
"""Runs the client scripts of this folder against real servers.

    run.py --server-bin target/debug/cache-server
    run.py --server-bin /usr/bin/memcached          the same questions to memcached
    run.py --server-bin target/debug/cache-server --cluster
                                                    the same to the nodes of one cluster

Starts three servers on free ports, runs every test_*.py with the clients installed beside this
interpreter, then `memcapable` where it is installed, and stops the servers. A test_*.py may stand for
scripts in another language, which lie in a folder of that name and report as `tap.py` says. Prints
`N passed, N failed` and exits with 0 only if nothing failed. With --nothing-skipped a missing
tool is a failure.
"""

import argparse
import collections
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import unittest

sys.dont_write_bytecode = True  # nothing is left behind in the source tree
HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import nodes  # noqa: E402, beside this file

NODE_COUNT = 3
START_LIMIT_S = 20
STOP_LIMIT_S = 10
CLUSTER_LIMIT_S = 60
MEMCAPABLE_LIMIT_S = 120
# The project calls it memcapable, Debian's package memccapable.
MEMCAPABLE_NAMES = ("memcapable", "memccapable")


def serves(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


class Server:
    """One server process on a port of its own."""

    def __init__(self, program, arguments):
        self.port = nodes.free_port()
        command = [program, "-p", str(self.port), "-l", "127.0.0.1", "-U", "0", *arguments]
        command += ["-u", "nobody"]  # refused without it to root, ignored from anyone else
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + START_LIMIT_S
        while not serves(self.port):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise SystemExit(f"{program} does not serve (exit code {self.process.returncode})")
            time.sleep(0.02)

    def address(self):
        return f"127.0.0.1:{self.port}"

    def stop(self):
        """Ends the process; the exit code of one that was told to leave and did."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode


class Cluster:
    """Three nodes of one cluster on this machine, each as good as the others to any client."""

    def __init__(self, program):
        self.folder = tempfile.TemporaryDirectory()
        base = self.free_base_port()
        command = [program, "local-cluster", "--nodes", str(NODE_COUNT), "--replicas", "2"]
        command += ["--preset", "sessions", "--dir", self.folder.name + "/c", "--base-port", str(base)]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        told = pathlib.Path(self.folder.name, "c", "cluster.json")
        deadline = time.monotonic() + CLUSTER_LIMIT_S
        while not told.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise SystemExit(f"{program} local-cluster does not serve")
            time.sleep(0.05)
        nodes = json.loads(told.read_text())["nodes"]
        self.addresses = [node["client"] for node in nodes]
        self.port = int(self.addresses[0].rsplit(":", 1)[1])

    @staticmethod
    def free_base_port():
        """Clients, admin and peers connect at 0, 100 and 200 above it."""
        offsets = [kind + node for kind in (0, 100, 200) for node in range(NODE_COUNT)]
        for base in range(23000 + os.getpid() % 500, 32000, 307):
            if not any(serves(base + offset) for offset in offsets):
                return base
        raise SystemExit("no ports are free")

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(CLUSTER_LIMIT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.folder.cleanup()
        return self.process.returncode


def tell_failure(what):
    """A line by which `cargo xtask ci` knows a failure, to repeat it in its report."""
    print(f"FAILED: {what}", file=sys.stderr, flush=True)


def run_scripts(pattern):
    """(passed, failed, skipped) of the test_*.py in this folder."""
    suite = unittest.defaultTestLoader.discover(str(HERE), pattern=pattern, top_level_dir=str(HERE))
    result = unittest.TextTestRunner(verbosity=1).run(suite)
    broken = [(test.id(), trace.splitlines()[-1]) for test, trace in result.failures + result.errors]
    broken += [(test.id(), "was expected to fail") for test in result.unexpectedSuccesses]
    for test, why in broken:
        tell_failure(f"{test}: {why}")
    skipped = [why for _, why in result.skipped if not why.startswith(nodes.NOT_MEANT)]
    for why, count in collections.Counter(skipped).items():
        print(f"SKIPPED: {count}: {why}")
    return result.testsRun - len(broken) - len(result.skipped), len(broken), len(skipped)


def run_memcapable(port):
    """(passed, failed) of libmemcached's own check of both protocols, or None without it."""
    program = next(filter(None, map(shutil.which, MEMCAPABLE_NAMES)), None)
    if program is None:
        return None
    done = subprocess.run(
        [program, "-h", "127.0.0.1", "-p", str(port), "-t", "10"],
        capture_output=True,
        text=True,
        timeout=MEMCAPABLE_LIMIT_S,
    )
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    passed = sum(line.rstrip().endswith("[pass]") for line in lines)
    failed = sum("[FAIL]" in line for line in lines)
    if done.returncode != 0 or failed or not passed:
        print(done.stdout, done.stderr, sep="\n")
        failed = max(failed, 1)
        tell_failure("memcapable: " + "; ".join(line for line in lines if "[FAIL]" in line))
    print(f"memcapable: {passed} passed, {failed} failed")
    return passed, failed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server-bin", required=True, help="the server to run, with memcached's flags")
    parser.add_argument("--server-arg", action="append", default=[], help="one more flag for it")
    parser.add_argument("--pattern", default="test_*.py", help="which scripts")
    parser.add_argument("--cluster", action="store_true", help="three nodes of one cluster")
    parser.add_argument("--nothing-skipped", action="store_true", help="a missing tool is a failure")
    options = parser.parse_args()

    servers = []
    skipped_tools = 0
    try:
        if options.cluster:
            servers.append(Cluster(options.server_bin))
            addresses = servers[0].addresses
            os.environ["CACHE_NODES_ARE"] = "one cluster"
        else:
            for _ in range(NODE_COUNT):
                servers.append(Server(options.server_bin, options.server_arg))
            addresses = [server.address() for server in servers]
            os.environ["CACHE_SERVER_PROGRAM"] = options.server_bin
        os.environ["CACHE_NODES"] = ",".join(addresses)
        passed, failed, skipped = run_scripts(options.pattern)
        capable = run_memcapable(servers[0].port)
        if capable is None:
            print("SKIPPED: memcapable is not installed (Debian: libmemcached-tools)")
            skipped_tools = 1
        else:
            passed, failed = passed + capable[0], failed + capable[1]
    finally:
        codes = [server.stop() for server in servers]
    # A server that crashed meanwhile is a failure even if every answer was right.
    crashed = [code for code in codes if code not in (0, -15)]
    if crashed:
        tell_failure(f"servers ended with exit codes {crashed}")
        failed += len(crashed)
    if options.nothing_skipped:
        failed += skipped + skipped_tools
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
