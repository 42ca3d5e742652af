"""edge-run, end to end: what it prints, writes and returns."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from edge.commands import speaker
from edge.commands.run import main
from edge.events import event_schema
from edge.summary import Summary
from tests.conftest import Finished
from tests.endpoint import serving, until
from tests.samples import encoded, entries_of, picture, squares, video, with_card, write_entries

Command = Callable[..., Finished]
VALIDATOR = jsonschema.Draft202012Validator(event_schema())


def events_in(text: str) -> list[dict[str, Any]]:
    """The frames' events of some lines, each line whole and valid."""
    assert text == "" or text.endswith("\n")
    found = [json.loads(line) for line in text.splitlines()]
    for event in found:
        VALIDATOR.validate(event)
    return [event for event in found if event["kind"] == "frame"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of six pictures."""
    (tmp_path / "pictures").mkdir()
    for number in range(6):
        (tmp_path / "pictures" / f"{number}.png").write_bytes(encoded(picture(seed=number), ".png"))
    return tmp_path / "pictures"


@pytest.fixture
def run(command: Command, tiny_edge: Path) -> Command:
    return lambda *arguments: command(main, "--model", tiny_edge, *arguments)


# what it does


def test_a_folder(run: Command, folder: Path) -> None:
    done = run("--source", folder)
    assert done.code == 0, done.err
    found = events_in(done.out)
    assert [(event["seq"], event["file"]) for event in found] == [(number, f"{number}.png") for number in range(6)]
    for event in found:
        assert event["source"] == str(folder)
        assert event["model"] == "tiny"
        assert (event["served_by"], event["revises"]) == ("local", False)
        assert event["decision"]["action"] == "accept"
        assert len(event["result"]["classes"]) == 5
    lines = done.err.splitlines()
    assert all(line.startswith("edge-run: ") for line in lines)
    assert "tiny" in lines[0]
    assert f"reading {folder}" in lines[0]
    assert "6 frames in" in lines[1]
    assert "latency p50" in lines[2]
    assert len(lines) == 3


def test_events_and_summary_go_to_files(run: Command, folder: Path, tmp_path: Path) -> None:
    for _ in range(2):
        done = run("--source", folder, "--events", tmp_path / "e.jsonl", "--summary", tmp_path / "s.json")
        assert (done.code, done.out) == (0, "")
    assert [event["seq"] for event in events_in((tmp_path / "e.jsonl").read_text())] == [*range(6), *range(6)]
    summary = json.loads((tmp_path / "s.json").read_text())
    assert set(summary) == set(Summary.__struct_fields__)
    assert set(summary["latency_ms"]) == {"end_to_end", "capture", "prepare", "infer", "decode"}
    assert all(set(values) == {"p50", "p95", "p99"} for values in summary["latency_ms"].values())
    assert summary["source"] == str(folder)
    assert (summary["model"], summary["engine"]) == ("tiny", "onnx")
    assert (summary["frames"], summary["dropped"], summary["skipped"], summary["events_lost"]) == (6, 0, 0, 0)
    assert (summary["offloaded"], summary["revised"], summary["offload_failed"]) == (0, 0, 0)
    for name in ("seconds", "fps", "first_result_s", "cpu_seconds", "peak_rss_mb"):
        assert summary[name] > 0, name
    assert summary["fps"] >= 5 / (summary["seconds"] + 0.001)  # the time before the first event is not in it


def test_a_summary_on_standard_output(run: Command, folder: Path, tmp_path: Path) -> None:
    done = run("--source", folder, "--events", tmp_path / "e", "--summary", "-")
    assert done.code == 0
    assert json.loads(done.out)["frames"] == 6


def test_max_frames(run: Command, folder: Path) -> None:
    done = run("--source", folder, "--max-frames", 2)
    assert (done.code, [event["seq"] for event in events_in(done.out)]) == (0, [0, 1])
    assert "--max-frames" in done.err
    assert len(events_in(run("--source", folder, "--max-frames", 99).out)) == 6


@pytest.mark.parametrize("source", ["demo", "video", "picture"])
def test_other_sources(run: Command, tmp_path: Path, source: str) -> None:
    (tmp_path / "picture.jpg").write_bytes(encoded())
    uri = {"demo": "demo", "video": video(tmp_path / "a.avi", frames=3), "picture": tmp_path / "picture.jpg"}[source]
    done = run("--source", uri, "--max-frames", 3)
    assert done.code == 0
    assert len(events_in(done.out)) == (1 if source == "picture" else 3)


def test_a_video_is_annotated(run: Command, tmp_path: Path) -> None:
    import cv2

    done = run("--source", video(tmp_path / "in.avi", frames=8, size_wh=(160, 120)), "--video", tmp_path / "out.mp4")
    assert done.code == 0
    capture = cv2.VideoCapture(str(tmp_path / "out.mp4"), cv2.CAP_FFMPEG)
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    count = 0
    while (read := capture.read())[0]:
        assert read[1].shape == (120, 160, 3)
        count += 1
    assert count == 8


@pytest.mark.parametrize("variant", ["float32", "int8-x86"])
def test_a_variant_and_threads_can_be_chosen(run: Command, folder: Path, variant: str) -> None:
    done = run("--source", folder, "--variant", variant, "--threads", 2, "--no-spin", "--max-frames", 1)
    assert events_in(done.out)[0]["variant"] == variant
    assert f"{variant} on onnx, 2 threads" in done.err


def test_pictures_that_cannot_be_read_are_said_and_counted(run: Command, folder: Path) -> None:
    (folder / "2.png").write_bytes(b"")
    done = run("--source", folder)
    assert done.code == 0
    assert len(events_in(done.out)) == 5
    assert "1 skipped" in done.err
    assert sum("2.png" in line for line in done.err.splitlines()) == 1


def test_a_damaged_video_gives_its_frames_then_its_line(run: Command, tmp_path: Path) -> None:
    path = video(tmp_path / "a.avi", frames=60, size_wh=(160, 120))
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    done = run("--source", path)
    assert done.code == 1
    found = events_in(done.out)
    assert 20 < len(found) < 40
    assert f"{path}: ended after {len(found)} of 60 frames" in done.err.splitlines()[-1]
    assert "Traceback" not in done.err


def test_a_variant_that_is_passed_over_is_said(
    run: Command, command: Command, tiny_edge: Path, folder: Path, tmp_path: Path
) -> None:
    entries = entries_of(tiny_edge) | {"int8-x86.onnx": b"damaged"}
    damaged = write_entries(tmp_path / "damaged.edge", entries)
    done = command(main, "--model", damaged, "--source", folder)
    assert done.code == 0
    assert events_in(done.out)[0]["variant"] == "float32"


# the cloud


def test_offload(run: Command, folder: Path) -> None:
    with serving() as endpoint:
        done = run("--source", folder, "--offload", endpoint.url, "--threshold", 1, "--summary", folder / "s.json")
    assert done.code == 0
    found = events_in(done.out)
    local = [event for event in found if not event["revises"]]
    revised = [event for event in found if event["revises"]]
    assert [event["seq"] for event in local] == list(range(6))
    assert all(event["decision"]["action"] == "offload" for event in local)
    assert revised
    for event in revised:
        assert (event["served_by"], event["model"]) == ("cloud", "big")
        assert event["result"]["classes"][1]["label"] == "other"
    summary = json.loads((folder / "s.json").read_text())
    assert (summary["offloaded"], summary["revised"]) == (6, len(revised))
    assert summary["offload_given_up"] + summary["offload_failed"] + summary["late"] == 6 - len(revised)


def test_a_budget_is_kept_to(run: Command, tmp_path: Path) -> None:
    with serving() as endpoint:
        budget = ("--policy", "budget", "--offload-budget", "10%")
        done = run("--source", "demo", "--max-frames", 200, "--offload", endpoint.url, *budget)
    local = [event for event in events_in(done.out) if not event["revises"]]
    asked = [event for event in local if event["decision"]["action"] == "offload"]
    assert (done.code, len(local)) == (0, 200)
    assert 1 <= len(asked) <= 20
    assert all(event["decision"]["reason"].endswith(", within 10%") for event in asked)


def test_a_guarantee_comes_from_the_card_and_is_withdrawn_on_other_pictures(
    run: Command, tiny_edge: Path, tmp_path: Path
) -> None:
    """The tiny model is never sure; calibration had seen it sure."""
    promise = {"alpha": 0.05, "threshold": 0.9, "coverage": 0.5}
    selection = {"unit": "frame", "answers": 500, "delta": 0.1, "promises": [promise], "quantiles": [0.8, 0.9, 1.0]}
    bundle = tmp_path / "promising.edge"

    def add(card: dict[str, Any]) -> None:
        for variant in card["variants"]:
            variant["selections"] = [selection]

    write_entries(bundle, with_card(entries_of(tiny_edge), add))
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(60):
        (pictures / f"{number:02}.png").write_bytes(encoded(picture(8, 8, seed=number), ".png"))
    policy = ("--policy", "guarantee", "--max-error", "0.07")
    done = run("--model", bundle, "--source", pictures, "--offload", "http://127.0.0.1:9", *policy)
    found = [json.loads(line) for line in done.out.splitlines()]
    [withdrawn] = [record for record in found if record["kind"] == "notice" and record["notice"] == "guarantee-withdrawn"]
    assert withdrawn["text"].startswith("an error rate below 0.05 is not promised any more: after ")
    assert withdrawn["text"] in done.err
    reasons = [record["decision"]["reason"] for record in found if record["kind"] == "frame"]
    assert all("< 0.900, not promised" in reason for reason in reasons)
    assert (
        "promised: an error rate below 0.05, the nearest below --max-error 0.07 (there are 0.05), for answers of at least "
        "0.900, which were 50% in calibration"
    ) in done.err


def test_threshold_0_asks_nobody(run: Command, folder: Path) -> None:
    with serving() as endpoint:
        done = run("--source", folder, "--offload", endpoint.url, "--threshold", 0)
        assert endpoint.requests == ["/v2/models/tiny"]  # what the model takes is asked at the start
    assert "offloaded 0: no frame was to be asked about" in done.err
    assert {event["decision"]["action"] for event in events_in(done.out)} == {"accept"}


def test_a_dead_endpoint_is_one_line_and_the_loop_goes_on(run: Command, folder: Path) -> None:
    done = run("--source", folder, "--offload", "http://127.0.0.1:9", "--threshold", 1)
    assert done.code == 0
    assert [event["seq"] for event in events_in(done.out)] == list(range(6))
    assert sum("offload: http://127.0.0.1:9: connection refused" in line for line in done.err.splitlines()) == 1


# what is refused

OFFLOAD = ["--source", "demo", "--offload", "http://127.0.0.1:9"]
USER_ERRORS = [
    ([], 2, "give --camera N or --source URI"),
    (["--source", "demo", "--source", "demo"], 2, "demo is given twice; give each source once"),
    (["--camera", "97"], 2, "/dev/video97 does not exist"),
    (["--camera", "-1"], 2, "--camera"),
    (["--camera", "x"], 2, "--camera"),
    (["--source", "nothing.mp4"], 2, "nothing.mp4: no such file"),
    (["--source", ""], 2, "--source is empty"),
    (["--source", "x" * 300], 2, "no such file"),
    (["--source", "two\nlines.mp4"], 2, "no such file"),
    (["--source", "rtsp:///y"], 2, "names no host"),
    (["--source", "ftp://x/y"], 2, "ftp:// is not known"),
    (["--source", "gst:"], 2, "names no pipeline"),
    (["--source", "picamera:x"], 2, "named by its number"),
    (["--source", "demo", "--size", "big"], 2, "expected WIDTHxHEIGHT"),
    (["--source", "demo", "--pixels", "mjpeg"], 2, "expected four letters"),
    (["--source", "demo", "--mask", "0,0,1"], 2, "region '0,0,1'"),
    (["--source", "demo", "--mask", "2:0,0,1,1"], 2, "there is no source '2', they are numbered from 1 to 1"),
    (["--source", "demo", "--roi", "0,0,1,1", "--roi", "0,0,.5,.5"], 2, "--roi is given 2 times for source 1"),
    (["--source", "demo", "--track"], 2, "--track is for detectors"),
    (["--source", "demo", "--classes", "class 1,clas 2"], 2, "did you mean class 2"),
    (["--source", "demo", "--score-threshold", "much"], 2, "expected a number from 0 to 1, or CLASS=NUMBER"),
    (["--source", "demo", "--webhook", "nowhere"], 2, "--webhook"),
    (["--source", "demo", "--store", "{tmp}"], 2, "--store {tmp}"),
    (["--source", "demo", "--store", "{tmp}/a", "--events", "{tmp}/a"], 2, "give each its own file"),
    (["--source", "{tmp}/empty"], 2, "holds no pictures"),
    (["--source", "{tmp}/text.mp4"], 2, "not a video that can be decoded"),
    (["--source", "{tmp}/text.jpg"], 2, "text.jpg: not a readable picture"),
    (["--source", "{tmp}/cut.jpg"], 2, "cut.jpg: not a readable picture"),
    (["--source", "{tmp}/cut.png"], 2, "cut.png: not a readable picture"),
    (["--source", "demo", "--bad"], 2, "--bad"),
    (["--source", "demo", "stray"], 2, "stray"),
    (["--source"], 2, "--source"),
    (["--source", "demo", "--policy", "magic"], 2, "magic"),
    (["--source", "demo", "--threshold", "1.5"], 2, "--threshold"),
    (["--source", "demo", "--threshold", "nan"], 2, "--threshold"),
    (["--source", "demo", "--offload-budget", "5"], 2, "expected a share as in 5%, or an amount as in 600/h or 20MB/h"),
    (["--source", "demo", "--offload-budget", "0%"], 2, "expected a share"),
    (["--source", "demo", "--offload-budget", "5%"], 2, "--offload-budget does nothing without --offload"),
    ([*OFFLOAD, "--offload-budget", "5%"], 2, "--offload-budget does nothing without --policy budget"),
    ([*OFFLOAD, "--policy", "budget"], 2, "--policy budget needs --offload-budget, as in 5%"),
    ([*OFFLOAD, "--policy", "budget", "--offload-budget", "5%", "--offload-price", "1"], 2, "the budget 5% is not of money"),
    ([*OFFLOAD, "--policy", "guarantee"], 2, "promises nothing frame by frame; build it again with edge-quantize"),
    ([*OFFLOAD, "--policy", "guarantee", "--second-look", "answer"], 2, "leave --second-look out"),
    ([*OFFLOAD, "--policy", "guarantee", "--threshold", "0.3"], 2, "promises are for its own answers; leave --threshold out"),
    ([*OFFLOAD, "--policy", "guarantee", "--classes", "class 1"], 2, "leave --classes out"),
    (["--source", "demo", "--max-error", "0.1"], 2, "--max-error does nothing without --policy guarantee"),
    (["--source", "demo", "--threshold", "0.5"], 2, "--threshold does nothing without --offload; give both or neither"),
    (["--source", "demo", "--policy", "threshold"], 2, "--policy does nothing without --offload"),
    (["--source", "demo", "--refresh", "1"], 2, "--refresh does nothing without --motion-gate"),
    (["--source", "demo", "--rotate-mb", "1"], 2, "--rotate-mb does nothing without --events"),
    (["--source", "demo", "--events", "{tmp}/e", "--keep", "3"], 2, "--keep does nothing without --rotate-mb"),
    (["--source", "demo", "--webhook-on", "all"], 2, "--webhook-on does nothing without --webhook"),
    (["--source", "demo", "--keep-days", "3"], 2, "--keep-days does nothing without --store"),
    (["--source", "demo", "--max-frames", "0"], 2, "--max-frames"),
    (["--source", "demo", "--threads", "0"], 2, "--threads"),
    (["--source", "demo", "--variant", "gold"], 2, "no variant named 'gold'; it has float32, int8-x86"),
    (["--source", "demo", "--events", "{tmp}"], 2, "--events {tmp}: Is a directory; choose"),
    (["--source", "demo", "--events", "{tmp}/no/e"], 2, "No such file or directory"),
    (["--source", "demo", "--video", "{tmp}/a.gif"], 2, "give a name ending in"),
    (["--source", "demo", "--video", "{tmp}/no/a.mp4"], 2, "No such file or directory"),
    (["--source", "demo", "--offload", "nowhere"], 2, "--offload nowhere"),
    (["--source", "demo", "--model", "{tmp}/nothing.edge"], 2, "nothing.edge: no such bundle"),
    (["--source", "demo", "--model", "x" * 300], 2, "no such bundle"),
    (["--source", "demo", "--model", "{tmp}/text.mp4"], 2, "not a bundle"),
    (["--source", "demo", "--model", "{tmp}/empty"], 2, "card.json is missing"),
    (["--source", "demo", "--model", "{tmp}/cut.edge"], 2, "copy it again"),
    (["--source", "demo", "--model", "{tmp}/v9.edge"], 2, "schema version 9"),
    (["--source", "demo", "--model", "{tmp}/field.edge"], 2, "card.json is not a valid card"),
]


@pytest.mark.parametrize(("arguments", "code", "part"), USER_ERRORS)
def test_user_errors(
    command: Command,
    tiny_edge: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    part: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name in ("text.mp4", "text.jpg"):
        (tmp_path / name).write_text("text")
    (tmp_path / "cut.jpg").write_bytes(encoded()[:300])
    (tmp_path / "cut.png").write_bytes(encoded(suffix=".png")[:300])
    (tmp_path / "cut.edge").write_bytes(tiny_edge.read_bytes()[:900])
    good = entries_of(tiny_edge)
    write_entries(tmp_path / "v9.edge", with_card(good, lambda card: card.update(schema_version=9)))
    write_entries(tmp_path / "field.edge", with_card(good, lambda card: card.update({"\x1b[2Jextra\nline": 1})))
    model = [] if "--model" in arguments else ["--model", str(tiny_edge)]
    filled = [argument.replace("{tmp}", str(tmp_path)) for argument in arguments]
    done = command(main, *model, *filled)
    said = done.err.splitlines()
    if said[0].endswith("Ctrl-C ends it") and len(said) == 2:  # found out only when it was running
        done = Finished(done.code, done.out, done.err.split("\n", 1)[1])
    line = done.refused(code)
    assert line.startswith("edge-run: ")
    assert line.isprintable()
    assert part.replace("{tmp}", str(tmp_path)) in line


def test_a_bundle_that_no_variant_of_can_run(command: Command, tiny_edge: Path, tmp_path: Path) -> None:
    entries = entries_of(tiny_edge) | {"int8-x86.onnx": b"x", "float32.onnx": b"x"}
    done = command(main, "--source", "demo", "--model", write_entries(tmp_path / "x.edge", entries))
    assert (done.code, done.out) == (2, "")
    lines = done.err.splitlines()
    assert len(lines) == 3  # two passed over, and the end
    assert "no variant can run here" in lines[-1]
    done = command(main, "--source", "demo", "--variant", "float32", "--model", tmp_path / "x.edge")
    assert "float32.onnx differs from its card" in done.refused(2)


@pytest.mark.parametrize("option", ["--events", "--video", "--summary"])
def test_the_input_is_not_written_over(run: Command, tmp_path: Path, option: str) -> None:
    path = video(tmp_path / "a.avi", frames=3)
    kept = path.read_bytes()
    (tmp_path / "link.avi").symlink_to(path)
    for target in (path, tmp_path / "link.avi", f"{tmp_path}/../{tmp_path.name}/a.avi"):
        run("--source", path, option, target).refused(2)
        run("--source", f"file://{path}", option, target).refused(2)
    assert path.read_bytes() == kept


def test_a_summary_that_cannot_be_written(run: Command, folder: Path, tmp_path: Path) -> None:
    done = run("--source", folder, "--summary", tmp_path / "no" / "s.json")
    assert "--summary" in done.refused(2)  # before anything is done


def test_a_full_disk(run: Command, folder: Path) -> None:
    done = run("--source", folder, "--events", "/dev/full")
    assert done.code == 1
    assert done.out == ""
    lines = done.err.splitlines()
    assert sum("events: /dev/full: No space left on device" in line for line in lines) == 1
    assert "6 events or video frames could not be written and are lost" in lines[-1]
    assert "6 frames" in done.err


@pytest.mark.parametrize("text", ["\x1b[2J\x1b]0;owned\x07", "two\nlines\r\n", "\u202egnp.exe", "tab\there"])
def test_what_others_wrote_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str], text: str) -> None:
    speaker("edge-run")(f"offload: {text}")
    said = capsys.readouterr().err
    assert said.endswith("\n")
    assert said[:-1].isprintable()


def test_help(command: Command) -> None:
    for option in ("--help", "-h"):
        done = command(main, option)
        assert (done.code, done.err) == (0, "")
        for word in ("--camera", "--source", "--model", "--events", "--offload", "--max-frames", "Ctrl-C"):
            assert word in done.out
    done = command(main, "--version")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("edge-run")


# in a process of its own


def started(*arguments: object, **more: Any) -> subprocess.Popen[str]:
    given = [sys.executable, "-m", "edge.commands.run", *map(str, arguments)]
    return subprocess.Popen(given, **({"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | more))


@pytest.fixture
def reaped() -> Iterator[list[subprocess.Popen[str]]]:
    """Whatever is put here is gone in the end."""
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals(tiny_edge: Path, tmp_path: Path, number: signal.Signals, reaped: list[subprocess.Popen[str]]) -> None:
    events, summary = tmp_path / "e.jsonl", tmp_path / "s.json"
    process = started("--model", tiny_edge, "--source", "demo", "--events", events, "--summary", summary)
    reaped.append(process)
    assert until(lambda: events.exists() and events.read_bytes().count(b"\n") >= 3)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, ""), err
    found = events_in(events.read_text())
    assert [event["seq"] for event in found] == list(range(len(found)))
    assert json.loads(summary.read_text())["frames"] == len(found)
    assert number.name in err
    assert number.name in json.loads(summary.read_text())["ended"]
    assert f"{len(found)} frames in" in err
    assert "Traceback" not in err


def test_a_signal_that_comes_twice_is_one(tiny_edge: Path, tmp_path: Path, reaped: list[subprocess.Popen[str]]) -> None:
    """timeout(1) sends it to the process and to its group."""
    events = tmp_path / "e.jsonl"
    process = started("--model", tiny_edge, "--source", "demo", "--events", events)
    reaped.append(process)
    assert until(lambda: events.exists() and events.read_bytes().count(b"\n") >= 3)
    process.send_signal(signal.SIGINT)
    time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert "frames in" in err


def test_a_second_signal_ends_what_does_not_end(tiny_edge: Path, tmp_path: Path, reaped: list[subprocess.Popen[str]]) -> None:
    """An endpoint that hangs holds the end up for two seconds: who does not want to wait asks again."""
    from tests.endpoint import hangs

    with serving(hangs) as endpoint:
        events = tmp_path / "e.jsonl"
        process = started(
            "--model", tiny_edge, "--source", "demo", "--events", events, "--offload", endpoint.url, "--threshold", 1
        )
        reaped.append(process)
        assert until(lambda: len(endpoint.requests) == 2)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.7)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        assert process.returncode in (0, -signal.SIGTERM)
        events_in(events.read_text())
        endpoint.released.set()


def test_head_may_leave(tiny_edge: Path, reaped: list[subprocess.Popen[str]]) -> None:
    process = started("--model", tiny_edge, "--source", "demo")
    reaped.append(process)
    assert process.stdout is not None
    assert process.stderr is not None
    assert [json.loads(process.stdout.readline())["seq"] for _ in range(2)] == [0, 1]
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(30) == 0
    assert "Traceback" not in err
    assert "Exception ignored" not in err
    assert "the reader of standard output went away" in err


@pytest.mark.parametrize(
    ("shell", "code", "lines"),
    [
        ("{run} --events {tmp}/e --summary - > /dev/full", 1, "--summary -: No space left"),
        ("{run} > /dev/full", 1, "No space left"),
        ("{run} --events {tmp}/e >&-", 0, ""),
        ("{run} >&-", 0, ""),
        ("{run} --events - >&-", 2, "--events"),
        ("{run} --events {tmp}/e 2>&-", 0, ""),
        ("{run} --events {tmp}/e --summary - | head -n 1; exit ${{PIPESTATUS[0]}}", 0, ""),
        ("{run} 2>&1 | head -n 1; exit ${{PIPESTATUS[0]}}", 0, ""),
        ("{run} --help > /dev/full", 1, ""),
    ],
)
def test_odd_standard_streams(tiny_edge: Path, folder: Path, tmp_path: Path, shell: str, code: int, lines: str) -> None:
    run = f"{sys.executable} -m edge.commands.run --model {tiny_edge} --source {folder}"
    line = shell.format(run=run, tmp=tmp_path)
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr, done.stderr
    assert "Exception ignored" not in done.stderr, done.stderr
    assert done.returncode == code, done
    assert lines in done.stderr
    if "{tmp}/e" in shell and "summary" not in shell:
        assert len(events_in((tmp_path / "e").read_text())) == 6


def test_the_console_script(tiny_edge: Path, folder: Path) -> None:
    script = Path(sys.executable).with_name("edge-run")
    if not script.exists():
        pytest.skip("the project is not installed beside this interpreter")
    done = subprocess.run([script, "--model", tiny_edge, "--source", folder], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert len(events_in(done.stdout)) == 6


def test_names_that_are_not_utf_8(tiny_edge: Path, folder: Path, tmp_path: Path) -> None:
    strange = os.path.join(os.fsencode(tmp_path), b"caf\xe9")
    os.rename(folder, strange)
    os.rename(os.path.join(strange, b"0.png"), os.path.join(strange, b"\xff.png"))
    process = started(
        "--model", tiny_edge, "--source", os.fsdecode(strange), "--summary", tmp_path / "s.json", "--video", tmp_path / "o.mp4"
    )
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert len(events_in(out)) == 6
    assert json.loads((tmp_path / "s.json").read_text())["frames"] == 6


# a detector


def test_a_detector(command: Command, tiny_detector: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number, shown in enumerate(([("red", 1, 2)], [], [("blue", 0, 0), ("green", 3, 3)])):
        (tmp_path / "in" / f"{number}.png").write_bytes(encoded(squares(*shown), ".png"))
    done = command(main, "--model", tiny_detector, "--source", tmp_path / "in", "--video", tmp_path / "v.avi")
    assert done.code == 0, done.err
    found = events_in(done.out)
    assert [[item["label"] for item in event["result"]["objects"]] for event in found] == [["red"], [], ["blue", "green"]]
    assert found[0]["result"]["objects"] == [{"label": "red", "score": 1.0, "box_xyxy": [8.0, 16.0, 16.0, 24.0], "track": None}]
    assert [event["decision"]["confidence"] for event in found] == [1.0, 1.0, 1.0]


def test_a_score_threshold(command: Command, tiny_detector: Path, run: Command, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(squares(("red", 1, 2), level=100), ".png"))
    counts = []
    for flags in ([], ["--score-threshold", "0.1"]):
        done = command(main, "--model", tiny_detector, "--source", tmp_path / "a.png", *flags)
        counts += [len(event["result"]["objects"]) for event in events_in(done.out)]
    assert counts == [0, 1]
    line = run("--source", tmp_path / "a.png", "--score-threshold", "0.1").refused(2)
    assert "--score-threshold is for detectors, tiny is none" in line
    assert "nan" in run("--source", tmp_path / "a.png", "--score-threshold", "nan").refused(2)


@pytest.mark.parametrize("flag", ["--rotate-mb", "--keep-days", "--rate", "--engine-timeout", "--refresh", "--threshold"])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_numbers_that_are_none(command: Command, flag: str, value: str) -> None:
    assert flag in command(main, "--source", "demo", flag, value).refused(2)
