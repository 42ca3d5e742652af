"""Every error a user can meet, each one line that says what, where and the next command.

EdgeError                 exit 1   something failed while running
├── UsageError            exit 2   a flag or value that cannot be
├── InputError            exit 2   something we were given to read is bad
│   ├── BundleError                a bundle, its card, a hash, a golden check
│   ├── DataError                  a dataset or a picture
│   └── SourceError                a camera, video or folder that cannot be opened
├── EngineError           exit 1   an engine that refuses a model or fails on a frame
├── CaptureError          exit 1   a source that was delivering and stopped
├── OffloadError          exit 1   an endpoint that did not answer as asked
├── ProtocolError         exit 1   (edge.oip) a message that is not as the Open Inference Protocol says
└── GateError             exit 3   a measured figure that misses what was demanded
"""

from __future__ import annotations

LONGEST_LINE = 600


def one_line(text: str) -> str:
    """The text on one line of bounded length, without control characters: parts of it come from files and servers."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text[: 4 * LONGEST_LINE]).split())
    return line if len(line) <= LONGEST_LINE else line[: LONGEST_LINE - 3] + "..."


class EdgeError(Exception):
    """A failure with one line for the person at the terminal; `exit_code` is what a command returns for it."""

    exit_code = 1

    def __init__(self, line: str) -> None:
        super().__init__(one_line(line))


class UsageError(EdgeError):
    """A flag or value that cannot be."""

    exit_code = 2


class InputError(EdgeError):
    """Something we were given to read is missing, damaged or not what it claims to be."""

    exit_code = 2


class BundleError(InputError):
    """A bundle that cannot be trusted or understood."""


class DataError(InputError):
    """A dataset or picture that cannot be used."""


class SourceError(InputError):
    """A source of frames that cannot be opened."""


class EngineError(EdgeError):
    """An engine that is absent, refuses a model or fails on a tensor."""


class CaptureError(EdgeError):
    """A source that was delivering frames and stopped."""


class OffloadError(EdgeError):
    """An endpoint that cannot be reached or did not answer as the protocol asks."""


class GateError(EdgeError):
    """A measured figure that misses what was demanded of it."""

    exit_code = 3
