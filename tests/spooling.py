"""Processes that spool until they are killed: prints the number of each frame whose `put` has returned.

python -m tests.spooling FOLDER KILLS
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time

from edge.offload.spool import Spool, Stored


def content(number: int) -> bytes:
    """What is stored under a number, recognizable and of changing length."""
    return f"{number}:".encode() + bytes([number % 251]) * (500 + 997 * number % 60_000)


def spool_on(folder: str, begin: int) -> None:
    """Put frames, and now and then take out the best, until the end."""
    spool = Spool(folder, lambda line: print(line, file=sys.stderr), quota_bytes=10**10, days=1)
    os.write(1, b"0\n")
    for number in range(begin, begin + 1_000_000):
        now_s = time.time()
        assert spool.put(Stored(f"key-{number}", now_s, (number % 10) / 10, {"source": "test"}, content(number)), now_s)
        os.write(1, f"{number}\n".encode())  # unbuffered: what is read was acknowledged
        if number % 3 == 0 and (best := spool.best(now_s)) is not None:
            os.write(1, f"-{best.key.removeprefix('key-')}\n".encode())  # before it goes: it may be gone or not
            spool.remove(best.key)


def main() -> None:
    folder, kills = sys.argv[1], int(sys.argv[2])
    for kill in range(kills):
        process = os.fork()
        if process == 0:
            spool_on(folder, 1_000_000 * kill + 1)
        time.sleep(random.uniform(0.0, 0.1))
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


if __name__ == "__main__":
    main()
