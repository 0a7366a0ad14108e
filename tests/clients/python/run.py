"""Runs the cases and tells the driver each result as one JSON line; python.test.mjs reads them."""

import json
import logging
import os
import sys
import unittest

import cases

# The SDK logs what the cases provoke; a failing case carries its own message.
logging.disable(logging.CRITICAL)


def say(**line):
    print(json.dumps(line), flush=True)


class Lines(unittest.TestResult):
    """Results as lines; a case with several failing parts is one failure with all their messages."""

    def startTest(self, test):
        super().startTest(test)
        self.problems, self.skipped_because = [], None

    def addFailure(self, test, err):
        self.problems.append(self._exc_info_to_string(err, test))

    addError = addFailure

    def addSubTest(self, test, subtest, err):
        if err is not None:
            self.problems.append(f"{subtest}\n{self._exc_info_to_string(err, test)}")

    def addSkip(self, test, reason):
        self.skipped_because = reason

    def stopTest(self, test):
        say(case=test._testMethodName.removeprefix("test_"), problem="\n".join(self.problems) or None, skipped=self.skipped_because)
        super().stopTest(test)


suite = unittest.defaultTestLoader.loadTestsFromModule(cases)
result = Lines()
result.problems = []
suite.run(result)
# Problems outside of a case (the shared worker could not connect) belong to nobody else.
say(finished=result.testsRun, problem=None if result.testsRun else "\n".join(result.problems) or "there are no cases")
sys.stdout.flush()
# A worker that a failed case left open must not keep the process alive.
os._exit(0)
