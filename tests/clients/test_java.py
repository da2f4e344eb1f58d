"""Java's spymemcached, as Debian ships it."""

import pathlib
import shutil

import tap

HERE = pathlib.Path(__file__).resolve().parent / "java"
LIBRARY = pathlib.Path("/usr/share/java/spymemcached.jar")


def missing():
    """What this machine lacks, or None. The script is compiled as it starts, so a mere JRE will not do."""
    if not shutil.which("javac"):
        return "no Java compiler is installed (Debian: default-jdk-headless)"
    return None if LIBRARY.exists() else "spymemcached is not installed (Debian: libspymemcached-java)"


def load_tests(loader, tests, pattern):
    script = HERE / "Spymemcached.java"
    tests.addTest(tap.Script("spymemcached", ["java", "-cp", LIBRARY, script], missing()))
    return tests
