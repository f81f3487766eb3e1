"""What the process is told for long work, seen from outside: page faults, and the environment."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lse_train.cpu import keep_memory, spin_briefly

FAULTS = """
import resource
import sys

import numpy as np

from lse_train.cpu import keep_memory

kept = sys.argv[1] == "keep" and keep_memory()


def touch():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.empty(2**26, dtype=np.uint8).fill(1)  # 64 MiB, freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


touch()
print(int(kept), touch())
"""


def faults(how: str) -> tuple[bool, int]:
    """Whether memory is kept, and the page faults of a block that was there before."""
    done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
    kept, count = done.stdout.split()
    return kept == "1", int(count)


def test_freed_memory_is_not_faulted_in_again() -> None:
    kept, again = faults("keep")
    if not kept:
        pytest.skip("no glibc")
    assert again < 100
    assert faults("leave")[1] > 2 * again + 8  # what it saves, with huge pages too


def test_keeping_memory_says_whether_it_could(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:  # a C library without mallopt
        pass

    monkeypatch.setattr("ctypes.CDLL", lambda name: Other())
    assert keep_memory() is False


def test_a_spin_count_of_the_user_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    spin_briefly()
    assert os.environ["GOMP_SPINCOUNT"] == "7"
    monkeypatch.delenv("GOMP_SPINCOUNT")
    spin_briefly()
    assert int(os.environ["GOMP_SPINCOUNT"]) > 0
