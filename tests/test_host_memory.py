"""Memory that a training step frees is not fetched from the kernel again."""

import platform
import subprocess
import sys

import pytest

_PAGE_FAULTS_OF_BLOCKS = """
import resource, sys
from swiftcore.training.host_memory import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        block = bytearray(64 * 2**20)
        block[::4096] = b"x" * len(block[::4096])
        del block
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_a_freed_block_is_used_again() -> None:
    def faults(choice: str) -> int:
        command = [sys.executable, "-c", _PAGE_FAULTS_OF_BLOCKS, choice]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return int(done.stdout)

    pages = 4 * 64 * 2**20 // 4096
    assert faults("leave") > pages / 2
    assert faults("keep") < pages / 100
