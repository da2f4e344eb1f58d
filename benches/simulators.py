#!/usr/bin/env python3
"""Compares cache-sim's speed with libCacheSim's, in one run, on one machine, over one log.

usage: benches/simulators.py [--sim PATH] [--trace FILE] [--requests N] [--size N] [--rounds N]

Both replay the same zipf log (made with `cache-sim generate zipf` unless --trace names one), objects counted, one
cache at a time. Told are requests per CPU-second, user and system time together: of cache-sim the whole process, reading
the log included; of libCacheSim `process_trace` alone, its native loop, without the start of Python. Rounds alternate
between the two, and medians are compared, so that a busy machine disturbs both. Without libCacheSim
(`pip install libcachesim`) it says so and measures cache-sim alone."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

POLICIES = {"lru": "LRU", "lfu": "LFU", "arc": "ARC", "s3fifo": "S3FIFO", "sieve": "Sieve"}

# Runs in a process of its own, so that one cache's memory is no help to the next.
THEIRS = """
import json, sys, time
import libcachesim as lib
path, policy, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
reader = lib.TraceReader(path, lib.TraceType.ORACLE_GENERAL_TRACE, lib.ReaderInitParam(ignore_obj_size=True))
cache = getattr(lib, policy)(cache_size=size)
before = time.process_time()
misses = cache.process_trace(reader)[0]
print(json.dumps([time.process_time() - before, misses]))
"""


def measured(command):
    """CPU seconds, peak KiB, standard output and the last line of standard error of a command."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(command, stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), err.seek(0)
        if process.returncode:
            sys.exit(f"{' '.join(command)}: {err.read().decode().strip()}")
        return usage.ru_utime + usage.ru_stime, usage.ru_maxrss, out.read().decode()


def ours(args, policy):
    seconds, _, out = measured([args.sim, "run", "--trace", args.trace, "--format", "oracle-general", "--policy", policy,
                                "--size", str(args.size), "--unit", "objects", "--output", "csv", "--jobs", "1"])
    return seconds, float(out.splitlines()[1].split(",")[4])


def theirs(args, policy):
    _, _, out = measured([sys.executable, "-c", THEIRS, args.trace, POLICIES[policy], str(args.size)])
    return json.loads(out)


def curve(args):
    seconds, peak_kib, out = measured([args.sim, "curve", "--trace", args.trace, "--format", "oracle-general",
                                       "--unit", "objects", "--output", "json"])
    return seconds, peak_kib * 1024 / json.loads(out)["objects"]


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--sim", default="target/release/cache-sim")
parser.add_argument("--trace")
parser.add_argument("--requests", type=int, default=20_000_000)
parser.add_argument("--size", type=int, default=100_000)
parser.add_argument("--rounds", type=int, default=3)
args = parser.parse_args()

try:
    import libcachesim
    peer = f"libCacheSim {libcachesim.__version__}"
except ImportError:
    peer = None
    print("libcachesim is not installed: cache-sim is measured alone")

with tempfile.TemporaryDirectory() as scratch:
    if args.trace is None:
        args.trace = os.path.join(scratch, "zipf.oracleGeneral")
        subprocess.run([args.sim, "generate", "zipf", "--requests", str(args.requests), "--objects", "1000000",
                        "--alpha", "1.0", "--output", args.trace], check=True)
    requests = os.path.getsize(args.trace) // 24
    print(f"{requests} requests, {args.size} objects, {args.rounds} rounds{f', against {peer}' if peer else ''}")
    print(f"{'policy':8}{'ours':>12}{'theirs':>12}{'ratio':>8}   million requests per CPU-second; miss ratios")
    single = {}
    for policy in POLICIES:
        pairs = [(ours(args, policy), theirs(args, policy) if peer else None) for _ in range(args.rounds)]
        seconds = statistics.median(our[0] for our, _ in pairs)
        line = f"{policy:8}{requests / seconds / 1e6:12.2f}"
        if peer:
            single[policy] = statistics.median(their[0] for _, their in pairs)
            line += f"{requests / single[policy] / 1e6:12.2f}{single[policy] / seconds:8.2f}"
            line += f"   {pairs[0][0][1]:.6f} {pairs[0][1][1]:.6f}"
        print(line, flush=True)
        single.setdefault(policy, seconds)
    mapped = [curve(args) for _ in range(args.rounds)]
    seconds, peak = (statistics.median(values) for values in zip(*mapped))
    print(f"curve of lru at all sizes: {seconds:.2f} CPU-seconds, {seconds / single['lru']:.2f} runs of "
          f"{peer or 'cache-sim'} at one size; peak memory {peak:.0f} bytes an object")
