"""Publishing to an MQTT 5 broker: events, notices and the state, with a last will; commands in; Home Assistant.

sink ─► outbox (what waits) ─► connection (a thread of its own; client: paho) ◄─► broker
                                  └──► reports (state, results) ─► commands, home_assistant
address, topics (what the options say), trouble (what goes wrong, in words)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edge.errors import UsageError

if TYPE_CHECKING:  # they bring paho, and the loop
    from edge.commands.options import RunOptions
    from edge.monitor import Monitor
    from edge.mqtt.sink import MqttSink

__all__ = ["open_mqtt"]


def open_mqtt(options: RunOptions, monitor: Monitor, say: Callable[[str], None]) -> MqttSink:
    """The sink that the `--mqtt` options ask for; it connects by itself, now or later. Raises UsageError."""
    try:
        from edge.mqtt.connection import Connection
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "paho":
            raise
        raise UsageError("--mqtt: paho-mqtt is not installed; pip install 'edge-run[mqtt]'") from None
    from edge.mqtt.address import broker_of
    from edge.mqtt.commands import Commands
    from edge.mqtt.home_assistant import HomeAssistant
    from edge.mqtt.outbox import Outbox
    from edge.mqtt.reports import Reports
    from edge.mqtt.sink import MqttSink
    from edge.mqtt.topics import check_topic, identity, topics_of
    from edge.mqtt.trouble import Outages

    topics = topics_of(options.mqtt_topic, options.mqtt_qos)
    commands = home = None
    if options.mqtt_commands is not None:
        check_topic("--mqtt-commands", options.mqtt_commands)
        commands = Commands(options.mqtt_commands, monitor.controls)
    who = identity(topics.prefix)
    if options.home_assistant:
        check_topic("--home-assistant-prefix", options.home_assistant_prefix)
        home = HomeAssistant(options.home_assistant_prefix, who, topics, options.mqtt_commands)
    broker = broker_of(options, say)
    outbox = Outbox(options.mqtt_queue)
    reports = Reports(topics, monitor, say, commands=commands, home=home)
    outages = Outages(broker.name, topics.prefix, say)
    connection = Connection(broker, who, topics.available(there=False), outbox, reports, outages)
    return MqttSink(connection, outbox, reports, options.mqtt_on)
