"""Perl's Cache::Memcached::Fast."""

import pathlib
import shutil
import subprocess

import tap

HERE = pathlib.Path(__file__).resolve().parent / "perl"


def missing():
    """What this machine lacks, or None."""
    if not shutil.which("perl"):
        return "Perl is not installed (Debian: perl)"
    found = subprocess.run(["perl", "-MCache::Memcached::Fast", "-e", "1"], capture_output=True)
    return "Cache::Memcached::Fast is not installed (Debian: libcache-memcached-fast-perl)" if found.returncode else None


def load_tests(loader, tests, pattern):
    tests.addTest(tap.Script("Cache::Memcached::Fast", ["perl", HERE / "fast.pl"], missing()))
    return tests
