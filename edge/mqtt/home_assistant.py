"""How Home Assistant finds this board: one retained message that lists its entities.

Device-based discovery, Home Assistant 2024.11 and later: https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload
"""

from __future__ import annotations

from typing import Any

import msgspec

from edge import __version__
from edge.mqtt.topics import Message, Topics
from edge.status import SourceStatus, Status

LONGEST_STATE = 255
"""Characters in a state; a longer one is none to Home Assistant."""
LONGEST_NAME = 60


class HomeAssistant:
    """Describes a board by its status: what it has no sensor for gets no entity, and without `commands`, the topic that
    they are taken from, there is nothing to switch. `identity` is the same in every run, and so are the entities' ids.
    """

    def __init__(self, prefix: str, identity: str, topics: Topics, commands: str | None) -> None:
        self.birth_topic = f"{prefix}/status"
        self.topic = f"{prefix}/device/{identity}/config"
        self._identity, self._topics, self._commands = identity, topics, commands

    def discovery(self, status: Status) -> Message:
        """The message that makes the device known."""
        components: dict[str, dict[str, Any]] = {}
        for source in status.sources:
            components |= self._of_source(source, alone=len(status.sources) == 1)
        components |= _of_board(status)
        if self._commands is not None:
            components |= _to_control(status, self._commands)
        for key, component in components.items():
            component.update(unique_id=f"{self._identity}_{key}", qos=1)  # neither is inherited from the device
        payload = {
            "device": {
                "identifiers": [self._identity],
                "name": self._topics.prefix.removeprefix("edge/")[:LONGEST_NAME],
                "manufacturer": "edge-run",
                "model": status.board.title,
                "sw_version": __version__,
            },
            "origin": {"name": "edge-run", "sw_version": __version__},
            "availability": [{"topic": self._topics.availability}],
            "state_topic": self._topics.state,
            "components": components,
        }
        return Message(self.topic, msgspec.json.encode(payload), 1, retain=True)

    def _of_source(self, source: SourceStatus, *, alone: bool) -> dict[str, dict[str, Any]]:
        about = "" if alone else f"{source.name[:LONGEST_NAME]}: "
        key, here = f"source_{source.number}", f"value_json.sources[{source.number - 1}]"
        result = self._topics.result(source.number)
        return {
            f"{key}_result": {
                "platform": "sensor",
                "name": f"{about}Result",
                "icon": "mdi:eye",
                "state_topic": result,
                "value_template": f"{{{{ (value_json.label or 'nothing')[:{LONGEST_STATE}] }}}}",
                "json_attributes_topic": result,
            },
            f"{key}_confidence": {
                "platform": "sensor",
                "name": f"{about}Confidence",
                "icon": "mdi:percent",
                "unit_of_measurement": "%",
                "state_class": "measurement",
                "suggested_display_precision": 0,
                "value_template": f"{{{{ {here}.result.confidence * 100 if {here}.result else None }}}}",
            },
            f"{key}_problem": {
                "platform": "binary_sensor",
                "name": f"{about}Camera",
                "device_class": "problem",
                "value_template": f"{{{{ 'ON' if {here}.state in ('stalled', 'lost') else 'OFF' }}}}",
            },
        }


def _of_board(status: Status) -> dict[str, dict[str, Any]]:
    """How it is doing; all of it is diagnostic."""
    found: dict[str, dict[str, Any]] = {
        "fps": _sensor("Frames a second", "value_json.fps", "mdi:speedometer", unit="fps"),
        "age": _sensor("Age of results", "value_json.stages_ms.age if value_json.stages_ms else None", "mdi:timer", unit="ms"),
        "dropped": _sensor("Frames dropped", "value_json.sources | sum(attribute='dropped')", "mdi:filmstrip-off", total=True),
        "events_lost": _sensor("Events lost", "value_json.events_lost", "mdi:email-off", total=True),
        "memory": _sensor("Memory", "value_json.board.memory_bytes", None, unit="B", device_class="data_size"),
        "throttled": {
            "platform": "binary_sensor",
            "name": "Throttled",
            "device_class": "problem",
            "entity_category": "diagnostic",
            "value_template": "{{ 'ON' if value_json.board.throttled else 'OFF' }}",
        },
    }
    if status.board.temperature_c is not None:
        value = "value_json.board.temperature_c"
        found["temperature"] = _sensor("Temperature", value, None, unit="°C", device_class="temperature")
    if status.offload is not None:
        found["endpoint"] = {
            "platform": "binary_sensor",
            "name": "Endpoint",
            "device_class": "connectivity",
            "entity_category": "diagnostic",
            "value_template": "{{ 'OFF' if value_json.offload and value_json.offload.breaker == 'open' else 'ON' }}",
        }
    return found


def _sensor(
    name: str, value: str, icon: str | None, *, unit: str | None = None, device_class: str | None = None, total: bool = False
) -> dict[str, Any]:
    given = {"icon": icon, "unit_of_measurement": unit, "device_class": device_class}
    return {
        "platform": "sensor",
        "name": name,
        "entity_category": "diagnostic",
        "state_class": "total_increasing" if total else "measurement",
        "value_template": f"{{{{ {value} }}}}",
    } | {key: text for key, text in given.items() if text is not None}


def _to_control(status: Status, commands: str) -> dict[str, dict[str, Any]]:
    """What there is to switch and to set."""
    controls = status.controls
    found = {"pause": _switch("Pause", "paused", f"{commands}/pause", "mdi:pause")}
    if controls.gate is not None:
        found["gate"] = _switch("Motion gate", "gate", f"{commands}/gate", "mdi:motion-sensor")
    if controls.threshold is not None:
        found["threshold"] = _number("Offload threshold", "threshold", f"{commands}/threshold")
    if controls.score_threshold is not None:
        found["score_threshold"] = _number("Score threshold", "score_threshold", f"{commands}/score_threshold")
    return found


def _switch(name: str, control: str, topic: str, icon: str) -> dict[str, Any]:
    return {
        "platform": "switch",
        "name": name,
        "icon": icon,
        "entity_category": "config",
        "command_topic": topic,
        "value_template": f"{{{{ 'ON' if value_json.controls.{control} else 'OFF' }}}}",
    }


def _number(name: str, control: str, topic: str) -> dict[str, Any]:
    return {
        "platform": "number",
        "name": name,
        "entity_category": "config",
        "command_topic": topic,
        "min": 0,
        "max": 1,
        "step": 0.01,
        "mode": "slider",
        "value_template": f"{{{{ value_json.controls.{control} }}}}",
    }
