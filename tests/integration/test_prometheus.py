"""A real Prometheus scrapes what edge-run exposes, and runs every query of the dashboard and every alert over it."""

from __future__ import annotations

import json
import math
import re
import shutil
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest

from edge.events import utf8
from edge.types import Notice
from edge.web.metrics import exposition
from tests.web.monitored import Endpoint, everything, seen, take

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(shutil.which("promtool") is None, reason="no Prometheus here; apt install prometheus"),
]
DOCS = Path(__file__).parents[2] / "docs"
CERTIFICATES = Path(__file__).parents[1] / "certificates"
DASHBOARD = DOCS / "grafana/edge-run.json"
PAGE = DOCS / "metrics.md"
ALERTS = DOCS / "prometheus/alerts.yml"
CONFIG = DOCS / "prometheus/prometheus.yml"
EDGE_RUN = Path(sys.executable).with_name("edge-run")
TOKEN = "a-token-of-the-test"
ODD = ['a "quoted" \\ name\nof two lines', "camera:é\udcff", "gst:v4l2src ! video/x-raw,format={BGR} # no = end\x1c\x85\u2028"]
PATIENCE_S = 30.0


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def queries() -> list[str]:
    """Every expression of the dashboard, as Grafana sends it with all boards and sources chosen, and of the page."""
    found = [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", [])]
    found += re.findall(r"^\| [^|`]+ \| `([^`]+)` \|$", PAGE.read_text(), re.MULTILINE)
    return [re.sub(r"\$(job|instance|source)\b", ".*", expr.replace("$__rate_interval", "10s")) for expr in found]


def checked(body: bytes) -> str:
    """What promtool says of an exposition."""
    command = ["promtool", "check", "metrics"]
    ran = subprocess.run(command, input=body, capture_output=True, check=False, timeout=60)
    return f"{ran.stdout.decode()}{ran.stderr.decode()}" + (f"exit code {ran.returncode}" if ran.returncode else "")


class Busy:
    """A monitor with something going on in every metric, ten times a second, and a server that asks for a token."""

    def __init__(self, *names: str) -> None:
        self.monitor = everything(*names)
        self.answered: set[str] = set()
        self._names, self._over = names, threading.Event()
        busy = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path != "/metrics" or self.headers["Authorization"] != f"Bearer {TOKEN}":
                    self.send_error(401)
                    return
                body, content_type = exposition(busy.monitor, self.headers["Accept"])
                busy.answered.add(content_type)
                self.send_response(200)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATES / "server.pem", CERTIFICATES / "server.key")
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self._threads = [threading.Thread(target=self._server.serve_forever), threading.Thread(target=self._work)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._over.set()
        self._server.shutdown()
        for thread in self._threads:
            thread.join()
        self._server.server_close()

    def _work(self) -> None:
        number = 0
        while not self._over.wait(0.1):
            number += 1
            action = ("accept", "offload", "skip")[number % 3]
            happened: list[Any] = [Notice("source-lost", self._names[0], "gone", 1.7e9)]
            for name in self._names:
                scores = ((number % 10) / 10,)
                happened.append(seen(name, number=number, age_ms=number % 90, action=action, scores=scores))
                happened.append(seen(name, number=number, age_ms=700, revises=True, served_by="cloud"))
            take(self.monitor, happened)
            endpoint = self.monitor.offloader
            assert isinstance(endpoint, Endpoint)
            endpoint.submitted = number
            names = ("late", "failed", "given_up", "withheld", "declined", "sent_bytes", "spooled", "spool_sent", "spool_lost")
            endpoint.counts = dict.fromkeys(names, number)


@pytest.fixture
def busy() -> Iterator[Busy]:
    made = Busy(*ODD)
    yield made
    made.close()


Api = Callable[..., Any]


@pytest.fixture
def watch(tmp_path: Path, unused_port: int) -> Iterator[Callable[[str], Api]]:
    """Starts a Prometheus that runs the documented configuration and alerts, each second, on one address; gives its API."""
    token = tmp_path / "edge-token"
    token.write_text(TOKEN + "\n")
    shutil.copy(ALERTS, tmp_path)
    address = f"127.0.0.1:{unused_port}"

    def api(path: str, **more: str) -> Any:
        query = urlencode({key.replace("match", "match[]"): value for key, value in more.items()})
        with urlopen(f"http://{address}/api/v1/{path}?{query}", timeout=10) as answer:
            told = json.load(answer)
        assert told["status"] == "success", told
        return told["data"]

    with ExitStack() as stack:

        def start(target: str) -> Api:
            text = CONFIG.read_text()
            for old, new in {
                "15s": "1s",
                "/etc/prometheus/edge-token": str(token),
                "/etc/prometheus/edge-ca.pem": str(CERTIFICATES / "ca.pem"),
                '"gate.example:8080", "porch.example:8080", "yard.example:8080"': f'"{target}"',
            }.items():
                assert old in text
                text = text.replace(old, new)
            config = tmp_path / "prometheus.yml"
            config.write_text(text)
            flags = [f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}", f"--web.listen-address={address}"]
            log = stack.enter_context((tmp_path / "log").open("wb"))
            process = stack.enter_context(subprocess.Popen(["prometheus", *flags], stdout=log, stderr=log))
            stack.callback(process.terminate)
            assert _until(lambda: _ready(address) or process.poll() is not None)
            assert process.poll() is None, (tmp_path / "log").read_text()
            return api

        yield start


@pytest.fixture
def prometheus(busy: Busy, watch: Callable[[str], Api]) -> Api:
    """The API of a Prometheus that watches that server."""
    return watch(busy.address)


def _ready(address: str) -> bool:
    try:
        with urlopen(f"http://{address}/-/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _until(done: Callable[[], object]) -> bool:
    until_s = time.monotonic() + PATIENCE_S
    while not done():
        if time.monotonic() > until_s:
            return False
        time.sleep(0.2)
    return True


def _numbers(data: Any) -> list[float]:
    results = [data["result"]] if data["resultType"] == "scalar" else [one["value"] for one in data["result"]]
    return [float(value) for _, value in results]


def test_every_query_of_the_dashboard_gives_data(busy: Busy, prometheus: Api) -> None:
    assert _until(lambda: _numbers(prometheus("query", query="sum(up)")) == [1.0]), prometheus("targets")
    assert _until(lambda: _numbers(prometheus("query", query="sum(rate(edge_frames_total[10s])) > 0")))
    missing = set(queries())

    def all_give() -> bool:
        for query in sorted(missing):
            if any(map(math.isfinite, _numbers(prometheus("query", query=query)))):
                missing.remove(query)
        return not missing

    assert _until(all_give), missing
    (content_type,) = busy.answered
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            metric, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"]).groups()  # type: ignore[union-attr]
            match = re.sub(r"\$\w+", ".*", metric)
            assert prometheus(f"label/{label}/values", match=match), variable["name"]


def test_source_names_arrive_as_they_are(prometheus: Api) -> None:
    assert _until(lambda: prometheus("label/source/values")), prometheus("targets")
    assert sorted(prometheus("label/source/values")) == sorted(map(utf8, ODD))


def test_the_alerts_are_evaluated_without_errors(prometheus: Api) -> None:
    def rules() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = [rule for group in prometheus("rules")["groups"] for rule in group["rules"]]
        return found

    assert _until(lambda: rules() and all(rule["health"] != "unknown" for rule in rules()))
    assert [rule["name"] for rule in rules() if rule["health"] != "ok"] == []
    assert _until(lambda: any(rule["alerts"] for rule in rules() if rule["name"] == "EdgeUnderVoltage"))


def test_promtool_has_no_complaint_about_the_metrics() -> None:
    monitor = everything(*ODD)
    take(monitor, [seen(ODD[0])])
    assert checked(exposition(monitor, "")[0]) == ""


def test_promtool_would_have_complained() -> None:
    assert "counter metrics should have" in checked(b"# HELP a b\n# TYPE a counter\na 1\n")


def test_the_configuration_and_the_rules_are_valid() -> None:
    subprocess.run(["promtool", "check", "config", "--syntax-only", CONFIG], check=True, capture_output=True, timeout=60)
    subprocess.run(["promtool", "check", "rules", ALERTS], check=True, capture_output=True, timeout=60)


PI = 'job="edge",instance="pi:8080"'
CAMERA = f'{PI},source="camera:0"'
FIRES: dict[str, tuple[dict[str, str], str]] = {
    "EdgeBoardDown": ({f"up{{{PI}}}": "1 0x20"}, "8m"),
    "EdgeSourceAway": ({f'edge_source_state{{{CAMERA},state="lost"}}': "0 1x20"}, "5m"),
    "EdgeSourceFlaps": ({f"edge_source_lost_total{{{CAMERA}}}": "0+1x60"}, "30m"),
    "EdgeNoResults": (
        {
            f"edge_last_result_timestamp_seconds{{{CAMERA}}}": "10x20",
            f'edge_source_state{{{CAMERA},state="open"}}': "1x20",
            f'edge_source_state{{{CAMERA},state="lost"}}': "0x20",
            f"edge_paused{{{PI}}}": "0x20",
        },
        "5m",
    ),
    "EdgeResultsOld": (
        {
            f'edge_result_age_seconds_bucket{{{CAMERA},served_by="local",le="1.0"}}': "0+10x40",
            f'edge_result_age_seconds_bucket{{{CAMERA},served_by="local",le="2.5"}}': "0+100x40",
            f'edge_result_age_seconds_bucket{{{CAMERA},served_by="local",le="+Inf"}}': "0+100x40",
        },
        "20m",
    ),
    "EdgeHot": ({f"edge_temperature_celsius{{{PI}}}": "81x30", f"edge_temperature_limit_celsius{{{PI}}}": "78x30"}, "15m"),
    "EdgeUnderVoltage": ({f'edge_throttled{{{PI},flag="under-voltage"}}': "1x30"}, "5m"),
    "EdgeThrottled": ({f'edge_throttled{{{PI},flag="throttled"}}': "1x30"}, "15m"),
    "EdgeGovernorAtTheBottom": ({f"edge_governor_rung{{{PI}}}": "1x60"}, "35m"),
    "EdgeEngineFails": ({f'edge_notices_total{{{PI},kind="engine-failed"}}': "0 0 1x30"}, "5m"),
    "EdgeEventsLost": ({f"edge_events_lost_total{{{PI}}}": "0 0 5x30"}, "5m"),
    "EdgeEndpointAway": ({f'edge_offload_breaker_state{{{PI},state="closed"}}': "0x30"}, "15m"),
    "EdgeAnswersMissing": (
        {
            f'edge_offload_outcomes_total{{{PI},outcome="late"}}': "0+8x60",
            f'edge_offload_outcomes_total{{{PI},outcome="revised"}}': "0+2x60",
        },
        "40m",
    ),
    "EdgeSpoolLoses": ({f"edge_offload_spool_lost_total{{{PI}}}": "0 0 5x30"}, "5m"),
    "EdgePaused": ({f"edge_paused{{{PI}}}": "1x90"}, "70m"),
}
"""Alert → series with a value each minute, and when it fires."""
SLOW: dict[str, tuple[dict[str, str], str]] = {
    "EdgeConfidenceFell": (
        {
            f"edge_confidence_ratio_sum{{{CAMERA}}}": "0+90x200 18050+50x50",
            f"edge_confidence_ratio_count{{{CAMERA}}}": "0+100x250",
        },
        "212h",
    ),
}
"""The same with a value each hour."""
HEALTHY = {
    f"up{{{PI}}}": "1x90",
    f'edge_source_state{{{CAMERA},state="open"}}': "1x90",
    f'edge_source_state{{{CAMERA},state="lost"}}': "0x90",
    f'edge_source_state{{{PI},source="clip.mp4",state="ended"}}': "1x90",
    f'edge_last_result_timestamp_seconds{{{PI},source="clip.mp4"}}': "10x90",
    f"edge_last_result_timestamp_seconds{{{CAMERA}}}": "0+60x90",
    f"edge_source_lost_total{{{CAMERA}}}": "3x90",
    f"edge_temperature_celsius{{{PI}}}": "60x90",
    f"edge_temperature_limit_celsius{{{PI}}}": "78x90",
    f'edge_throttled{{{PI},flag="throttled"}}': "0x90",
    f"edge_governor_rung{{{PI}}}": "16x90",
    f'edge_notices_total{{{PI},kind="engine-failed"}}': "0x90",
    f'edge_notices_total{{{PI},kind="source-open"}}': "0+1x90",
    f"edge_events_lost_total{{{PI}}}": "0x90",
    f'edge_offload_breaker_state{{{PI},state="closed"}}': "1x90",
    f'edge_offload_outcomes_total{{{PI},outcome="revised"}}': "0+9x90",
    f'edge_offload_outcomes_total{{{PI},outcome="late"}}': "0+1x90",
    f"edge_paused{{{PI}}}": "0x90",
    f"edge_confidence_ratio_sum{{{CAMERA}}}": "0+90x90",
    f"edge_confidence_ratio_count{{{CAMERA}}}": "0+100x90",
}


def _firing(series: dict[str, str], at: str, expr: str, want: list[dict[str, Any]], each: str = "1m") -> dict[str, Any]:
    return {
        "interval": each,
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [{"expr": expr, "eval_time": at, "exp_samples": want}],
    }


def _test_rules(tmp_path: Path, tests: list[dict[str, Any]], each: str = "1m") -> None:
    shutil.copy(ALERTS, tmp_path)
    file = tmp_path / "test.yml"
    file.write_text(json.dumps({"rule_files": ["alerts.yml"], "evaluation_interval": each, "tests": tests}))
    ran = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize(("cases", "each"), [(FIRES, "1m"), (SLOW, "1h")], ids=["minutes", "hours"])
def test_each_alert_fires_when_it_should(tmp_path: Path, cases: dict[str, tuple[dict[str, str], str]], each: str) -> None:
    assert sorted([*FIRES, *SLOW]) == sorted(re.findall(r"- alert: (\w+)", ALERTS.read_text()))
    tests = [
        _firing(series, at, f'count(ALERTS{{alertname="{name}",alertstate="firing"}})', [{"labels": "{}", "value": 1}], each)
        for name, (series, at) in cases.items()
    ]
    _test_rules(tmp_path, tests, each)


def test_no_alert_fires_for_a_healthy_board_or_one_that_is_paused_and_silent(tmp_path: Path) -> None:
    series, at = FIRES["EdgeNoResults"]
    paused = series | {f"edge_paused{{{PI}}}": "1x20"}
    firing = 'ALERTS{alertstate="firing"}'
    _test_rules(tmp_path, [_firing(HEALTHY, "80m", firing, []), _firing(paused, at, firing, [])])


def test_a_real_run_is_scraped_with_a_token_and_tls(tmp_path: Path, watch: Callable[[str], Api]) -> None:
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text(TOKEN)
    options = ["--web-token-file", token, "--web-cert", CERTIFICATES / "server.pem", "--web-key", CERTIFICATES / "server.key"]
    command = [EDGE_RUN, "--source", "demo", "--web", "0", *options, "--events", tmp_path / "events.jsonl"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            said = []
            for line in process.stderr:
                said.append(line)
                if found := re.search(r"web: https://(127\.0\.0\.1:\d+)", line):
                    break
            else:
                pytest.fail("".join(said))
            context = ssl.create_default_context(cafile=str(CERTIFICATES / "ca.pem"))
            url = f"https://{found[1]}/metrics"

            def scrape() -> str:
                request = Request(url, headers={"Accept": "text/plain", "Authorization": f"Bearer {TOKEN}"})
                with urlopen(request, timeout=10, context=context) as answer:
                    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
                    text: str = answer.read().decode()
                    return text

            assert _until(lambda: re.search(r'^edge_frames_total\{source="demo"\} [1-9]', scrape(), re.MULTILINE)), scrape()
            assert checked(scrape().encode()) == ""
            assert TOKEN not in scrape()
            with pytest.raises(HTTPError, match="401"):
                urlopen(url, timeout=10, context=context)
            api = watch(found[1])
            assert _until(lambda: _numbers(api("query", query="sum(rate(edge_frames_total[10s])) > 0"))), api("targets")
        finally:
            process.terminate()
