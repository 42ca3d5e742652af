"""An event as a line of JSON."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import datetime
from typing import Any

import jsonschema
import numpy as np
import pytest

from edge.events import encode_event, event_record, event_schema
from edge.types import Change, Detections, Notice, Opinion, Timings
from tests.samples import detections, event, frame

VALIDATOR = jsonschema.Draft202012Validator(event_schema())


def line(of: Any) -> dict[str, Any]:
    raw = encode_event(of)
    assert raw.endswith(b"\n")
    assert raw.count(b"\n") == 1
    record: dict[str, Any] = json.loads(raw)
    VALIDATOR.validate(record)
    return record


def test_every_field() -> None:
    of = event(
        frame(sequence=7, captured_s=50.0, source="camera:0", name="a.jpg"),
        action="offload",
        emitted_s=50.25,
        timings=Timings(1.00049, 2.5, 3.0, 0.25),
    )
    record = line(of)
    captured_at = record.pop("captured_at")
    assert record == {
        "kind": "frame",
        "seq": 7,
        "source": "camera:0",
        "file": "a.jpg",
        "age_ms": 250.0,
        "model": "tiny",
        "variant": "float32",
        "served_by": "local",
        "decision": {"action": "offload", "reason": "because", "confidence": 0.75},
        "result": {"classes": [{"label": "class 0", "score": 0.75}, {"label": "class 1", "score": 0.125}]},
        "timings_ms": {"capture": 1.0, "prepare": 2.5, "infer": 3.0, "decode": 0.25},
        "revises": False,
        "changes": [],
    }
    assert captured_at.endswith("Z")


def test_a_notice_is_a_line_of_its_own_kind() -> None:
    notice = Notice("source-lost", "camera:0", "stopped delivering; trying again", 1.7e9)
    assert json.loads(encode_event(notice)) == {
        "kind": "notice",
        "notice": "source-lost",
        "about": "camera:0",
        "at": "2023-11-14T22:13:20.000Z",
        "text": "stopped delivering; trying again",
    }


def test_tracks_and_what_became_of_them() -> None:
    boxes = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.float32)
    tracked = Detections(boxes, np.array([0.5, 0.25], np.float32), np.array([0, 0]), ("cat", "cat"), np.array([7, 0]))
    record = line(replace(event(), result=tracked, changes=(Change("enter", 7, "cat"),)))
    assert [one["track"] for one in record["result"]["objects"]] == [7, None]
    assert record["changes"] == [{"kind": "enter", "track": 7, "label": "cat"}]


def test_what_the_cloud_has_answered_about_a_track() -> None:
    found = detections(("cat", 0.5, (1, 2, 3, 4)), ("cat", 0.25, (5, 6, 7, 8)), ("cat", 0.125, (5, 6, 7, 9)))
    tracked = replace(found, tracks=np.array([7, 8, 0]))
    record = line(replace(event(), result=tracked, opinions={7: Opinion("fox", 2 / 3), 9: Opinion("hen", 1.0)}))
    first, *others = record["result"]["objects"]
    assert (first["label"], first["score"], first["cloud"]) == ("cat", 0.5, {"label": "fox", "score": 0.666667})
    assert not any("cloud" in other for other in others)


@pytest.mark.parametrize(
    ("captured", "written"),
    [
        ("2026-02-28T23:59:59.250+00:00", "2026-02-28T23:59:59.250Z"),
        ("2025-12-31T23:59:59.9+00:00", "2025-12-31T23:59:59.900Z"),
        ("2024-02-29T13:00:00+01:00", "2024-02-29T12:00:00.000Z"),
    ],
)
def test_captured_at_is_utc_in_milliseconds(captured: str, written: str) -> None:
    assert event_record(event(captured_at_s=datetime.fromisoformat(captured).timestamp())).captured_at == written


def test_a_revision() -> None:
    of = frame(sequence=3)
    local, cloud = line(event(of, action="offload")), line(event(of, revises=True, served_by="cloud", variant="", model="big"))
    assert local["seq"] == cloud["seq"] == 3
    assert (local["revises"], cloud["revises"]) == (False, True)
    assert (cloud["served_by"], cloud["model"], cloud["variant"]) == ("cloud", "big", "")


@pytest.mark.parametrize(
    "name", ["käse 猫.jpg", 'quo"te\\.jpg', "two\nlines.jpg", "\x1b[2J.jpg", os.fsdecode(b"caf\xe9.jpg"), None]
)
def test_names_of_any_kind(name: str | None) -> None:
    record = line(event(frame(name=name, source=f"/data/{name}")))
    if name is None or name.isascii() or name.startswith("k"):
        assert record["file"] == name
    else:
        assert record["file"].startswith("caf")
    assert record["source"].startswith("/data/")


def test_no_classes() -> None:
    assert line(event(scores=()))["result"] == {"classes": []}


def test_objects() -> None:
    of = replace(event(), result=detections(("cat", 0.75, (1, 2, 3.456, 4)), ("dog", 1 / 3, (0, 0, 1, 1))))
    assert line(of)["result"] == {
        "objects": [
            {"label": "cat", "score": 0.75, "box_xyxy": [1.0, 2.0, 3.46, 4.0], "track": None},
            {"label": "dog", "score": 0.333333, "box_xyxy": [0.0, 0.0, 1.0, 1.0], "track": None},
        ]
    }
    assert line(replace(event(), result=detections()))["result"] == {"objects": []}


@pytest.mark.parametrize(
    "change",
    [
        {"result": {}},
        {"result": {"classes": [], "objects": []}},
        {"result": {"objects": [{"label": "a", "score": 1, "box_xyxy": [1, 2, 3], "track": None}]}},
        {"result": {"objects": [{"label": "a", "score": 1, "box_xyxy": [1, 2, 3, 4]}]}},
        {"seq": "1"},
        {"seq": 1.5},
        {"revises": None},
        {"served_by": "fog"},
        {"decision": {"action": "accept", "reason": "r"}},
        {"decision": {"action": "retry", "reason": "r", "confidence": 1}},
        {"result": {"classes": [{"label": "a"}]}},
        {"extra": 1},
        {"captured_at": 5},
        {"file": 5},
    ],
)
def test_the_schema_refuses(change: dict[str, Any]) -> None:
    record = line(event())
    assert not VALIDATOR.is_valid(record | change)


def test_the_schema_asks_for_every_field() -> None:
    record = line(event())
    VALIDATOR.check_schema(event_schema())
    for name in record:
        assert not VALIDATOR.is_valid({key: value for key, value in record.items() if key != name})


def test_scores_are_rounded_not_lost() -> None:
    record = line(event(scores=(1 / 3, 1e-9)))
    assert [found["score"] for found in record["result"]["classes"]] == pytest.approx([1 / 3, 0], abs=1e-6)
    assert all(isinstance(found["score"], (int, float)) for found in record["result"]["classes"])
    assert np.isfinite(record["age_ms"])
