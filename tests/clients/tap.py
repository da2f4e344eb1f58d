"""Scripts in other languages as tests: each of their cases is a result of its own.

A script gets the servers as arguments, host:port each, and prints a line for each case, and at the end how many
there were, as in the Test Anything Protocol:

    ok NAME
    not ok NAME: why
    1..N

What else it prints is shown if it fails. A script that ends before the last line has failed, whatever it printed.
"""

import re
import subprocess
import unittest

import nodes

LIMIT_S = 120
CASE = re.compile(r"(?P<failed>not )?ok (?P<name>[^:]+)(?:: (?P<why>.*))?")
PLAN = re.compile(r"1\.\.(\d+)")


class Case(unittest.TestCase):
    """What a script says of one of its cases: `why` it failed, or nothing."""

    def __init__(self, script, name, why=None, skipped=None):
        super().__init__()
        self.script, self.name, self.why, self.skipped = script, name, why, skipped

    def __str__(self):
        return f"{self.name} ({self.script})"

    def id(self):
        return str(self)

    def runTest(self):
        if self.skipped:
            self.skipTest(self.skipped)
        if self.why is not None:
            self.fail(self.why)


class Script(unittest.TestSuite):
    """A program that tells its cases. `missing` says what the machine lacks for it, or is None."""

    def __init__(self, name, command, missing=None, environment=None):
        super().__init__()
        self.name, self.command, self.missing = name, [str(word) for word in command], missing
        self.environment = environment

    def run(self, result, debug=False):
        for case in self.cases():
            case(result)
        return result

    def cases(self):
        if self.missing:
            return [Case(self.name, "all of it", skipped=self.missing)]
        servers = [f"{host}:{port}" for host, port in nodes.addresses()]
        try:
            done = subprocess.run(
                self.command + servers,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="backslashreplace",
                timeout=LIMIT_S,
                env=self.environment,
            )
            said, ended = done.stdout, f"ended with exit code {done.returncode}"
        except subprocess.TimeoutExpired as hung:
            said = (hung.stdout or b"").decode(errors="backslashreplace")
            ended = f"did not end within {LIMIT_S} s"
        return self.read(said, ended)

    def read(self, said, ended):
        told, planned = [], None
        for line in said.splitlines():
            if case := CASE.fullmatch(line):
                why = (case["why"] or "no reason given") if case["failed"] else None
                told.append(Case(self.name, case["name"], why))
            elif plan := PLAN.fullmatch(line):
                planned = int(plan[1])
        has_failed = any(case.why is not None for case in told)
        # A script exits with an error if a case of it failed, which is no failure of its own.
        as_planned = planned == len(told) and planned > 0 and ended.startswith("ended with")
        if not as_planned or ("exit code 0" in ended) == has_failed:
            why = f"{ended}, after {len(told)} cases of {planned}; it said:\n{said}"
            told.append(Case(self.name, "ends after all its cases", why))
        return told
