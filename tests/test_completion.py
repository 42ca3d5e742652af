"""Shell completion: what is offered, through the protocol of the scripts, and that bash takes the script."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete

from edge.commands import completion
from edge.commands.evaluate import main as evaluate
from edge.commands.run import main
from tests.conftest import Finished

Command = Callable[..., Finished]
ROOT = Path(__file__).parents[1]


def offered(monkeypatch: pytest.MonkeyPatch, line: str, command: click.Command = main) -> list[str]:
    """What bash is offered for the last word of a line, each as TYPE,VALUE."""
    words = line.split(" ")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    return BashComplete(command, {}, words[0], "_EDGE_RUN_COMPLETE").complete().splitlines()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("edge-run --cam", ["plain,--camera", "plain,--camera-timeout"]),
        ("edge-run --no-sp", ["plain,--no-spin"]),
        ("edge-run --policy ", ["plain,threshold", "plain,budget", "plain,guarantee"]),
        ("edge-run --policy=b", ["plain,budget"]),
        ("edge-run --completion z", ["plain,zsh"]),
        ("edge-run --log-level w", ["plain,warning"]),
        ("edge-run --model ga", ["file,ga"]),
        ("edge-run --config ", ["file,"]),
        ("edge-run --events e", ["file,e"]),
        ("edge-run --mqtt-password-file ", ["file,"]),
        ("edge-run --spool s", ["dir,s"]),
        ("edge-run --source de", ["plain,demo"]),
        ("edge-run --source ./v", ["file,./v"]),
        ("edge-run --source ", ["file,"]),
        ("edge-run --variant ", []),
        ("edge-run --rate fast --threads many --pol", ["plain,--policy"]),
    ],
)
def test_what_is_offered(monkeypatch: pytest.MonkeyPatch, line: str, expected: list[str]) -> None:
    assert offered(monkeypatch, line) == expected


def test_a_bad_file_of_options_keeps_nothing_from_being_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_RUN_CONFIG", "/none.toml")
    assert offered(monkeypatch, "edge-run --config /none --max-f") == ["plain,--max-frames"]


def test_cameras_are_those_that_are_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("video10", "video2", "video0", "null"):
        (tmp_path / name).touch()
    monkeypatch.setattr(completion, "DEVICES", tmp_path)
    found = [f"plain,{tmp_path}/{name}" for name in ("video0", "video2", "video10")]
    assert offered(monkeypatch, "edge-run --camera ") == found
    assert offered(monkeypatch, f"edge-run --camera {tmp_path}/video1") == found[2:]
    assert offered(monkeypatch, "edge-run --camera 1") == ["plain,10"]


def test_other_commands_complete_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert offered(monkeypatch, "edge-eval --model x", evaluate) == ["file,x"]
    assert "plain,--completion" in offered(monkeypatch, "edge-eval --com", evaluate)


@pytest.mark.parametrize(
    ("shell", "parts"),
    [
        ("bash", ["_EDGE_RUN_COMPLETE=bash_complete", "complete -o nosort -F _edge_run_completion edge-run"]),
        ("zsh", ["#compdef edge-run", "_EDGE_RUN_COMPLETE=zsh_complete"]),
        ("fish", ["_EDGE_RUN_COMPLETE=fish_complete", "complete --no-files --command edge-run"]),
    ],
)
def test_the_script_of_a_shell(command: Command, shell: str, parts: list[str]) -> None:
    done = command(main, "--completion", shell, "--config", "/none.toml")
    assert (done.code, done.err) == (0, "")
    assert all(part in done.out for part in parts)


def test_a_shell_that_is_not_known(command: Command) -> None:
    assert "'bash', 'zsh', 'fish'" in command(main, "--completion", "tcsh").refused(2)


def test_a_shell_asks_the_program() -> None:
    environ = {**os.environ, "COMP_WORDS": "edge-run --motion", "COMP_CWORD": "1", "_EDGE_RUN_COMPLETE": "bash_complete"}
    code = "from edge.start import run; run()"
    ran = subprocess.run([sys.executable, "-c", code], env=environ, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "plain,--motion-gate\n", "")


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_with_the_script(command: Command, tmp_path: Path) -> None:
    (tmp_path / "edge.sh").write_text(command(main, "--completion", "bash").out)
    program = tmp_path / "edge-run"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} -c 'from edge.start import run; run()' \"$@\"\n")
    program.chmod(0o755)
    asked = f"""
        source {tmp_path}/edge.sh
        COMP_WORDS=(edge-run --webhook-on "") COMP_CWORD=2
        _edge_run_completion {program}
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        ["bash", "--norc", "-c", asked], env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.stdout.splitlines() == ["changes", "all"], ran.stderr
