"""Counting instructions without counting: what is refused, what is remembered, what a processor is told to be."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge.bundle import open_bundle
from edge.card import Variant
from edge.errors import EngineError, UsageError
from quantize import instructions
from quantize.instructions import CPUS, Counted, Counter, machine_files, open_counter, why_not

PICTURE = np.zeros((1, 32, 32, 3), np.uint8)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "edge-run"


@pytest.fixture
def float32(tiny_edge: Path) -> tuple[bytes, Variant]:
    bundle = open_bundle(tiny_edge)
    return bundle.model_bytes(bundle.card.variants[0]), bundle.card.variants[0]


def have_tools(monkeypatch: pytest.MonkeyPatch, version: tuple[int, int] = (7, 2)) -> None:
    monkeypatch.setattr(instructions.shutil, "which", lambda tool: f"/usr/bin/{tool}")
    monkeypatch.setattr(instructions, "_qemu_version", lambda machine: version)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize("missing", ["qemu", "gcc"])
def test_a_missing_tool_is_named_in_one_line(cpu: str, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    have_tools(monkeypatch)
    monkeypatch.setattr(instructions.shutil, "which", lambda tool: None if tool.startswith(missing) else tool)
    reason = why_not(cpu)
    assert f"instructions on {cpu} cannot be counted without {missing}" in reason
    assert ("make arm64-root" in reason) == (cpu != "haswell")
    assert "apt install qemu-user" in reason or str(instructions.ROOT_SCRIPT) in reason
    assert "\n" not in reason
    assert open_counter([cpu]) is None


def test_a_missing_root_says_how_to_make_one(
    monkeypatch: pytest.MonkeyPatch, cache: Path, float32: tuple[bytes, Variant]
) -> None:
    have_tools(monkeypatch)
    reason = why_not("cortex-a72")
    assert f"no arm64 root in {cache / 'arm64-root'}; run `make arm64-root`" in reason
    assert sys.executable in reason
    assert open_counter() is None
    with pytest.raises(EngineError, match="make arm64-root"):
        Counter().millions(*float32, PICTURE, ["cortex-a72"])


def test_a_root_without_an_engine_is_refused(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    have_tools(monkeypatch)
    site = cache / "arm64-root" / "opt" / "site"
    site.mkdir(parents=True)
    (cache / "arm64-root" / ".complete").touch()
    assert "no engine in" in why_not("cortex-a76")
    (site / "onnxruntime-1.2.3.dist-info").mkdir()
    assert why_not("cortex-a76") == ""
    assert open_counter() is not None


def test_haswell_needs_x86_and_a_qemu_that_knows_avx2(monkeypatch: pytest.MonkeyPatch) -> None:
    have_tools(monkeypatch, (7, 1))
    assert "no AVX2 before 7.2" in why_not("haswell")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert "x86-64 machine only" in why_not("haswell")


def test_an_unknown_processor_is_refused_by_those_there_are(float32: tuple[bytes, Variant]) -> None:
    with pytest.raises(UsageError, match="'z80'; choose from cortex-a53, cortex-a57, cortex-a72, cortex-a76, haswell"):
        why_not("z80")
    with pytest.raises(UsageError, match="'z80'"):
        Counter().millions(*float32, PICTURE, ["z80"])


def test_what_was_counted_is_remembered_until_something_changes(
    monkeypatch: pytest.MonkeyPatch, cache: Path, float32: tuple[bytes, Variant]
) -> None:
    counted: list[str] = []

    def infer(self: Counter, data: bytes, variant: Variant, picture: object, cpu: str) -> Counted:
        counted.append(cpu)
        return Counted(len(counted) + 0.5, {})

    monkeypatch.setattr(Counter, "infer", infer)
    data, variant = float32
    cpus = ["cortex-a72", "haswell"]
    assert Counter(1).millions(data, variant, PICTURE, cpus) == {"cortex-a72": 1.5, "haswell": 2.5}
    assert Counter(1).millions(data, variant, PICTURE, cpus[::-1]) == {"haswell": 2.5, "cortex-a72": 1.5}
    renamed = msgspec.structs.replace(variant, name="other", temperature=9.0)
    assert Counter(1).millions(data, renamed, PICTURE, cpus) == {"cortex-a72": 1.5, "haswell": 2.5}
    assert counted == cpus

    assert Counter(1).millions(data + b"!", variant, PICTURE, ["haswell"]) == {"haswell": 3.5}
    assert Counter(1).millions(data, variant, PICTURE + 1, ["haswell"]) == {"haswell": 4.5}
    narrower = msgspec.structs.replace(variant, weight_bits=7)
    assert Counter(1).millions(data, narrower, PICTURE, ["haswell"]) == {"haswell": 5.5}
    monkeypatch.setattr(instructions, "_engine_version", lambda engine, machine: ("onnxruntime-99",))
    assert Counter(1).millions(data, variant, PICTURE, ["haswell"]) == {"haswell": 6.5}

    (cache / "instructions.json").write_bytes(b'{"damaged')
    assert Counter(1).millions(data, variant, PICTURE, ["haswell"]) == {"haswell": 7.5}
    assert Counter(1).millions(data, variant, PICTURE, ["haswell"]) == {"haswell": 7.5}


def test_a_cache_that_cannot_be_written_is_done_without(
    monkeypatch: pytest.MonkeyPatch, cache: Path, float32: tuple[bytes, Variant]
) -> None:
    cache.write_bytes(b"a file where the folder would be")
    monkeypatch.setattr(Counter, "infer", lambda *_: Counted(2.0, {}))
    assert Counter().millions(*float32, PICTURE, ["haswell"]) == {"haswell": 2.0}


def test_only_the_processor_with_dot_products_says_so() -> None:
    told = {name: machine_files(cpu, "Board 1")["proc/cpuinfo"] for name, cpu in CPUS.items() if cpu.machine == "aarch64"}
    assert [name for name, text in told.items() if "asimddp" in text] == ["cortex-a76"]
    assert all(text.count("processor\t:") == 4 and text.endswith("Model\t\t: Board 1\n") for text in told.values())
