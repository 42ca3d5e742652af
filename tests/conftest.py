"""Fixtures: a tiny bundle, the shared test data, and a command run in this process."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from hypothesis import settings

settings.register_profile("edge", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("edge")

ROOT = Path(__file__).parent.parent
USERS_CACHE = os.environ.get("XDG_CACHE_HOME")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # a shell in the background ignores it, and what the tests start would inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def empty_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder in which nobody keeps anything."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def no_choices(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, empty_cache: Path) -> None:
    """What edge-bench found out for this user must choose no variants in tests; emulated boards, pip and so on keep theirs."""
    kept = any(request.node.get_closest_marker(name) for name in ("arm64", "camera", "integration"))
    if kept or os.environ.get("XDG_CACHE_HOME") != USERS_CACHE:
        return
    if "MPLCONFIGDIR" not in os.environ:  # its fonts take seconds to list anew
        monkeypatch.setenv("MPLCONFIGDIR", str(Path.home() / ".cache" / "matplotlib"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(empty_cache))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real pictures and models that EDGE_DATA names; the test is skipped where there is none."""
    folder = Path(os.environ.get("EDGE_DATA", ROOT / "../shared/data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no test data in {folder}; set EDGE_DATA")
    return folder


@pytest.fixture(scope="session")
def tiny_edge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real bundle file of two variants, `float32` and `int8-x86`; not to be written to."""
    from tests.tiny import tiny_bundle

    return tiny_bundle(tmp_path_factory.mktemp("tiny") / "tiny.edge", variants=("float32", "int8-x86"))


@pytest.fixture(scope="session")
def tiny_detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle file of a detector of red, green and blue squares; not to be written to."""
    from tests.tiny import tiny_detector_bundle

    return tiny_detector_bundle(tmp_path_factory.mktemp("detector") / "squares.edge")


@pytest.fixture(scope="session")
def tiny_pose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle file of the detector of squares whose corners are keypoints; not to be written to."""
    from tests.tiny import tiny_pose_bundle

    return tiny_pose_bundle(tmp_path_factory.mktemp("pose") / "corners.edge")


@pytest.fixture(scope="session")
def tiny_segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle file of a segmentation into background, red, green and blue; not to be written to."""
    from tests.tiny import tiny_segmenter_bundle

    return tiny_segmenter_bundle(tmp_path_factory.mktemp("segment") / "paint.edge")


@dataclass(frozen=True)
class Finished:
    """How a command ended and what it printed."""

    code: object
    out: str
    err: str

    def refused(self, code: int) -> str:
        """The one line on standard error that it ended with `code` and nothing else to say."""
        assert self.code == code, self
        assert self.out == "", self
        assert self.err.count("\n") == 1, self.err
        assert self.err.endswith("\n"), self.err
        assert "Traceback" not in self.err
        return self.err.rstrip("\n")


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Callable[..., Finished]:
    """Run a click command in this process; what C libraries print is caught, too."""

    def run(main: click.Command, *arguments: object) -> Finished:
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main.main([str(argument) for argument in arguments])
        return Finished(end.value.code, *capfd.readouterr())

    return run


@pytest.fixture
def unused_port() -> int:
    """A port of loopback on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
