"""That a script of another language cannot fail unnoticed; see tap.py."""

import sys
import unittest

import tap


def told_by(program):
    """(passed, failed, skipped): the names of the cases of a script that is this piece of Python."""
    result = unittest.TestResult()
    cases = tap.Script("script", [sys.executable, "-c", program]).cases()
    for case in cases:
        case(result)
    failed = [case.name for case, _ in result.failures]
    return [case.name for case in cases if case.name not in failed], failed, len(result.skipped)


UNENDED = "ends after all its cases"


class Scripts(unittest.TestCase):
    def test_cases_are_told_apart(self):
        told = told_by("print('ok one', 'not ok two: why', 'ok three', '1..3', sep='\\n'); exit(1)")
        self.assertEqual(told, (["one", "three"], ["two"], 0))

    def test_other_lines_are_not_cases(self):
        told = told_by("print('warning: ok', 'ok one', 'okay', '1..1', sep='\\n')")
        self.assertEqual(told, (["one"], [], 0))

    def test_a_script_that_ends_early_has_failed(self):
        for program in ("print('ok one')", "print('ok one\\n1..2')", "", "print('1..0')"):
            self.assertEqual(told_by(program)[1], [UNENDED], program)

    def test_an_exit_code_that_contradicts_the_cases_is_a_failure(self):
        self.assertEqual(told_by("print('ok one\\n1..1'); exit(3)")[1], [UNENDED])
        self.assertEqual(told_by("print('not ok one: why\\n1..1')")[1], ["one", UNENDED])

    def test_a_missing_tool_is_told_of_once(self):
        result = unittest.TestResult()
        tap.Script("script", ["nothing"], missing="nothing is installed").run(result)
        self.assertEqual([why for _, why in result.skipped], ["nothing is installed"])


if __name__ == "__main__":
    unittest.main()
