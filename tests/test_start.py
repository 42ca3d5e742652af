"""The console scripts: Ctrl-C while a command still imports, and what it is run with."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = dict(
    re.findall(r'^(edge-\w+) = "([\w.]+:\w+)"$', (ROOT / "pyproject.toml").read_text().partition("[project.scripts]")[2], re.M)
)
BUSY = """
import signal, sys, time
{before}
sys.argv[1:] = []
from edge.start import start
start("edge-x", "busy")
"""


@pytest.fixture
def busy(tmp_path: Path) -> Path:
    """A folder with a command that takes long to import, and makes of every exception another."""
    (tmp_path / "busy.py").write_text(
        "import time\nprint('importing', flush=True)\n"
        "try:\n    time.sleep(20)\nexcept BaseException:\n    raise ImportError('of something else')\n"
    )
    return tmp_path


def interrupted(code: str, folder: Path) -> tuple[int, str]:
    with subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(folder)!r}]\n{code}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        try:
            _, err = process.communicate(timeout=1)
        except subprocess.TimeoutExpired:
            process.terminate()
            _, err = process.communicate(timeout=10)
        return process.returncode, err


def test_an_interrupt_while_it_imports(busy: Path) -> None:
    assert interrupted(BUSY.format(before=""), busy) == (130, "edge-x: interrupted\n")


def test_an_interrupt_that_the_shell_ignores_for_us(busy: Path) -> None:
    before = "signal.signal(signal.SIGINT, signal.SIG_IGN)"
    assert interrupted(BUSY.format(before=before), busy) == (-signal.SIGTERM, "")


def test_an_interrupt_that_the_command_lets_through(busy: Path) -> None:
    (busy / "busy.py").write_text("import time\ndef main():\n    print('importing', flush=True)\n    time.sleep(20)\n")
    assert interrupted(BUSY.format(before=""), busy) == (130, "edge-x: interrupted\n")


def test_all_commands_are_there() -> None:
    names = {"edge-run", "edge-eval", "edge-bench", "edge-doctor", "edge-cloud", "edge-quantize", "edge-train"}
    assert set(SCRIPTS) == names


@pytest.mark.parametrize("name", SCRIPTS)
def test_each_script_starts_its_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, _, function = SCRIPTS[name].partition(":")
    started: list[tuple[str, str]] = []

    def note(name: str, module: str) -> None:
        started.append((name, module))

    script = import_module(module)
    monkeypatch.setattr(script, "start", note)
    getattr(script, function)()
    [(said, command)] = started
    assert said == name == import_module(command).NAME
    assert callable(import_module(command).main)


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_scripts_import_the_standard_library_only(name: str) -> None:
    module = SCRIPTS[name].partition(":")[0]
    code = f"import sys\nbefore = set(sys.modules)\nimport {module}\nprint(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, cwd=ROOT, check=True)
    ours = {name for name in done.stdout.split() if name.partition(".")[0] not in sys.stdlib_module_names}
    assert ours == {"edge", "edge.start", module.partition(".")[0], module}


@pytest.mark.parametrize("after_s", [0.08, 0.2, 0.4])
def test_an_interrupt_of_the_installed_script(tiny_edge: Path, after_s: float) -> None:
    script = Path(sys.executable).with_name("edge-run")
    if not script.exists():
        pytest.skip("the project is not installed beside this interpreter")
    command = [script, "--model", tiny_edge, "--source", "demo"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        try:
            time.sleep(after_s)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=20)
        finally:
            process.kill()
    if process.returncode != 130 and ", in start\n" not in err and "edge-run: " not in err:
        pytest.skip("Python itself had not started yet")
    assert "Traceback" not in err
    assert process.returncode == 0 or (process.returncode, err.strip()) == (130, "edge-run: interrupted")


def test_an_interrupt_while_edge_run_imports_its_parts(busy: Path) -> None:
    code = "import builtins\nfrom edge.commands import run\nplain = builtins.__import__\n"
    code += "def slowly(name, *more):\n    return plain('busy' if name == 'edge.commands.run_loop' else name, *more)\n"
    code += "builtins.__import__ = slowly\nrun.main(['--source', 'demo'])\n"
    assert interrupted(code, busy) == (130, "edge-run: interrupted\n")
