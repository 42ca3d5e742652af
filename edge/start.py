"""Where the console scripts start: a command takes a while to import, and Ctrl-C then ends it as it does later.

Needs the standard library only, and little of it.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from importlib import import_module

INTERRUPTED = 130


def start(name: str, module: str) -> None:
    """Import `module` and run its `main`; `name` is what the command calls itself.

    An exception would not do while it imports: some modules, numpy and enum among them, turn it into another.
    """

    def leave(number: int, frame: object) -> None:
        _say(f"{name}: interrupted")
        os._exit(INTERRUPTED)

    by_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not where the shell ignores it for us
    if by_default:
        signal.signal(signal.SIGINT, leave)
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)  # the last callback: what is done is done
    main = import_module(module).main
    try:
        if by_default:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        main()
    except KeyboardInterrupt:
        _say(f"{name}: interrupted")
        sys.exit(INTERRUPTED)


def _say(line: str) -> None:
    """One line on standard error, over the ^C of a terminal."""
    if sys.stderr is None:
        return
    from contextlib import suppress  # here, for until `start` runs Ctrl-C is a traceback: nothing more than it takes

    with suppress(OSError, ValueError):
        clear = "\r\x1b[K" if sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb" else ""
        sys.stderr.write(f"{clear}{line}\n")
        sys.stderr.flush()


def run() -> None:
    """edge-run."""
    start("edge-run", "edge.commands.run")


def evaluate() -> None:
    """edge-eval."""
    start("edge-eval", "edge.commands.evaluate")


def bench() -> None:
    """edge-bench."""
    start("edge-bench", "edge.commands.bench")


def doctor() -> None:
    """edge-doctor."""
    start("edge-doctor", "edge.commands.doctor")
