"""npm's memcached and memjs, and express-session over memcached.

The modules lie where CACHE_NODE_MODULES says: `npm ci` with node/package-lock.json puts them there.
"""

import os
import pathlib
import shutil

import tap

HERE = pathlib.Path(__file__).resolve().parent / "node"
SCRIPTS = {
    "npm memcached": "memcached.js",
    "npm memjs": "memjs.js",
    "express-session": "sessions.js",
}


def missing():
    """What this machine lacks, or None."""
    if not shutil.which("node"):
        return "Node.js is not installed (Debian: nodejs and npm)"
    if not os.path.isdir(os.environ.get("CACHE_NODE_MODULES", "")):
        return "CACHE_NODE_MODULES does not say where npm has put the modules"
    return None


def load_tests(loader, tests, pattern):
    modules = os.environ.get("CACHE_NODE_MODULES", "")
    # The clients are older than the warnings.
    environment = {**os.environ, "NODE_PATH": modules, "NODE_NO_WARNINGS": "1"}
    for name, script in SCRIPTS.items():
        tests.addTest(tap.Script(name, ["node", HERE / script], missing(), environment))
    return tests
