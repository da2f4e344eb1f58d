#!/usr/bin/env python3
"""Compares what `cache-sim run --as-server` predicts with what `cache-bench replay` measures on a server.

usage: benches/prediction.py [--bin DIR] [--policies LIST] [--ttl RULE] LOG[@MiB[,MiB...]][%FORMAT] ...

For each log, memory and policy a server is started on loopback with that memory (-m) and policy, and the log played
to it at depth 1. Told are the hits predicted and measured, and how many points of hit ratio that is apart. The exit code
is 1 where it is more than a tenth of a point, a value was wrong, or the two did not play the same number of reads."""

import argparse
import json
import socket
import subprocess
import sys
import time
from pathlib import Path

APART_MAX_POINTS = 0.1
THREADS = "4"


def output(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def serving(port, server):
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if server.poll() is not None:
                break
            time.sleep(0.05)
    sys.exit("the server does not come up")


def measured(args, log, flags, mib, policy):
    port = free_port()
    server = subprocess.Popen([args.bin / "cache-server", "-u", "nobody", "-l", "127.0.0.1", "-p", str(port), "-m", mib,
                               "-t", THREADS, "--eviction", policy], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        serving(port, server)
        return output([args.bin / "cache-bench", "replay", log, "--server", f"127.0.0.1:{port}", "--output", "json",
                       "--ttl", args.ttl, *flags])
    finally:
        server.terminate()
        server.wait()


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--bin", type=Path, default=Path("target/release"))
parser.add_argument("--policies", default="all")
parser.add_argument("--ttl", default="log")
parser.add_argument("logs", nargs="+")
args = parser.parse_args()

failed = False
print(f"{'log':36}{'MiB':>6} {'policy':9}{'reads':>9}{'predicted':>11}{'measured':>10}{'points apart':>14}{'expired':>9}")
for spec in args.logs:
    spec, _, form = spec.partition("%")
    log, _, memory = spec.partition("@")
    flags = ["--format", form] if form else []
    for mib in (memory or "64").split(","):
        rows = output([args.bin / "cache-sim", "run", "--trace", log, "--policy", args.policies, "--as-server", f"{mib}MiB",
                       "--threads", THREADS, "--ttl", args.ttl, "--output", "json", *flags])["results"]
        for row in rows:
            real = measured(args, log, flags, mib, row["policy"])
            real = real[0] if isinstance(real, list) else real
            apart = 100 * abs(real["hits"] - row["hits"]) / max(row["requests"], 1)
            is_bad = apart > APART_MAX_POINTS or real["wrong_values"] or real["requests"] != row["requests"]
            failed |= bool(is_bad)
            print(f"{Path(log).name:36}{mib:>6} {row['policy']:9}{row['requests']:9}{row['hits']:11}{real['hits']:10}"
                  f"{apart:14.4f}{real['expired']:9}{'   <--' if is_bad else ''}", flush=True)
sys.exit(failed)
