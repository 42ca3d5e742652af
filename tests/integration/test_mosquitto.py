"""A real Mosquitto, configured as docs/mqtt.md says: TLS, passwords, an access list, and a broker that is killed."""

from __future__ import annotations

import getpass
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from edge.mqtt import open_mqtt
from edge.mqtt.sink import MqttSink
from edge.mqtt.topics import identity
from edge.sinks.queued import QueuedSink
from edge.types import Change, Notice
from tests.mqtt.board import Board, options
from tests.samples import event, frame

MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
TOOLS = all(map(shutil.which, ("mosquitto_pub", "mosquitto_sub", "mosquitto_passwd")))
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(MOSQUITTO is None or not TOOLS, reason="no Mosquitto; apt install mosquitto mosquitto-clients"),
]
REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs" / "mqtt.md"
CERTIFICATES = REPOSITORY / "tests" / "certificates"
EDGE_RUN = Path(sys.executable).with_name("edge-run")
CA = CERTIFICATES / "ca.pem"
USERS = ("porch", "viewer", "owner", "homeassistant")


def password(user: str) -> str:
    return f"open sesame, says {user}"


def documented(name: str) -> str:
    """The block of the page that begins with this name."""
    (text,) = re.findall(rf"^```text\n(# {re.escape(name)}\n.*?)^```$", PAGE.read_text(), re.M | re.S)
    return str(text)


def wait(condition: Callable[[], Any], seconds: float = 30) -> None:
    until_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.02)


class Mosquitto:
    """The broker of the page, on a port and in a folder of the test's own."""

    def __init__(self, folder: Path, port: int, host: str = "127.0.0.1", more: str = "") -> None:
        assert MOSQUITTO is not None
        self.host, self.port, self._folder = host, port, folder
        (folder / "acl").write_text(documented("acl"))
        (folder / "acl").chmod(0o600)
        for number, user in enumerate(USERS):
            created = ["-c"] if number == 0 else []
            subprocess.run(["mosquitto_passwd", *created, "-b", folder / "passwords", user, password(user)], check=True)
        places = {
            "listener 8883": f"listener {port} {host}",
            "/etc/mosquitto/certs": str(CERTIFICATES),
            "/etc/mosquitto": str(folder),
            "/var/lib/mosquitto": str(folder),
        }
        text = documented("mosquitto.conf")
        for there, here in places.items():
            assert there in text
            text = text.replace(there, here)
        (folder / "mosquitto.conf").write_text(f"{text}user {getpass.getuser()}\nlog_type all\n{more}")
        self.start()

    def start(self) -> None:
        assert MOSQUITTO is not None
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen([MOSQUITTO, "-c", self._folder / "mosquitto.conf"], stdout=log, stderr=log)
        until_s = time.monotonic() + 20
        while time.monotonic() < until_s:
            with suppress(OSError), socket.create_connection((self.host, self.port), 1):
                return
            assert self._process.poll() is None, self.log()
            time.sleep(0.02)
        pytest.fail("Mosquitto does not listen")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(10)

    def log(self) -> str:
        return (self._folder / "log").read_text()

    def tool(self, command: str, user: str, *arguments: str) -> list[str]:
        login = ["-u", user, "-P", password(user), "--cafile", str(CA), "-V", "mqttv5"]
        return [command, "-h", self.host, "-p", str(self.port), *login, *arguments]

    def publish(self, user: str, topic: str, payload: str, *more: str) -> None:
        subprocess.run(self.tool("mosquitto_pub", user, "-q", "1", "-t", topic, "-m", payload, *more), timeout=20, check=False)


class Subscriber:
    """A mosquitto_sub with a session, started again when it gives up; `lines` are topic and payload of what it got."""

    def __init__(self, broker: Mosquitto, user: str, topic: str) -> None:
        self.lines: list[tuple[str, str]] = []
        self._changed = threading.Condition()
        name = f"sub-{user}-{os.getpid()}"
        session = ["-i", name, "-c", "-x", "600", "-q", "1"]
        self._command = broker.tool("mosquitto_sub", user, *session, "-t", topic, "-F", "%t\t%p")
        self._process: subprocess.Popen[str] | None = None
        self._ending = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        wait(lambda: f"Sending SUBACK to {name}" in broker.log())

    def _read(self) -> None:
        while not self._ending:
            with subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
                self._process = process
                assert process.stdout is not None
                for line in process.stdout:
                    topic, tab, payload = line.rstrip("\n").partition("\t")
                    with self._changed:
                        self.lines += [(topic, payload)] if tab else []
                        self._changed.notify_all()
            time.sleep(0.05)

    def of(self, topic: str) -> list[str]:
        return [payload for found, payload in self.lines if found == topic]

    def wait(self, condition: Callable[[Subscriber], Any], seconds: float = 30) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self), seconds), self.lines[-20:]

    def end(self) -> None:
        self._ending = True
        if self._process is not None:
            self._process.kill()
        self._reader.join(10)


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def broker(tmp_path: Path, unused_port: int, closing: ExitStack) -> Mosquitto:
    broker = Mosquitto(tmp_path, unused_port)
    closing.callback(lambda: broker.kill())
    return broker


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def login(monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    monkeypatch.setenv("EDGE_MQTT_PASSWORD", password("porch"))
    return ("--mqtt-user", "porch", "--mqtt-ca", str(CA), "--mqtt-topic", "edge/porch")


def url(broker: Mosquitto) -> str:
    return f"mqtts://{broker.host}:{broker.port}"


def published(board: Board, said: list[str], closing: ExitStack, *arguments: object) -> MqttSink:
    sink = open_mqtt(options(*arguments), board.monitor, said.append)

    def end() -> None:
        sink.stop()
        sink.close()

    closing.callback(end)
    return sink


def test_edge_run_is_published_commanded_and_missed(
    broker: Mosquitto, closing: ExitStack, tmp_path: Path, login: tuple[str, ...]
) -> None:
    secret = tmp_path / "secret"
    secret.write_text(password("porch") + "\n")
    viewer = Subscriber(broker, "viewer", "edge/porch/#")
    closing.callback(viewer.end)
    errors = (tmp_path / "errors").open("w+")
    closing.callback(errors.close)
    arguments = ["--source", "demo", "--target-fps", "5", "--events", "/dev/null", "--mqtt-on", "all"]
    more = ["--mqtt", url(broker), *login, "--mqtt-password-file", str(secret), "--mqtt-commands", "edge-set/porch"]
    environment = {name: value for name, value in os.environ.items() if name != "EDGE_MQTT_PASSWORD"}
    process = subprocess.Popen(
        [EDGE_RUN, *arguments, *more, "--home-assistant"], stdout=subprocess.DEVNULL, stderr=errors, env=environment
    )
    closing.callback(process.wait, 10)
    closing.callback(process.kill)
    viewer.wait(lambda viewer: viewer.of("edge/porch/events") and viewer.of("edge/porch/sources/1/result"))
    assert viewer.of("edge/porch/availability") == ["online"]
    assert json.loads(viewer.of("edge/porch/events")[0])["kind"] == "frame"

    def paused(viewer: Subscriber) -> bool:
        return bool(json.loads(viewer.of("edge/porch/state")[-1])["controls"]["paused"])

    broker.publish("viewer", "edge-set/porch/pause", "ON")  # the access list does not let it
    broker.publish("owner", "edge-set/other/pause", "ON")
    broker.publish("owner", "edge-set/porch/nothing", "ON")
    broker.publish("owner", "edge-set/porch/pause", "ON", "-r")
    viewer.wait(lambda viewer: any("retained" in text for text in viewer.of("edge/porch/notices")))
    assert any("edge-set/porch/nothing: no such command" in text for text in viewer.of("edge/porch/notices"))
    assert not paused(viewer)
    broker.publish("owner", "edge-set/porch/pause", "ON")
    viewer.wait(paused)

    home = Subscriber(broker, "homeassistant", "homeassistant/device/+/config")
    closing.callback(home.end)
    home.wait(lambda home: home.lines)
    topic, payload = home.lines[0]
    assert topic == f"homeassistant/device/{identity('edge/porch')}/config"
    assert json.loads(payload)["components"]["pause"]["command_topic"] == "edge-set/porch/pause"
    broker.publish("homeassistant", "homeassistant/status", "online")
    home.wait(lambda home: len(home.lines) == 2)

    process.kill()  # what follows is the will
    viewer.wait(lambda viewer: viewer.of("edge/porch/availability") == ["online", "offline"])
    errors.seek(0)
    told = errors.read()
    assert f"mqtt: {url(broker)}: connected, topics are below edge/porch" in told
    assert password("porch") not in told
    assert "Traceback" not in told
    late = Subscriber(broker, "owner", "edge/porch/#")
    closing.callback(late.end)
    late.wait(lambda late: len(late.lines) >= 3)
    assert {topic for topic, _ in late.lines} == {
        "edge/porch/availability",
        "edge/porch/state",
        "edge/porch/sources/1/result",
    }


@pytest.mark.parametrize("qos", ["1", "2"])
def test_nothing_is_lost_when_the_broker_is_killed_in_between(
    broker: Mosquitto, closing: ExitStack, login: tuple[str, ...], said: list[str], qos: str
) -> None:
    viewer = Subscriber(broker, "viewer", "edge/porch/events")
    closing.callback(viewer.end)
    home = published(Board(), said, closing, url(broker), *login, "--mqtt-qos", f"events={qos}")
    queued = QueuedSink(home, "mqtt", said.append, waits=False)
    closing.callback(queued.close)
    wait(lambda: said)
    for number in range(200):
        queued.emit(event(frame(sequence=number), changes=(Change("enter", number, "dog"),)))
        time.sleep(0.002)
        if number == 100:
            broker.kill()
        if number == 150:
            broker.start()
    viewer.wait(lambda viewer: len({json.loads(text)["seq"] for text in viewer.of("edge/porch/events")}) == 200)
    arrived = [json.loads(text)["seq"] for text in viewer.of("edge/porch/events")]
    assert list(dict.fromkeys(arrived)) == list(range(200))  # in order, by their first arrival
    assert home.lost == 0
    assert any("the loop goes on" in line for line in said)
    assert said[-1].endswith("connected again")


def test_the_newest_are_kept_for_a_broker_that_is_away(
    broker: Mosquitto, closing: ExitStack, login: tuple[str, ...], said: list[str]
) -> None:
    viewer = Subscriber(broker, "viewer", "edge/porch/events")
    closing.callback(viewer.end)
    home = published(Board(), said, closing, url(broker), *login, "--mqtt-queue", "50")
    wait(lambda: said)
    broker.kill()
    wait(lambda: len(said) > 1)
    for number in range(200):
        home.emit(event(frame(sequence=number), changes=(Change("enter", number, "dog"),)))
    assert home.lost == 150
    broker.start()
    viewer.wait(lambda viewer: len(viewer.of("edge/porch/events")) == 50)
    assert [json.loads(text)["seq"] for text in viewer.of("edge/porch/events")] == list(range(150, 200))
    wait(lambda: said[-1].endswith("connected again; 150 events were lost"))
    assert sum("no more events are kept" in line for line in said) == 1


@pytest.mark.parametrize("user", [("--mqtt-user", "porch"), ("--mqtt-user", "nobody"), ()])
def test_a_wrong_password_is_said_in_words(
    broker: Mosquitto, closing: ExitStack, said: list[str], monkeypatch: pytest.MonkeyPatch, user: tuple[str, ...]
) -> None:
    monkeypatch.setenv("EDGE_MQTT_PASSWORD", "a guess")
    published(Board(), said, closing, url(broker), *user, "--mqtt-ca", CA, "--mqtt-topic", "edge/porch")
    wait(lambda: said)
    assert "refused: not authorized; check --mqtt-user, the password and the broker's access list" in said[0]
    assert "a guess" not in said[0]


def test_the_scheme_of_another_port_is_asked_about(
    tmp_path: Path, unused_port: int, closing: ExitStack, login: tuple[str, ...], said: list[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        plain: int = probe.getsockname()[1]
    broker = Mosquitto(tmp_path, unused_port, more=f"listener {plain} 127.0.0.1\n")
    closing.callback(broker.kill)
    published(Board(), said, closing, f"mqtt://127.0.0.1:{unused_port}", "--mqtt-topic", "edge/porch")
    wait(lambda: said)
    assert "the connection was lost; does it want mqtts://?" in said[0]
    others: list[str] = []
    published(Board(), others, closing, f"mqtts://127.0.0.1:{plain}", *login)
    wait(lambda: others)
    assert "no TLS connection: the connection was lost; does it want mqtt://?" in others[0]


def test_a_certificate_that_nobody_trusts_is_not(broker: Mosquitto, closing: ExitStack, said: list[str]) -> None:
    published(Board(), said, closing, url(broker), "--mqtt-topic", "edge/porch")
    wait(lambda: said)
    assert "its certificate is not trusted" in said[0]


def test_a_certificate_for_another_host_is_not_taken(
    tmp_path: Path, unused_port: int, closing: ExitStack, login: tuple[str, ...], said: list[str]
) -> None:
    elsewhere = Mosquitto(tmp_path, unused_port, "127.0.0.2")
    closing.callback(elsewhere.kill)
    published(Board(), said, closing, url(elsewhere), *login)
    wait(lambda: said)
    assert "its certificate is not trusted: IP address mismatch" in said[0]


def test_what_the_access_list_forbids_is_said(
    broker: Mosquitto, closing: ExitStack, login: tuple[str, ...], said: list[str]
) -> None:
    home = published(Board(), said, closing, url(broker), *login[:4], "--mqtt-topic", "edge/other")
    home.emit(Notice("governor", "x", "y", 1.7e9))
    wait(lambda: any("publishing to edge/other/notices is refused: not authorized" in line for line in said))
    home.close()
    assert home.lost == 1


def test_what_is_too_large_for_the_broker_is_said(
    tmp_path: Path, unused_port: int, closing: ExitStack, login: tuple[str, ...], said: list[str]
) -> None:
    broker = Mosquitto(tmp_path, unused_port, more="max_packet_size 3000\n")
    closing.callback(broker.kill)
    home = published(Board(), said, closing, url(broker), *login, "--mqtt-on", "all")
    home.emit(event(scores=(0.1,) * 200))
    wait(lambda: any("messages of more than 3000 bytes are refused" in line for line in said))
    home.close()
    assert home.lost == 1


def test_an_end_is_told_at_once(broker: Mosquitto, closing: ExitStack, login: tuple[str, ...], said: list[str]) -> None:
    viewer = Subscriber(broker, "viewer", "edge/porch/#")
    closing.callback(viewer.end)
    home = published(Board(), said, closing, url(broker), *login)
    viewer.wait(lambda viewer: viewer.of("edge/porch/state"))
    home.close()
    viewer.wait(lambda viewer: viewer.of("edge/porch/availability") == ["online", "offline"], seconds=4)
    assert said == [f"mqtt: {url(broker)}: connected, topics are below edge/porch"]
