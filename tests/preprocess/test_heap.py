"""Memory that an image leaves behind is there for the next one."""

from __future__ import annotations

import subprocess
import sys

import pytest

_SCRIPT = """
import resource
from preprocess.heap import keep_freed_memory
{call}
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    before = faults()
    held = b"x" * (64 << 20)
    del held
print(faults() - before)
"""


def faults_of_the_third_buffer(call: str) -> int:
    command = [sys.executable, "-c", _SCRIPT.format(call=call)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_a_buffer_of_the_size_of_the_last_one_needs_no_new_pages() -> None:
    assert faults_of_the_third_buffer("keep_freed_memory()") < 10
    assert faults_of_the_third_buffer("") > 10
