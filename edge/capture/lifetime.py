"""Processes that end when the one that started them does, however that ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG = 1


def dying_with(parent: int) -> Callable[[], None]:
    """What a forked child calls so that it is killed when `parent` ends, or at once if that has ended; Linux only.

    What it needs is loaded here, before the fork, for a child of a process with threads may load nothing.
    """
    libc = ctypes.CDLL(None)

    def ask() -> None:
        if sys.platform == "linux":
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return ask
