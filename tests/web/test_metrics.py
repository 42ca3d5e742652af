"""What Prometheus is told: the names that others rely on, the counts, and that no name or scrape can break them."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from devices import Reading
from edge.events import utf8
from edge.monitor import Monitor
from edge.offload.breaker import State
from edge.sources import open_source
from edge.types import Notice, Timings
from edge.web.metric_families import FAMILIES
from edge.web.metrics import BREAKER_STATES, exposition
from tests.web.monitored import Endpoint, everything, monitored, seen, take

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "metrics.md"
DASHBOARD, ALERTS, CONFIG = DOCS / "grafana/edge-run.json", DOCS / "prometheus/alerts.yml", DOCS / "prometheus/prometheus.yml"
OPENMETRICS = "application/openmetrics-text;version=1.0.0"
SUFFIXES = {"counter": [""], "gauge": [""], "info": [""], "histogram": ["", "_bucket", "_sum", "_count"]}
ODD = st.text(st.sampled_from('"\\\n\r\t{},=#é\u2028\x85\x1c\udc80\udcff') | st.characters(), min_size=1, max_size=20)
GOLDEN = """
edge_build_info gauge version
edge_board_info gauge board
edge_model_info gauge engine,model,variant
edge_engine_threads gauge
edge_frames_total counter source
edge_frames_dropped_total counter source
edge_frames_skipped_total counter source
edge_frames_paced_total counter source
edge_frames_still_total counter source
edge_decisions_total counter action,source
edge_confidence_ratio histogram source
edge_result_age_seconds histogram served_by,source
edge_stage_seconds histogram stage
edge_last_result_timestamp_seconds gauge source
edge_source_state gauge source,state
edge_source_lost_total counter source
edge_offload_submitted_total counter
edge_offload_outcomes_total counter outcome
edge_offload_declined_total counter
edge_offload_pending_frames gauge
edge_offload_sent_bytes_total counter
edge_offload_breaker_state gauge state
edge_offload_endpoint_info gauge endpoint
edge_offload_spool_waiting_frames gauge
edge_offload_spooled_total counter
edge_offload_spool_sent_total counter
edge_offload_spool_lost_total counter
edge_events_lost_total counter
edge_notices_total counter kind
edge_temperature_celsius gauge
edge_temperature_limit_celsius gauge
edge_throttled gauge flag
edge_power_watts gauge
edge_battery_ratio gauge
edge_load_ratio gauge
edge_governor_rung gauge
edge_governor_rungs gauge
edge_paused gauge
edge_offload_threshold_ratio gauge
edge_score_threshold_ratio gauge
edge_motion_gate_enabled gauge
process_virtual_memory_bytes gauge
process_resident_memory_bytes gauge
process_start_time_seconds gauge
process_cpu_seconds_total counter
process_open_fds gauge
process_max_fds gauge
"""
"""Name, type and labels, as dashboards and alerts rely on them: a name that changes here breaks somebody's."""


def scraped(monitor: Monitor, accept: str = "") -> list[Metric]:
    body, content_type = exposition(monitor, accept)
    parse = openmetrics if content_type.startswith("application/openmetrics-text") else plain
    return list(parse(body.decode()))


def values(monitor: Monitor, accept: str = "") -> dict[str, float]:
    """Sample as in `name{label="value"}` → value; labels in alphabetical order."""

    def named(name: str, labels: dict[str, str]) -> str:
        return name + ("{" + ",".join(f'{key}="{labels[key]}"' for key in sorted(labels)) + "}" if labels else "")

    return {named(sample.name, sample.labels): sample.value for metric in scraped(monitor, accept) for sample in metric.samples}


def histograms(found: list[Metric]) -> Iterator[tuple[str, list[tuple[float, float]], float, float]]:
    """Name with labels, (le, count) of each bucket, count and sum."""
    for metric in found:
        if metric.type == "histogram":
            by_labels: dict[str, dict[str, Any]] = {}
            for sample in metric.samples:
                labels = {key: value for key, value in sample.labels.items() if key != "le"}
                into = by_labels.setdefault(f"{metric.name}{labels}", {"buckets": []})
                if sample.name.endswith("_bucket"):
                    into["buckets"].append((float(sample.labels["le"]), sample.value))
                else:
                    into[sample.name.rpartition("_")[2]] = sample.value
            for name, one in by_labels.items():
                yield name, one["buckets"], one["count"], one["sum"]


def test_names_types_and_labels_are_stable() -> None:
    monitor = everything()
    take(monitor, [seen()])
    found = []
    for metric in scraped(monitor):
        name = metric.name + "_total" * (metric.type == "counter")
        labels = sorted({key for sample in metric.samples for key in sample.labels} - {"le"})
        found.append(f"{name} {metric.type} {','.join(labels)}".rstrip())
    assert found == GOLDEN.split("\n")[1:-1]


def test_the_page_lists_every_metric_as_it_is() -> None:
    rows = re.findall(r"^\| `(edge_\w+)` \| (\w+) \|([^|]*)\|([^|]*)\|([^|]*)\|$", PAGE.read_text(), re.MULTILINE)
    want = [
        (family.suffixed, family.kind, ", ".join(f"`{label}`" for label in family.labels), family.when, family.help)
        for family in FAMILIES
    ]
    assert [tuple(cell.strip() for cell in row) for row in rows] == want


def test_every_family_is_in_the_exposition_of_a_monitor_that_has_everything() -> None:
    monitor = everything()
    take(monitor, [seen()])
    found = {metric.name for metric in scraped(monitor, OPENMETRICS)}
    assert {family.name for family in FAMILIES} <= found


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain;version=0.0.4;q=0.5,*/*;q=0.1", "text/plain; version=0.0.4; charset=utf-8"),
        (OPENMETRICS, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        ("application/openmetrics-text", "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        (f"{OPENMETRICS};escaping=allow-utf-8;q=0.6,text/plain;q=0.1", "application/openmetrics-text; version=1.0.0"),
        ("application/openmetrics-text;version=9.9", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text;version=1.0.x", "text/plain; version=0.0.4; charset=utf-8"),
        (f"application/openmetrics-text; version = 2.0.0,{OPENMETRICS}", "application/openmetrics-text; version=1.0.0"),
        ("text/plain;version=x,;;=,", "text/plain; version=0.0.4; charset=utf-8"),
    ],
)
def test_the_format_is_the_one_that_is_asked_for(accept: str, content_type: str) -> None:
    monitor = everything()
    take(monitor, [seen()])
    body, given_type = exposition(monitor, accept)
    assert given_type.startswith(content_type)
    assert body.endswith(b"# EOF\n") == given_type.startswith("application/openmetrics-text")
    assert scraped(monitor, accept)


@given(accept=st.text())
def test_no_accept_header_is_a_failure(accept: str) -> None:
    body, content_type = exposition(monitored(), accept)
    assert body
    assert "\n" not in content_type


@given(names=st.lists(ODD, min_size=1, max_size=3, unique=True), accept=st.sampled_from(["", OPENMETRICS]))
def test_sources_may_have_any_names(names: list[str], accept: str) -> None:
    monitor = monitored(*names)
    take(monitor, [seen(name) for name in names])
    (frames,) = (metric for metric in scraped(monitor, accept) if metric.name == "edge_frames")
    told = [sample.labels["source"] for sample in frames.samples if sample.name == "edge_frames_total"]
    assert len(set(told)) == len(names)
    for name, label in zip(names, told, strict=True):
        assert label.startswith(utf8(name))
    assert [sample.value for sample in frames.samples if sample.name == "edge_frames_total"] == [1.0] * len(names)


def test_names_that_look_the_same_are_told_apart() -> None:
    found = values(monitored("a\udc80", "a\udc81", "b"))
    assert {'edge_frames_total{source="a? (1)"}', 'edge_frames_total{source="a? (2)"}', 'edge_frames_total{source="b"}'} <= {
        *found
    }


@pytest.mark.parametrize(
    "uri",
    [
        "rtsp://admin:hunter2@cam.example/live?channel=1",
        "http://cam.example/video?user=admin&password=hunter2",
        "gst:rtspsrc location=rtsp://admin:hunter2@cam.example/live user-pw=hunter2 ! decodebin",
    ],
)
def test_no_password_of_a_source_is_told(uri: str) -> None:
    source = open_source(uri)
    body, _ = exposition(monitored(source.name), "")
    assert b"cam.example" in body
    assert b"hunter2" not in body


def test_frames_are_counted_by_what_became_of_them() -> None:
    monitor = everything("camera:0", "camera:1")
    source = monitor.sources[0]
    source.dropped = 7
    source.skipped.extend(["a.jpg: no picture"] * 2)
    monitor.controls.pace.paced[0] = 5
    take(
        monitor,
        [
            *(seen("camera:0", number=number) for number in range(3)),
            seen("camera:0", number=3, action="skip"),
            seen("camera:0", number=4, action="offload", scores=(0.5,)),
            seen("camera:0", number=4, action="offload", age_ms=800, revises=True, served_by="cloud"),
            Notice("source-lost", "camera:0", "stopped delivering", 1.7e9),
        ],
    )
    found = values(monitor)
    for name, want in {
        'edge_frames_total{source="camera:0"}': 5,
        'edge_frames_total{source="camera:1"}': 0,
        'edge_frames_dropped_total{source="camera:0"}': 7,
        'edge_frames_skipped_total{source="camera:0"}': 2,
        'edge_frames_paced_total{source="camera:0"}': 5,
        'edge_frames_still_total{source="camera:0"}': 1,
        'edge_decisions_total{action="accept",source="camera:0"}': 3,
        'edge_decisions_total{action="offload",source="camera:0"}': 1,
        'edge_decisions_total{action="skip",source="camera:0"}': 1,
        'edge_decisions_total{action="skip",source="camera:1"}': 0,
        'edge_confidence_ratio_count{source="camera:0"}': 4,  # the still frame has an earlier frame's
        'edge_confidence_ratio_bucket{le="0.5",source="camera:0"}': 1,
        'edge_confidence_ratio_bucket{le="0.8",source="camera:0"}': 4,
        'edge_confidence_ratio_sum{source="camera:0"}': 3 * 0.75 + 0.5,
        'edge_result_age_seconds_count{served_by="local",source="camera:0"}': 5,
        'edge_result_age_seconds_count{served_by="cloud",source="camera:0"}': 1,
        'edge_result_age_seconds_bucket{le="0.75",served_by="cloud",source="camera:0"}': 0,
        'edge_result_age_seconds_bucket{le="1.0",served_by="cloud",source="camera:0"}': 1,
        'edge_stage_seconds_count{stage="infer"}': 4,
        'edge_stage_seconds_bucket{le="0.02",stage="infer"}': 0,
        'edge_stage_seconds_bucket{le="0.03",stage="infer"}': 4,  # 30 ms are at most 0.03 s
        'edge_source_lost_total{source="camera:0"}': 1,
        'edge_notices_total{kind="source-lost"}': 1,
        'edge_notices_total{kind="engine-failed"}': 0,
        'edge_source_state{source="camera:0",state="lost"}': 1,
        'edge_source_state{source="camera:0",state="open"}': 0,
        'edge_source_state{source="camera:1",state="starting"}': 1,
        'edge_offload_outcomes_total{outcome="revised"}': 1,
    }.items():
        assert found[name] == pytest.approx(want), name


def test_the_endpoint_the_board_and_the_controls() -> None:
    counts = {"late": 2, "failed": 1, "given_up": 3, "withheld": 4, "declined": 5, "asking": 2, "sent_bytes": 12345}
    counts |= {"spool_waiting": 6, "spooled": 9, "spool_sent": 2, "spool_lost": 1}
    monitor = everything()
    monitor.offloader = Endpoint(breaker="half-open", submitted=13, counts=counts)  # type: ignore[assignment]
    monitor.controls.pause(True, "web")
    monitor.controls.set_gate(False, "web")
    found = values(monitor)
    for name, want in {
        'edge_offload_endpoint_info{endpoint="cloud.example:8000"}': 1,
        "edge_offload_submitted_total": 13,
        'edge_offload_outcomes_total{outcome="late"}': 2,
        'edge_offload_outcomes_total{outcome="failed"}': 1,
        'edge_offload_outcomes_total{outcome="given_up"}': 3,
        'edge_offload_outcomes_total{outcome="withheld"}': 4,
        "edge_offload_declined_total": 5,
        "edge_offload_pending_frames": 2,
        "edge_offload_sent_bytes_total": 12345,
        'edge_offload_breaker_state{state="half-open"}': 1,
        'edge_offload_breaker_state{state="closed"}': 0,
        "edge_offload_spool_waiting_frames": 6,
        "edge_offload_spooled_total": 9,
        "edge_offload_spool_sent_total": 2,
        "edge_offload_spool_lost_total": 1,
        "edge_temperature_celsius": 61.5,
        'edge_throttled{flag="under-voltage"}': 1,
        'edge_throttled{flag="throttled"}': 0,
        "edge_power_watts": 4.25,
        "edge_battery_ratio": 0.75,
        "edge_load_ratio": 0.5,
        "edge_governor_rung": 12,
        "edge_governor_rungs": 16,
        "edge_paused": 1,
        "edge_offload_threshold_ratio": 0.6,
        "edge_score_threshold_ratio": 0.25,
        "edge_motion_gate_enabled": 0,
        "edge_engine_threads": 4,
        'edge_model_info{engine="fake",model="tiny",variant="int8-arm"}': 1,
    }.items():
        assert found[name] == want, name
    assert found["process_resident_memory_bytes"] > 1e6


def test_what_is_not_there_has_no_metric() -> None:
    found = "\n".join(values(monitored(reading=Reading())))
    for name in (
        "edge_offload_submitted",
        "temperature_celsius",
        "watts",
        "battery",
        "rung",
        "last_result",
        'served_by="cloud"',
    ):
        assert name not in found, name
    assert "edge_temperature_limit_celsius" in found


def test_the_time_of_the_last_result_stands_still_between_results() -> None:
    at_s = time.time()
    monitor = monitored()
    take(monitor, [seen(age_ms=250, captured_at_s=at_s)])
    name = 'edge_last_result_timestamp_seconds{source="demo"}'
    first = values(monitor)[name]
    assert first == pytest.approx(at_s + 0.25, abs=0.002)
    assert values(monitor)[name] == first


def test_ages_below_zero_and_confidences_that_are_no_number_do_not_spoil_the_sums() -> None:
    monitor = monitored()
    take(monitor, [seen(age_ms=-5), seen(scores=(float("nan"),)), seen(age_ms=1e9), seen()])
    for name, buckets, count, total in histograms(scraped(monitor)):
        assert buckets[-1] == (float("inf"), count), name
        assert count == 4, name
        assert total >= 0, name


def test_the_states_are_those_that_the_breaker_has() -> None:
    assert get_args(State) == BREAKER_STATES


def test_a_value_on_a_bound_is_below_it() -> None:
    monitor = monitored()
    take(monitor, [seen(timings=Timings(infer=ms)) for ms in (0.1, 2.5, 10, 100, 150, 2500)])
    found = values(monitor)
    for le, want in ((0.0001, 1), (0.0025, 2), (0.01, 3), (0.1, 4), (0.15, 5), (2.5, 6)):
        assert found[f'edge_stage_seconds_bucket{{le="{le}",stage="infer"}}'] == want, le


def test_scrapes_agree_with_themselves_while_the_loop_adds() -> None:
    monitor = everything()
    over = threading.Event()

    def loop() -> None:
        number = 0
        while not over.is_set():
            number += 1
            take(monitor, [seen(number=number, age_ms=number % 97, action=("accept", "offload", "skip")[number % 3])])

    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    adding = threading.Thread(target=loop)
    adding.start()
    before: dict[str, list[float]] = {}
    try:
        for turn in range(16):
            found = scraped(monitor, OPENMETRICS if turn % 2 else "")
            flat = {sample.name + str(sample.labels): sample.value for metric in found for sample in metric.samples}
            now: dict[str, list[float]] = {}
            for name, buckets, count, total in histograms(found):
                told = [number for _, number in buckets]
                assert told == sorted(told), name
                assert told[-1] == count, name
                now[name] = [*told, total]
            frames = flat["edge_frames_total{'source': 'demo'}"]
            decided = [value for name, value in flat.items() if name.startswith("edge_decisions_total")]
            assert sum(decided) == frames
            assert now["edge_result_age_seconds{'served_by': 'local', 'source': 'demo'}"][-2] == frames
            for stage in ("capture", "decode"):
                looked_at = frames - flat["edge_frames_still_total{'source': 'demo'}"]
                assert flat[f"edge_stage_seconds_count{{'stage': '{stage}'}}"] == looked_at
            for name, told in before.items():
                assert all(new >= old for old, new in zip(told, now[name], strict=True)), name
            before = now
    finally:
        over.set()
        adding.join()
        sys.setswitchinterval(interval_s)
    assert before["edge_confidence_ratio{'source': 'demo'}"][-2] > 0


def test_the_dashboard_names_no_data_source_of_ours_and_its_panels_do_not_overlap() -> None:
    whole = json.loads(DASHBOARD.read_text())
    panels = [panel for panel in whole["panels"] if panel["type"] != "row"]
    assert all(target["datasource"]["uid"] == "${datasource}" for panel in panels for target in panel["targets"])
    assert all(panel["datasource"]["uid"] == "${datasource}" and panel["description"] for panel in panels)
    ids = [panel["id"] for panel in whole["panels"]]
    assert len(set(ids)) == len(ids)
    cells: set[tuple[int, int]] = set()
    for panel in whole["panels"]:
        at = panel["gridPos"]
        covered = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in covered) < 24, panel["title"]
        assert not covered & cells, panel["title"]
        cells |= covered


@pytest.mark.parametrize("page", [PAGE, DASHBOARD, ALERTS], ids=lambda page: page.name)
def test_queries_name_metrics_and_labels_that_there_are(page: Path) -> None:
    known = {family.suffixed + suffix: set(family.labels) for family in FAMILIES for suffix in SUFFIXES[family.kind]}
    text = page.read_text().replace('\\"', '"')
    told = set(re.findall(r"\bedge_\w+", text)) - {family.name for family in FAMILIES}
    assert told <= known.keys()
    selectors = re.findall(r"\b(edge_\w+)\{([^}]*)\}", text)
    assert selectors or page != DASHBOARD
    for name, matchers in selectors:
        assert set(re.findall(r"(\w+)[=!]~?\"", matchers)) <= known[name] | {"job", "instance", "le"}, name


def test_the_page_shows_the_configuration_as_it_is() -> None:
    (shown,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert shown in CONFIG.read_text()
