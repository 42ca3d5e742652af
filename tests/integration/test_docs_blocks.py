"""Every block of commands in README.md and docs/ that does not say why not is run, page by page, in a copy of the clone."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs_blocks import REPOSITORY, pages, runnable, tracked

pytestmark = pytest.mark.integration
PATIENCE_S = 90
"""For a page; those here take 1 to 40 s on two quiet cores."""
PORT = re.compile(r"(?<=[: ])(8[0-9]{3}|9[0-9]{3}|1883|8883)\b")
TOOLS = ("mosquitto", "mosquitto_sub", "promtool", "curl")
PICTURES = {"train": 8, "val": 4}
RUN = [page for page in pages() if runnable(page)]


def named(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def script(page: Path) -> str:
    """The page's blocks, each announced, with a free port in place of each that the page names."""
    parts = [f"echo '--- line {block.line}' >&2\n{block.text}" for block in runnable(page)]
    text = "\n".join(parts)
    for port in sorted(set(PORT.findall(text))):
        text = re.sub(rf"(?<=[: ]){port}\b", str(free_port()), text)
    return text


@pytest.fixture
def clone(tmp_path: Path, shared_data: Path) -> Path:
    """What a reader stands in: a clone, its .venv, test data beside it, and a few pictures of pets."""
    folder = tmp_path / "edge-run"
    for path in tracked():
        target = folder / path.relative_to(REPOSITORY)
        if target.parts[len(folder.parts)] != "tests":
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
    (folder / ".venv").symlink_to(Path(sys.prefix))
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared/data").symlink_to(shared_data)
    for part, count in PICTURES.items():
        for animal in ("cat", "dog"):
            chosen = sorted((shared_data / "cats_dogs" / part / animal).iterdir())[:count]
            (folder / "pets" / part / animal).mkdir(parents=True)
            for picture in chosen:
                shutil.copy(picture, folder / "pets" / part / animal)
    return folder


@pytest.mark.parametrize("page", RUN, ids=named)
def test_the_commands_of_a_page_run(page: Path, clone: Path, shared_data: Path) -> None:
    text = script(page)
    missing = [
        tool for tool in TOOLS if re.search(rf"\b{tool}\b", text) and shutil.which(tool, path=os.environ["PATH"]) is None
    ]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed; see tests/integration/apt.sh")
    home = clone.parent / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("EDGE_", "XDG_"))} | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "EDGE_DATA": str(shared_data),
        "HOME": str(home),
        "TERM": "dumb",
        "MPLCONFIGDIR": os.environ.get("MPLCONFIGDIR", str(Path.home() / ".cache/matplotlib")),
    }
    log = clone.parent / "log"
    with log.open("wb") as output:
        shell = subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=clone,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            code = shell.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{named(page)} takes longer than {PATIENCE_S} s:\n{log.read_text()[-2000:]}")
        finally:  # what a block left in the background, too
            _end(shell.pid)
            shell.wait()
    assert code == 0, f"{named(page)} ended with {code} after the block of the last line announced:\n{log.read_text()[-3000:]}"


def _end(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return
