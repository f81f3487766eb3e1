"""Settings of the whole process for long work on a CPU: for commands and benchmarks, not for a library."""

from __future__ import annotations

import ctypes
import os

__all__ = ["keep_memory", "spin_briefly"]


def keep_memory() -> bool:
    """Tell glibc to keep freed memory; return whether this was possible.

    By default it returns large blocks to the system and faults them in again, a page at a time: a third
    of the time of a training step of a small model. How often depends on what other calls left of the
    heap, so in a benchmark one and the same model takes up to a fifth longer behind one neighbour than
    behind another. The process then never gets smaller.
    """
    trim_threshold, mmap_max = -1, -4  # of malloc.h
    try:
        libc = ctypes.CDLL(None)
        return bool(libc.mallopt(trim_threshold, -1)) and bool(libc.mallopt(mmap_max, 0))
    except (AttributeError, OSError, TypeError):  # another C library; Windows takes no None
        return False


def spin_briefly() -> None:
    """Make waiting threads of GNU OpenMP release their core soon; call this before torch is loaded.

    They spin while they wait. On two cores with a little else to do that made a step take 20 times as
    long; spinning briefly keeps most of the speed.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "100000")
