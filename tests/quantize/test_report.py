"""The report of a build: what stands in it, that names cannot harm it, and that it is the same for the same record."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

from edge.errors import UsageError
from quantize.record import (
    Candidate,
    Chosen,
    Disagreement,
    LayerNoise,
    Left,
    Record,
    Reliability,
    record_schema,
)
from quantize.report import printable, render, write_report
from quantize.table import rows, summary_lines
from quantize.verdict import headline, status, verdict
from tests.html_page import Page

HOSTILE = "\"><script>alert(1)</script>&'\x00\u202e"


def demo(**changes: Any) -> Record:
    """A small build: two variants chosen, one left out, five candidates of which one was never measured."""
    candidates = [
        Candidate(
            id="arm-1",
            target="arm",
            settings={"calibrator": "mse", "bias_correction": True, "percentile": None},
            fidelity_db=21.4,
            metric=0.885,
            instructions={"cortex-a76": 75.0},
            bytes=5_200_000,
            integer_operators=63,
            seconds=3.0,
            chosen=True,
        ),
        Candidate(
            id="arm-2",
            target="arm",
            settings={"calibrator": "min-max", "equalize": False},
            metric=0.30,
            instructions={"cortex-a76": 75.5},
            refused="loses 58 points",
        ),
        Candidate(id="x86-1", target="x86", settings={"keep": 2}, metric=0.88, ms=10.0, speedup=1.5, chosen=True),
        Candidate(id="x86-2", target="x86", settings={}, metric=0.88, ms=40.0, speedup=0.4, float_operators={"Conv": 49}),
        Candidate(id="x86-3", target="x86", settings={}, refused="the graph has a Loop"),
    ]
    record = Record(
        model="tiny",
        task="classify",
        metric_name="top1",
        created="2026-01-02T03:04:05Z",
        command="edge-quantize tiny --data pictures --out tiny.edge",
        machine="x86_64, 2 cores",
        gates={"max_drop_points": 0.5, "min_speedup": 1.2, "odd_gate": 3.0},
        split={"calibration": 50, "choice": 100, "temperature": 50, "measure": 200},
        tools={"onnxruntime": "1.32.0"},
        float32={"top1": 0.89, "top5": 0.97, "ece": 0.02, "ms": 15.0, "bytes": 20_000_000},
        float32_choice={"top1": 0.886},
        float32_instructions={"cortex-a76": 300.0},
        candidates=candidates,
        layers=[
            LayerNoise(target="arm", layer=f"layer-{index:02}", operators=["Conv"], noise=0.1 / index, share=0.3 / index)
            for index in range(1, 31)
        ],
        reliability=[Reliability(variant="arm", confidence=[0.0, 0.8], accuracy=[0.0, 0.75], count=[0, 200], ece=0.05)],
        disagreements=[
            Disagreement(variant="arm", picture="cat/1.jpg", jpeg_base64="AAAA", float32="cat 51%", int8="dog 52%", truth="cat")
        ],
        chosen=[
            Chosen(
                variant="arm",
                candidate="arm-1",
                why="highest top-1",
                metrics={"top1": 0.885, "ece": 0.03},
                instructions={"cortex-a76": 75.0},
                bytes=5_200_000,
                processors="ARM boards",
            ),
            Chosen(variant="x86", candidate="x86-1", why="fast", metrics={"top1": 0.8875}, speedup=1.5, bytes=5_000_000),
        ],
        left_out=[
            Left(variant="tflite", why="misses --min-speedup; try --min-speedup 0.9", metrics={"top1": 0.88}, speedup=0.9)
        ],
        notes=["one picture was skipped"],
        seconds=75.0,
    )
    record.layers[0].kept_float = True
    return msgspec.structs.replace(record, **changes)


def bare(**changes: Any) -> Record:
    """A record with nothing that may be absent."""
    return Record(
        model="tiny",
        task="detect",
        metric_name="ap50",
        created="",
        command="",
        machine="",
        gates={},
        split={},
        **changes,
    )


def page(record: Record) -> Page:
    return Page(render(printable(record)))


@cache
def demo_text() -> str:
    return render(printable(demo()))


@cache
def demo_page() -> Page:
    return Page(demo_text())


def sentences(record: Record) -> str:
    return " ".join(verdict(record, rows(record)))


def test_both_files_are_written_and_the_json_is_the_record(tmp_path: Path) -> None:
    write_report(demo(), tmp_path / "build.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["build.html", "build.json"]
    written = (tmp_path / "build.json").read_bytes()
    assert msgspec.json.decode(written, type=Record) == demo()
    jsonschema.validate(json.loads(written), record_schema())
    assert (tmp_path / "build.html").stat().st_mode & 0o777 == 0o644


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "build.html").write_text("before")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_report(demo(), tmp_path / "build.html")
    assert [path.name for path in tmp_path.iterdir()] == ["build.html"]
    assert (tmp_path / "build.html").read_text() == "before"


def test_the_page_cannot_be_its_own_json(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends in \.html"):
        write_report(demo(), tmp_path / "build.json")


def test_the_verdict_says_what_it_costs_and_what_it_gives() -> None:
    words = demo_page().words
    assert "2 of 3 int8 variants pass the gates." in words
    assert (
        "arm, for ARM boards, is in the bundle; it loses 0.50 points of top-1 (88.50%), "
        "needs 0.25 (cortex-a76) of float32's instructions and is 0.26 times as large." in words
    )
    assert "it loses 0.25 points of top-1 (88.75%), runs at 1.50 times float32's speed here and" in words
    assert "tflite is left out: misses --min-speedup; try --min-speedup 0.9" in words
    assert "one picture is 0.50 points" in words
    assert "The gate of 0.5 points is 1.0 pictures" in words
    assert "odd gate 3" in words
    assert "1 min 15 s" in words


def test_what_is_refused_is_said_first() -> None:
    left = [Left(variant=name, why="loses 41 points; calibrate on your own pictures") for name in ("arm", "x86")]
    refused = page(demo(chosen=[], left_out=left, candidates=[], reliability=[]))
    assert "Refused: none of 2 int8 variants passes the gates; there is nothing to ship." in refused.words
    assert {"class": "verdict refused"} in refused.all("div")
    assert refused.words.count("loses 41 points; calibrate on your own pictures") == 4  # the verdict and the table, twice


FLOAT32 = Chosen(variant="float32", candidate="", why="int8 is slower here", metrics={"top1": 0.89})
INT8 = Chosen(variant="arm", candidate="", why="", metrics={"top1": 0.895})
LEFT = Left(variant="x86", why="too slow")


@pytest.mark.parametrize(
    ("chosen", "left", "outcome", "line"),
    [
        ([INT8], [], "passed", "The one int8 variant passes the gates."),
        ([FLOAT32, INT8, INT8], [], "passed", "All 2 int8 variants pass the gates."),
        ([FLOAT32, INT8], [LEFT], "partly", "1 of 2 int8 variants pass the gates."),
        ([FLOAT32], [LEFT], "refused", "Refused: the one int8 variant misses a gate; only float32 is in the bundle."),
        ([], [LEFT], "refused", "Refused: the one int8 variant misses a gate; there is nothing to ship."),
        ([FLOAT32], [], "passed", "Only float32 was asked for, and it is in the bundle."),
        ([], [], "refused", "Nothing was built."),
    ],
)
def test_the_outcome(chosen: list[Chosen], left: list[Left], outcome: str, line: str) -> None:
    record = demo(chosen=chosen, left_out=left)
    assert (status(record), headline(record)) == (outcome, line)


def test_gain_is_not_called_a_loss() -> None:
    assert "arm is in the bundle; it gains 0.50 points of top-1 (89.50%)." in sentences(demo(chosen=[INT8]))


def test_float32_in_the_bundle_is_said_with_its_metric() -> None:
    assert "float32 is in the bundle; it has top-1 89.00%." in sentences(demo(chosen=[FLOAT32]))


def test_every_candidate_is_in_the_table_and_those_measured_in_the_figures() -> None:
    found = demo_page()
    assert [row["class"] for row in found.all("tr") if "class" in row].count("chosen") == 4  # two variants, two candidates
    for name in ("arm-1", "arm-2", "x86-1", "x86-2", "x86-3"):
        assert name in found.words
    assert "calibrator mse, bias correction" in found.words
    assert "calibrator min-max, no equalize" in found.words
    assert "refused: the graph has a Loop" in found.words
    assert "49 Conv" in found.words
    images = [attributes["aria-label"] or "" for attributes in found.all("div") if attributes.get("role") == "img"]
    assert [label.partition(",")[0] for label in images] == [
        "Scatter of 2 candidates",
        "Scatter of 2 candidates",
        "Reliability diagram of arm: calibration error 0.050 over 200 answers.",
    ]
    hover = re.findall(r"<title>([^<]*)</title>", demo_text())
    assert "x86-1 (x86): top-1 88.00%, 0.60 points below float32, 1.50 times its speed" in hover
    assert (
        "arm-2 (arm): top-1 30.00%, 58.60 points below float32, 0.25 of its instructions on cortex-a76, "
        + ("refused: loses 58 points")
        in hover
    )
    assert "float32: top-1 88.60%" in hover


def test_the_noisiest_layers_are_shown_and_those_in_float_marked() -> None:
    found = demo_page()
    assert "The noisiest 25 of 30 layers" in found.words
    assert "layer-25" in found.words
    assert "layer-26" not in found.words
    assert "layer-01 (float)" in found.words
    bars = [attributes for attributes in found.all("span") if "width" in (attributes.get("style") or "")]
    assert [bars[0]["style"], bars[1]["style"]] == ["width: 100.00%", "width: 50.00%"]
    assert [bar.get("class") for bar in bars].count("float") == 1


def test_the_page_needs_nothing_else() -> None:
    text = demo_text()
    assert "http:" not in text
    assert "https:" not in text
    found = Page(text)
    assert {tag for tag, _ in found.elements} & {"link", "iframe", "object", "embed", "base"} == set()
    assert [attributes.get("src") for attributes in found.all("script")] == [None]
    assert all((attributes["src"] or "").startswith("data:image/jpeg;base64,") for attributes in found.all("img"))
    references = re.findall(r'url\(([^)]*)\)|\bhref="([^"]*)"', text)
    names = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(names) == len(set(names))
    assert {(one or other)[0] for one, other in references} == {"#"}
    assert {(one or other)[1:] for one, other in references} <= set(names)


def test_people_who_cannot_see_the_page_are_served() -> None:
    found = demo_page()
    assert {"lang": "en"} in found.all("html")
    assert all(attributes.get("scope") in ("col", "row") for attributes in found.all("th"))
    assert all(attributes["alt"] for attributes in found.all("img"))
    assert "cat/1.jpg: float32 answers cat 51%, arm dog 52%, the truth is cat" in [image["alt"] for image in found.all("img")]


def test_figures_follow_the_scheme_of_the_page() -> None:
    text = demo_text()
    figures = " ".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert set(re.findall(r"#0[a-e]00[0-9a-f]{2}", figures)) == set()
    assert {"ink", "muted", "grid", "good", "series-0", "series-1"} <= set(re.findall(r"var\(--([a-z0-9-]+)\)", figures))
    assert "DejaVu" not in figures
    assert set(re.findall(r"var\((--[a-z0-9-]+)\)", text)) <= set(re.findall(r"(--[a-z0-9-]+):", text))
    assert "<text" in figures


def hostile(value: Any) -> Any:
    """Every text of a record ended by markup, but for those that are looked up."""
    if isinstance(value, str):
        return value and value + HOSTILE
    if isinstance(value, list):
        return [hostile(inner) for inner in value]
    if isinstance(value, dict):
        kept = ("metric_name", "gates", "split", "metrics", "float32", "float32_choice", "float32_instructions", "instructions")
        return {
            key if key in Record.__struct_fields__ or key in _FIELDS else hostile(key): inner if key in kept else hostile(inner)
            for key, inner in value.items()
        }
    return value


_FIELDS = {
    field for kind in (Candidate, LayerNoise, Reliability, Disagreement, Chosen, Left) for field in kind.__struct_fields__
}


def test_hostile_names_are_text(tmp_path: Path) -> None:
    record = msgspec.convert(hostile(msgspec.to_builtins(demo())), Record)
    write_report(record, tmp_path / "build.html")
    text = (tmp_path / "build.html").read_text()
    assert "<script>alert" not in text
    assert "\x00" not in text
    assert "\u202e" not in text
    found = Page(text)
    assert len(found.all("script")) == 1
    ours = demo_page()
    assert len(found.elements) == len(ours.elements)
    assert [name for _, attributes in found.elements for name in attributes if name.startswith("on")] == []
    assert found.words.count("<script>alert(1)</script>") > 40
    assert "script-src 'sha256-" in text


def test_a_metric_of_another_s_naming_is_drawn() -> None:
    record = demo(metric_name="\N{GREEK SMALL LETTER MU}$x^2 " + HOSTILE)
    for candidate in record.candidates:
        candidate.metric = 0.5
    assert "?$x^2" in render(printable(record))


def test_names_that_are_no_text_are_written(tmp_path: Path) -> None:
    picture = Disagreement(variant="arm", picture="caf\udce9.jpg", jpeg_base64="", float32="a", int8="b")
    write_report(demo(disagreements=[picture]), tmp_path / "build.html")
    assert "caf\ufffd.jpg" in (tmp_path / "build.html").read_text()
    assert msgspec.json.decode((tmp_path / "build.json").read_bytes(), type=Record).disagreements[0].picture == "caf\ufffd.jpg"


def test_what_is_not_finite_is_left_out_and_said(tmp_path: Path) -> None:
    record = demo(
        float32={"top1": 0.89, "ece": math.nan},
        reliability=[
            Reliability(variant="arm", confidence=[math.nan, 0.8], accuracy=[math.nan, 0.7], count=[0, 9], ece=0.1),
            Reliability(variant="x86", confidence=[0.8], accuracy=[0.7], count=[9], ece=math.inf),
        ],
        layers=[LayerNoise(target="arm", layer="dead", operators=[], noise=math.inf, share=0.1)],
    )
    record.candidates[0].metric = math.nan
    record.candidates[1].settings = {"sigma": np.float32(2.5), "path": Path("a/b")}
    write_report(record, tmp_path / "build.html")
    written = json.loads((tmp_path / "build.json").read_bytes(), parse_constant=pytest.fail)
    assert written["float32"] == {"top1": 0.89}
    assert written["candidates"][0]["metric"] is None
    assert written["candidates"][1]["settings"] == {"sigma": 2.5, "path": "a/b"}
    assert written["layers"] == []
    assert [diagram["confidence"] for diagram in written["reliability"]] == [[0.0, 0.8]]
    assert written["notes"][-1] == (
        "4 figures were not finite and are left out: float32.ece, candidates[0].metric, layers[0].noise, reliability[1].ece"
    )
    jsonschema.validate(written, record_schema())
    assert "nan" not in page(record).words.lower().split()


def test_a_record_of_nothing() -> None:
    words = page(bare()).words
    assert "Nothing was built." in words
    assert "No candidate was made." in words
    assert "No layer's sensitivity was measured." in words
    assert summary_lines(bare()) == ["no variant was measured"]


DRAWN = ("float32", "float32_choice", "float32_instructions", "candidates", "reliability")
LISTED = ("gates", "split", "tools", "layers", "disagreements", "chosen", "left_out", "notes")


@pytest.mark.parametrize("name", DRAWN)
def test_each_part_that_is_drawn_may_be_empty(name: str) -> None:
    record = demo(**{name: type(getattr(demo(), name))()})
    page(record)
    summary_lines(record)


@pytest.mark.parametrize("name", LISTED)
def test_each_part_that_is_listed_may_be_empty(name: str) -> None:
    record = demo(**{"candidates": [], "reliability": [], name: type(getattr(demo(), name))()})
    page(record)
    summary_lines(record)


def test_a_candidate_with_no_figures_at_all() -> None:
    words = page(bare(candidates=[Candidate(id="c1", target="arm", settings={})])).words
    assert "1 file was made" in words
    assert "Given up before the accuracy was known: 1 of 1 candidates" in words


def test_the_same_record_gives_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    path = tmp_path / "build.html"
    write_report(demo(), path)
    first = path.read_bytes()
    code = "import sys, pathlib\nfrom tests.quantize.test_report import *\nwrite_report(demo(), pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, cwd=Path(__file__).parents[2], timeout=120)
    assert path.read_bytes() == first


def test_importing_the_report_loads_no_figures() -> None:
    code = "import sys, quantize.report\nprint({'matplotlib', 'jinja2', 'torch', 'onnx'} & set(sys.modules))"
    ran = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=60
    )
    assert ran.stdout.strip() == "set()"


def test_rows_compare_with_float32() -> None:
    float32, arm, x86, tflite = rows(demo())
    assert (float32.variant, float32.status, float32.metrics) == (
        "float32",
        "reference",
        {"top1": 0.89, "top5": 0.97, "ece": 0.02},
    )
    assert arm.drop_points == pytest.approx(0.5)
    assert arm.instruction_ratios == {"cortex-a76": 0.25}
    assert arm.size_ratio == pytest.approx(0.26)
    assert (x86.speedup, x86.instruction_ratios, x86.status) == (1.5, {}, "chosen")
    assert (tflite.status, tflite.size_ratio) == ("left out", None)


def test_the_terminal_s_lines() -> None:
    assert summary_lines(demo()) == [
        "variant   top-1     drop  speed-up  instr cortex-a76      size",
        "float32  89.00%        -         -                 -  20.00 MB  reference",
        "arm      88.50%  0.50 pt         -             0.25x   5.20 MB  chosen",
        "x86      88.75%  0.25 pt     1.50x                 -   5.00 MB  chosen",
        "tflite   88.00%  1.00 pt     0.90x                 -         -  left out",
        "    misses --min-speedup; try --min-speedup 0.9",
    ]


def test_the_terminal_s_lines_stay_narrow_and_plain() -> None:
    cpus = {f"cortex-{'a' * 20}{index}": 75.0 for index in range(6)}
    record = demo(
        float32_instructions=cpus,
        chosen=[Chosen(variant="é" * 60 + "\x1b[31m", candidate="", why="", metrics={"top1": 0.9}, instructions=cpus)],
        left_out=[Left(variant="x86", why="reason " * 100)],
    )
    lines = summary_lines(record)
    assert all(len(line) <= 100 and line.isascii() and line.isprintable() for line in lines)
    assert lines[2].endswith("chosen")
    assert "-0.00" not in " ".join(summary_lines(demo(float32={"top1": 0.885 - 1e-9})))
