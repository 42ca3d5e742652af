"""The discovery message, against what Home Assistant's documentation says of it; Home Assistant itself is not here.

https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload, and the pages of the four platforms.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest

from edge.mqtt.home_assistant import HomeAssistant
from edge.mqtt.reports import encode_status
from edge.mqtt.topics import topics_of
from tests.mqtt.board import BOARD, Board

ENTITY = {"platform", "name", "unique_id", "icon", "device_class", "entity_category", "value_template", "state_topic", "qos"}
ALLOWED = {
    "sensor": ENTITY | {"unit_of_measurement", "state_class", "suggested_display_precision", "json_attributes_topic"},
    "binary_sensor": ENTITY,
    "switch": ENTITY | {"command_topic"},
    "number": ENTITY | {"command_topic", "min", "max", "step", "mode"},
}
CATEGORIES: dict[str, set[str | None]] = {
    "sensor": {None, "diagnostic"},
    "binary_sensor": {None, "diagnostic"},
    "switch": {None, "config"},
}
CLASSES: dict[str, set[str | None]] = {
    "sensor": {None, "temperature", "data_size"},
    "binary_sensor": {"problem", "connectivity"},
    "switch": {None},
    "number": {None},
}
UNITS = {"temperature": "°C", "data_size": "B"}
OBJECT_ID = re.compile("[a-zA-Z0-9_-]+")


def discovered(board: Board, commands: str | None = "set/porch", prefix: str = "edge/porch") -> tuple[str, dict[str, Any]]:
    home = HomeAssistant("homeassistant", "edge-0123456789abcdef", topics_of(prefix, ()), commands)
    message = home.discovery(board.status())
    assert message.retain
    assert message.qos == 1
    return message.topic, json.loads(message.payload)


@pytest.mark.parametrize("commands", [None, "set/porch"])
@pytest.mark.parametrize("sources", [1, 3])
@pytest.mark.parametrize("offload", [False, True])
def test_the_payload_is_as_documented(commands: str | None, sources: int, offload: bool) -> None:
    topic, payload = discovered(Board(sources=sources, offload=offload), commands)
    prefix, kind, object_id, config = topic.split("/")
    assert (prefix, kind, config) == ("homeassistant", "device", "config")
    assert OBJECT_ID.fullmatch(object_id)
    assert set(payload) == {"device", "origin", "availability", "state_topic", "components"}
    assert payload["device"]["identifiers"] == ["edge-0123456789abcdef"]
    assert payload["device"]["name"] == "porch"
    assert payload["origin"]["name"] == "edge-run"
    assert payload["availability"] == [{"topic": "edge/porch/availability"}]
    for key, component in payload["components"].items():
        platform = component["platform"]
        assert set(component) <= ALLOWED[platform], key
        assert component["unique_id"] == f"edge-0123456789abcdef_{key}"
        assert component["qos"] == 1  # commands are published with it, so that one is kept for a board that is away
        assert OBJECT_ID.fullmatch(key)
        assert component["name"]
        assert component["value_template"].startswith("{{ ")
        assert component.get("entity_category") in CATEGORIES.get(platform, {"config"}), key
        assert component.get("device_class") in CLASSES[platform], key
        unit = UNITS.get(component.get("device_class", ""))
        assert unit is None or component["unit_of_measurement"] == unit
        assert component.get("state_class") in (None, "measurement", "total_increasing")
        if platform in ("switch", "number"):
            assert commands is not None
            assert component["command_topic"].startswith("set/porch/")
    names = [component["name"] for component in payload["components"].values()]
    assert len(set(names)) == len(names)


def test_nothing_can_be_switched_without_a_topic_for_commands() -> None:
    platforms = {component["platform"] for component in discovered(Board(), None)[1]["components"].values()}
    assert platforms == {"sensor", "binary_sensor"}


def test_what_there_is_to_switch_and_to_set() -> None:
    components = discovered(Board())[1]["components"]
    found = {key: one["command_topic"] for key, one in components.items() if "command_topic" in one}
    assert found == {
        "pause": "set/porch/pause",
        "gate": "set/porch/gate",
        "threshold": "set/porch/threshold",
        "score_threshold": "set/porch/score_threshold",
    }


def test_what_the_board_has_not_is_no_entity() -> None:
    board = Board(offload=False)
    board.change(board=msgspec.structs.replace(BOARD, temperature_c=None))
    components = discovered(board)[1]["components"]
    assert "temperature" not in components
    assert "endpoint" not in components
    assert {"temperature", "endpoint"} <= set(discovered(Board())[1]["components"])


def test_every_source_has_its_entities_under_its_name() -> None:
    components = discovered(Board(sources=2))[1]["components"]
    assert components["source_2_problem"]["name"] == "camera:1: Camera"
    assert components["source_2_result"]["state_topic"] == "edge/porch/sources/2/result"
    assert discovered(Board())[1]["components"]["source_1_result"]["name"] == "Result"


def test_templates_lead_to_what_is_in_the_state() -> None:
    """Each dotted path of each template; those of a result's own topic aside."""
    board = Board(sources=2)
    state = json.loads(encode_status(board.status()))
    for key, component in discovered(board)[1]["components"].items():
        if "state_topic" in component:
            continue
        paths = re.findall(r"value_json((?:\.\w+|\[\d+\])+)", component["value_template"])
        assert paths, key
        for path in paths:
            value = state
            for name, number in re.findall(r"\.(\w+)|\[(\d+)\]", path):
                value = value[name] if name else value[int(number)]


def test_templates_say_what_they_should() -> None:
    jinja2 = pytest.importorskip("jinja2")
    board = Board(sources=2)
    board.show("rose", number=2, state="lost")
    board.controls.pause(True, "web")
    board.change(stages_ms=None)
    state = json.loads(encode_status(board.status()))
    components = discovered(board)[1]["components"]

    def rendered(key: str, value_json: object = state) -> str:
        return str(jinja2.Environment().from_string(components[key]["value_template"]).render(value_json=value_json))

    assert (rendered("source_1_problem"), rendered("source_2_problem")) == ("OFF", "ON")
    assert (rendered("pause"), rendered("gate"), rendered("threshold")) == ("ON", "ON", "0.5")
    assert (rendered("source_2_confidence"), rendered("dropped"), rendered("fps")) == ("50.0", "6", "9.8")
    assert (rendered("age"), rendered("temperature"), rendered("throttled")) == ("None", "61.5", "OFF")
    assert rendered("endpoint") == "ON"
    assert rendered("source_1_result", {"label": None}) == "nothing"
    assert rendered("source_1_result", {"label": "x" * 300}) == "x" * 255
