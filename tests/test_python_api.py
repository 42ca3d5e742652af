"""The Python API: stable names, the same options as the command, and a loop that ends when it should."""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest

import edge
from edge.capture.forkserver import FORK_SERVER
from edge.commands.option_values import class_names
from edge.commands.options import RunOptions
from edge.commands.run_session import _gate
from edge.keywords import UNFIT, RunKeywords, options_of
from edge.sources.base import BaseSource
from edge.types import Geometry, Tensor
from tests.samples import encoded, frame, picture, plain, squares, video

NAMES = [
    "BundleError",
    "CaptureError",
    "Change",
    "Classes",
    "Decision",
    "Detections",
    "EdgeError",
    "EngineError",
    "Event",
    "Frame",
    "InputError",
    "Mask",
    "Notice",
    "OffloadError",
    "Opinion",
    "Predictor",
    "Run",
    "SourceError",
    "Timings",
    "UsageError",
    "__version__",
    "load",
    "run",
]


def test_the_names_are_stable() -> None:
    """An interface: a name is added here on purpose, and none is taken away before the next major version."""
    assert edge.__all__ == NAMES
    assert set(NAMES) <= set(dir(edge))
    for name in NAMES:
        assert getattr(edge, name) is getattr(edge, name)


def test_what_is_not_there_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'walk'"):
        edge.walk  # noqa: B018


def test_star_brings_exactly_the_names() -> None:
    space: dict[str, Any] = {}
    exec("from edge import *", space)
    assert sorted(set(space) - {"__builtins__"}) == NAMES


def test_a_type_is_loaded_without_the_loop() -> None:
    code = "import sys, edge; edge.Event; print('edge.loop' in sys.modules, 'edge.types' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False True\n"


def test_events_of_a_video(tmp_path: Path, tiny_edge: Path) -> None:
    clip = video(tmp_path / "clip.avi", frames=5)
    found = list(edge.run(clip, tiny_edge))
    assert [event.frame.sequence for event in found] == [0, 1, 2, 3, 4]
    assert all(isinstance(event, edge.Event) and isinstance(event.result, edge.Classes) for event in found)
    assert found[0].frame.image.shape == (48, 64, 3)


def test_arrays_are_a_source(tiny_edge: Path) -> None:
    pictures = [picture(seed=number) for number in range(3)]
    found = list(edge.run(iter(pictures), tiny_edge))
    assert [event.frame.image is given for event, given in zip(found, pictures, strict=True)] == [True] * 3
    assert len(list(edge.run(pictures, tiny_edge))) == 3


def test_a_source_of_one_s_own_beside_a_file(tmp_path: Path, tiny_edge: Path) -> None:
    class Mine(BaseSource):
        def frames(self) -> Iterator[edge.Frame]:
            yield frame(plain(100), source="mine")

    clip = video(tmp_path / "clip.avi", frames=2)
    found = list(edge.run([clip, Mine("mine")], tiny_edge))
    assert sorted(event.frame.source for event in found) == sorted([str(clip), str(clip), "mine"])


def test_it_writes_what_it_is_asked_to_and_nothing_else(
    tmp_path: Path, tiny_edge: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "events.jsonl"
    list(edge.run([picture()], tiny_edge, events=str(path)))
    assert [json.loads(line)["kind"] for line in path.read_text().splitlines()] == ["frame"]
    assert capfd.readouterr() == ("", "")
    list(edge.run([picture()], tiny_edge))
    assert capfd.readouterr() == ("", "")


def test_a_terminal_is_the_program_s_own(tiny_edge: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.sinks.status.status_stream", lambda to_stdout: pytest.fail("a status line"))
    list(edge.run([picture()], tiny_edge))


def test_stopping_from_another_thread(tiny_edge: Path) -> None:
    def forever() -> Iterator[Any]:
        while True:
            yield picture()

    loop = edge.run(forever(), tiny_edge)
    threading.Timer(0.2, loop.stop).start()
    assert sum(1 for _ in loop) > 0
    assert loop.summary.frames > 0
    assert loop.summary.ended == "stopped"


def test_closing_while_another_thread_iterates(tiny_edge: Path) -> None:
    """The engine and the sources are let go when the thread is between two events, not under it."""

    def forever() -> Iterator[Any]:
        while True:
            yield picture()

    loop = edge.run(forever(), tiny_edge)
    begun, found = threading.Event(), list[edge.Event]()

    def iterate() -> None:
        for event in loop:
            found.append(event)
            begun.set()

    thread = threading.Thread(target=iterate)
    thread.start()
    assert begun.wait(10)
    loop.controls.pause(True, "me")  # it waits for a frame that does not come
    loop.close()
    assert loop.summary.ended == "closed"  # when it returns, not soon after
    thread.join(10)
    assert not thread.is_alive()
    assert loop.summary.frames >= len(found) > 0


def test_closing_from_a_signal_handler_within_the_iteration(tiny_edge: Path) -> None:
    def pictures() -> Iterator[Any]:
        yield picture()
        os.kill(os.getpid(), signal.SIGUSR1)
        while True:
            yield picture()

    before = signal.signal(signal.SIGUSR1, lambda *_: loop.close())
    try:
        loop = edge.run(pictures(), tiny_edge)
        for _ in loop:
            pass
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert loop.summary.ended == "closed"


def test_what_ended_it_is_said_as_edge_run_says_it(tiny_edge: Path) -> None:
    for limit, said in ((2, "--max-frames reached"), (None, "the source ended")):
        loop = edge.run([picture()] * 3, tiny_edge, max_frames=limit)  # type: ignore[call-overload]
        assert sum(1 for _ in loop) == (limit or 3)
        assert loop.summary.ended == said


def test_a_closed_loop_holds_no_file(tmp_path: Path, tiny_edge: Path) -> None:
    bundle = tmp_path / "tiny.edge"
    bundle.write_bytes(tiny_edge.read_bytes())
    gc.disable()  # nothing may wait for it
    try:
        with edge.run([picture()], bundle) as loop:
            next(loop)
        del loop
        held = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
    finally:
        gc.enable()
    assert str(bundle) not in held


def test_two_loops_share_what_forks_readers(tiny_edge: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its end is the end of all cameras of the process."""
    done = []
    monkeypatch.setattr(FORK_SERVER, "start", lambda: done.append("start"))
    monkeypatch.setattr(FORK_SERVER, "close", lambda: done.append("close"))
    with edge.run([picture()], tiny_edge), edge.run([picture()], tiny_edge) as second:
        second.close()
        assert done == []
    assert done == ["close"]


def test_a_live_source_of_one_s_own_needs_no_reader(tiny_edge: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(BaseSource):
        live = True

        def frames(self) -> Iterator[edge.Frame]:
            yield frame(plain(100), source="mine")

    monkeypatch.setattr(FORK_SERVER, "start", lambda: pytest.fail("started"))
    assert len(list(edge.run(Mine("mine"), tiny_edge))) == 1


def test_a_frame_that_names_another_source(tiny_edge: Path) -> None:
    class Mine(BaseSource):
        def frames(self) -> Iterator[edge.Frame]:
            yield frame(plain(100), source="yours")

    with pytest.raises(edge.CaptureError, match="a frame of 'yours': no Source here has that name"):
        list(edge.run(Mine("mine"), tiny_edge))


def test_a_mask_leaves_the_program_s_own_picture_alone(tiny_edge: Path) -> None:
    given = plain(100)
    given.flags.writeable = False
    [event] = edge.run([given], tiny_edge, mask="0,0,1,0.5")
    assert not event.frame.image[:16].any()
    assert (given == 100).all()


def test_a_break_lets_everything_go(tiny_edge: Path) -> None:
    closed = []

    class Mine(BaseSource):
        live = False

        def frames(self) -> Iterator[edge.Frame]:
            for number in range(100):
                yield frame(plain(100), number, source="mine")

        def close(self) -> None:
            closed.append(True)

    for event in edge.run(Mine("mine"), tiny_edge):
        if event.frame.sequence == 2:
            break
    gc.collect()
    assert closed


def test_a_with_block_closes_it(tiny_edge: Path) -> None:
    with edge.run([picture()] * 50, tiny_edge) as loop:
        next(loop)
    assert loop.summary.ended == "closed"
    loop.close()
    assert list(loop) == []


def test_controls_and_status(tiny_edge: Path) -> None:
    with edge.run([picture()] * 3, tiny_edge, notices=True) as loop:
        loop.controls.pause(True, "me")
        loop.controls.pause(False, "me")
        found = list(loop)
        texts = [item.text for item in found if isinstance(item, edge.Notice)]
    assert texts == ["paused", "goes on"]
    assert loop.status().sources[0].frames == 3
    assert loop.model.name == "tiny"


def test_frames_let_go_while_paused_are_counted_as_such(tiny_edge: Path) -> None:
    class Mine(BaseSource):
        live = True

        def frames(self) -> Iterator[edge.Frame]:
            loop.controls.pause(True, "me")
            for number in range(4):
                yield frame(plain(100), number, source="mine")

    loop = edge.run(Mine("mine"), tiny_edge)
    assert list(loop) == []
    assert loop.summary.paced == loop.summary.sources[0].paced == loop.status().sources[0].paced == 4


@pytest.mark.parametrize(("options", "enabled"), [({}, None), ({"motion_gate": True}, True), ({"web": 0}, False)])
def test_a_motion_gate_that_only_waits_to_be_switched_on_is_off(options: dict[str, Any], enabled: bool | None) -> None:
    gate = _gate(options_of({"source": ["demo"], **options}))
    assert (None if gate is None else gate.enabled) is enabled


def test_without_notices_there_are_only_events(tiny_edge: Path) -> None:
    with edge.run([picture()] * 3, tiny_edge) as loop:
        loop.controls.pause(True, "me")
        loop.controls.pause(False, "me")
        assert {type(item) for item in loop} == {edge.Event}


# what cannot be


def test_a_sink_that_cannot_open_closes_those_before_it(tmp_path: Path, tiny_edge: Path) -> None:
    events = tmp_path / "events.jsonl"
    before = set(threading.enumerate())
    with pytest.raises(edge.EdgeError, match=f"--store {tmp_path}: "):
        edge.run([picture()], tiny_edge, events=str(events), store=str(tmp_path))
    assert events.exists()
    assert [thread.name for thread in set(threading.enumerate()) - before if "sink" in thread.name] == []


def test_errors_come_at_once(tmp_path: Path, tiny_edge: Path) -> None:
    with pytest.raises(edge.SourceError, match=r"none\.mp4: no such file"):
        edge.run(tmp_path / "none.mp4", tiny_edge)
    with pytest.raises(edge.BundleError, match="garden"):
        edge.run("demo", tmp_path / "garden.edge")
    with pytest.raises(edge.UsageError, match=r"edge\.run: target_fps: 'fast': expected a number"):
        edge.run("demo", tiny_edge, target_fps="fast")  # type: ignore[call-overload]
    for wrong in ([1], object()):
        with pytest.raises(edge.UsageError, match=r"edge\.run: target_fps: .*: expected a number"):
            edge.run("demo", tiny_edge, target_fps=wrong)  # type: ignore[call-overload]
    for size in ((640,), ("a", 2), (-1, 2)):
        with pytest.raises(edge.UsageError, match=r"edge\.run: size: .*: expected WIDTHxHEIGHT"):
            edge.run("demo", tiny_edge, size=size)  # type: ignore[call-overload]
    with pytest.raises(edge.UsageError, match="--threshold does nothing without --offload"):
        edge.run("demo", tiny_edge, threshold=0.5)
    with pytest.raises(edge.UsageError, match="a source cannot be a float"):
        edge.run(0.5, tiny_edge)  # type: ignore[call-overload]


def pictures() -> Iterator[Any]:
    yield picture()


NO_SOURCE = [
    (picture(), "an array of uint8 [48, 64, 3]; give a list of pictures, as [picture], or call edge.load() for a single one"),
    (pictures, "pictures itself; give what it returns, as pictures()"),
    ([pictures], "pictures itself; give what it returns, as pictures()"),
    (0.5, "a float; give a URI, a camera's number or a Source"),
]


@pytest.mark.parametrize(("source", "line"), NO_SOURCE, ids=["array", "function", "functions", "number"])
def test_what_is_no_source_is_told_with_what_to_give(source: Any, line: str, tiny_edge: Path) -> None:
    with pytest.raises(edge.UsageError) as caught:
        edge.run(source, tiny_edge)
    assert str(caught.value) == f"edge.run: a source cannot be {line}"


REGION = "region '0,0,1': only 3 numbers; expected x,y of at least two points"
NO_VALUE = [
    ({"max_frames": "x"}, "max_frames: 'x': expected a whole number"),
    ({"max_frames": 2.5}, "max_frames: 2.5: expected a whole number"),
    ({"threads": "x"}, "threads: 'x': expected a whole number"),
    ({"lanes": True}, "lanes: True: expected a whole number"),
    ({"mask": [(0, 0), (1, 1)]}, "mask: (0, 0): expected text, as mask='0.1,0.5,0.9,1'"),
    ({"roi": [[0, 0]]}, "roi: [0, 0]: expected text, as roi='0.1,0.5,0.9,1'"),
    ({"mask": "0,0,1"}, f"mask: {REGION}"),
    ({"score_threshold": {"a": 0.5}}, "score_threshold: {'a': 0.5}: expected text, as score_threshold='person=0.6'"),
    ({"events": True}, "events: True: expected text"),
    ({"variant": ["a"]}, "variant: ['a']: expected text"),
    ({"classes": [1]}, "classes: 1: expected names of classes, none with a comma"),
    ({"classes": ["a,b"]}, "classes: 'a,b': expected names of classes, none with a comma"),
    ({"webhook": "ftp://x"}, "webhook: ftp://x: expected http://HOST:PORT/PATH"),
    ({"web": 99999}, "web: 99999: expected PORT or HOST:PORT"),
]


@pytest.mark.parametrize(("options", "line"), NO_VALUE, ids=[line for _, line in NO_VALUE])
def test_a_value_that_cannot_be(options: dict[str, Any], line: str, tiny_edge: Path) -> None:
    with pytest.raises(edge.UsageError, match=re.escape(f"edge.run: {line}")):
        edge.run("demo", tiny_edge, **options)


def test_what_a_program_s_own_pictures_raise_is_told(tiny_edge: Path) -> None:
    mine = ValueError("my camera broke")

    def broken() -> Iterator[Any]:
        yield picture()
        raise mine

    loop = edge.run(broken(), tiny_edge)
    next(loop)
    with pytest.raises(edge.CaptureError, match="arrays: your pictures raised ValueError: my camera broke") as caught:
        next(loop)
    assert caught.value.__cause__ is mine


def test_classes_may_be_a_list(tiny_edge: Path) -> None:
    for classes in (["class 1", "class 2"], ("class 1", "class 2"), "class 1,class 2"):
        assert class_names(options_of({"source": ["demo"], "classes": classes}).classes) == {"class 1", "class 2"}
    assert options_of({"source": ["demo"], "offload": "http://h", "redact": ["a", "b"]}).redact == "a,b"
    with pytest.raises(edge.UsageError, match="class 'clas 3'"):
        edge.run("demo", tiny_edge, classes=["class 1", "clas 3"])


def test_the_packaged_model_is_told_to_be_no_detector() -> None:
    said = "(without --model an ImageNet classifier with 1000 classes runs; a detector is given with --model BUNDLE)"
    for options in ({"classes": "person"}, {"track": True}):
        with pytest.raises(edge.UsageError, match=re.escape(said)):
            edge.run("demo", **options)  # type: ignore[call-overload]


def test_of_another_model_that_is_not_said(tiny_edge: Path) -> None:
    with pytest.raises(edge.UsageError, match=r"leave it out$"):
        edge.run("demo", tiny_edge, track=True)


def test_sources_of_one_s_own_count_for_masks(tiny_edge: Path) -> None:
    class Mine(BaseSource):
        def frames(self) -> Iterator[edge.Frame]:
            yield frame(plain(100), source="mine")

    with edge.run(["demo", Mine("mine")], tiny_edge, mask="2:0,0,1,1") as loop:
        assert next(event for event in loop if event.frame.source == "mine").frame.image.any() is np.False_
    with pytest.raises(edge.UsageError, match="there is no source '3', they are numbered from 1 to 2"):
        edge.run(["demo", Mine("mine")], tiny_edge, mask="3:0,0,1,1")


def test_an_event_is_printed_without_its_picture(tiny_edge: Path) -> None:
    event = next(edge.run([picture()], tiny_edge))
    assert repr(event.frame).startswith("Frame(image=uint8 [48, 64, 3], sequence=0, captured_s=")
    assert set(re.findall(r"(\w+)=", repr(event.frame))) == set(edge.Frame.__dataclass_fields__)
    assert repr(event.frame) in repr(event)
    tensor = Tensor(np.zeros((1, 2, 3, 3), np.uint8), Geometry((1, 1), (0, 0), (3, 2)))
    assert repr(tensor) == f"Tensor(data=uint8 [1, 2, 3, 3], geometry={tensor.geometry})"


@pytest.mark.parametrize(
    ("name", "hint"), [("tracks", "; did you mean track?"), ("xyzzy", ""), ("camera", "; did you mean camera_timeout?")]
)
def test_an_unknown_keyword_is_a_type_error(name: str, hint: str, tiny_edge: Path) -> None:
    with pytest.raises(TypeError) as caught:
        edge.run("demo", tiny_edge, **{name: True})  # type: ignore[call-overload]
    assert str(caught.value) == f"edge.run() got an unexpected keyword argument {name!r}{hint}"


@pytest.mark.parametrize(
    "given", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8), "text", None], ids=str
)
def test_what_is_no_picture_ends_it(given: Any, tiny_edge: Path) -> None:
    loop = edge.run(iter([picture(), given]), tiny_edge)
    assert next(loop).frame.sequence == 0
    with pytest.raises(edge.CaptureError, match="arrays: picture 1 is "):
        list(loop)


# options


def test_every_option_is_a_keyword() -> None:
    expected = {name.removesuffix("_path") for name in set(RunOptions.__dataclass_fields__) - UNFIT} - {"model"}
    assert set(RunKeywords.__annotations__) == expected
    assert get_type_hints(RunKeywords)


def test_keywords_mean_what_the_options_mean() -> None:
    options = options_of(
        {
            "source": ["demo"],
            "size": (640, 480),
            "roi": "0,0,1,1",
            "offload": "http://h",
            "policy": "budget",
            "offload_budget": "5%",
        }
    )
    assert (options.source, options.size, options.roi) == (("demo",), (640, 480), ("0,0,1,1",))
    assert options.offload_budget is not None
    assert options.offload_budget.per_frame == 0.05
    assert options_of({"source": ["demo"], "size": "640x480"}).size == (640, 480)


# single pictures


def test_a_single_picture(tiny_edge: Path) -> None:
    with edge.load(tiny_edge) as find:
        result = find(picture())
        looped = next(edge.run([picture()], tiny_edge)).result
        assert isinstance(result, edge.Classes)
        assert isinstance(looped, edge.Classes)
        assert result.labels == looped.labels
        np.testing.assert_array_equal(result.scores, looped.scores)
        with pytest.raises(edge.InputError, match=r"the picture is float64 \[2, 2, 3\]; give BGR uint8"):
            find(np.zeros((2, 2, 3)))  # type: ignore[arg-type]
        with pytest.raises(edge.InputError, match="the picture is a str; give BGR uint8"):
            find("photo.jpg")  # type: ignore[arg-type]


def test_a_variant_that_is_not_there(tiny_edge: Path) -> None:
    with pytest.raises(edge.EdgeError, match="int9"):
        edge.load(tiny_edge, variant="int9")


# the page

PAGE = Path(__file__).parents[1] / "docs" / "python.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[-1].strip()[:40])
def test_the_blocks_of_the_page_run(block: str, tmp_path: Path, tiny_detector: Path) -> None:
    (tmp_path / "garden.edge").symlink_to(tiny_detector)
    (tmp_path / "garden").mkdir()
    for number in range(4):
        (tmp_path / "garden" / f"{number}.png").write_bytes(encoded(squares(("red", 1, 2)), ".png"))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block], capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
    if "track=True" in block:
        assert {"red 0: 100%, 8 pixels wide at 8, 16", "red 1: 100%, 8 pixels wide at 8, 16", "enter red 1"} <= set(
            done.stdout.splitlines()
        )


@pytest.mark.parametrize("kind", [edge.Classes, edge.Detections, edge.Mask])
def test_the_page_tells_every_field_of_a_result(kind: type) -> None:
    [table] = re.findall(rf"\| `edge\.{kind.__name__}` \|(.*?)\n\n", PAGE.read_text(), re.DOTALL)
    told = set(re.findall(r"^\| `(\w+)(?:\(\))?` \|", table, re.MULTILINE))
    assert set(kind.__dataclass_fields__) <= told  # type: ignore[attr-defined]
    assert told <= set(dir(kind))
