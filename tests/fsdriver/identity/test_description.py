import os
from dataclasses import replace

from fsdriver.identity import Callers, Descriptions
from tests.fsdriver.identity.processes import FOREVER, running


def test_a_caller_is_described_by_its_arguments_and_ancestors(callers: Callers):
    descriptions = Descriptions()
    with running(FOREVER) as process:
        caller = callers.identify(process.pid, os.getuid())
        found = descriptions.describe(caller)
    assert list(found.command) == FOREVER
    assert found.ancestors[0] == os.readlink("/proc/self/exe")
    assert descriptions.describe(caller) is found


def test_a_caller_that_is_gone_has_no_description(callers: Callers):
    with running(FOREVER) as process:
        caller = callers.identify(process.pid, os.getuid())
    assert Descriptions().describe(replace(caller, start_time=0)) == ((), ())
