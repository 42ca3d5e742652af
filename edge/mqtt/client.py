"""paho's client as we want it: MQTT 5, a session that outlives short breaks, a will; and what a broker allows."""

from __future__ import annotations

from dataclasses import dataclass

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge.mqtt.address import Broker
from edge.mqtt.outbox import WINDOW
from edge.mqtt.topics import Message

KEEPALIVE_S = 30
SESSION_S = 300
"""A break of at most so long keeps the session: messages under way, subscriptions, and commands that came meanwhile."""
WILL_DELAY_S = 5
"""A shorter break is not told as one."""
ACCEPT_BYTES = 65536
"""The largest packet that a broker may send us."""
HEADER_BYTES = 128
"""At most, of a packet beside its topic and payload."""
NO_LIMIT_BYTES = 1 << 28


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a broker takes: so many messages under way, packets so large, up to this QoS, and retained messages or none."""

    window: int = WINDOW
    packet_bytes: int = NO_LIMIT_BYTES
    qos: int = 2
    retain: bool = True

    def takes(self, message: Message) -> bool:
        """Whether a message is small enough."""
        return len(message.topic.encode()) + len(message.payload) + HEADER_BYTES <= self.packet_bytes


def allowed(connack: Properties | None) -> Allowed:
    """What the broker said when it let us in: MQTT 5.0, section 3.2.2.3."""
    return Allowed(
        min(WINDOW, getattr(connack, "ReceiveMaximum", WINDOW)),
        getattr(connack, "MaximumPacketSize", NO_LIMIT_BYTES),
        getattr(connack, "MaximumQoS", 2),
        bool(getattr(connack, "RetainAvailable", 1)),
    )


def new_client(broker: Broker, client_id: str, will: Message) -> mqtt.Client:
    """A client that has yet to connect; the session of an earlier process is not taken up."""
    client = mqtt.Client(
        CallbackAPIVersion.VERSION2, client_id, protocol=MQTTProtocolVersion.MQTTv5, reconnect_on_failure=False
    )
    if broker.user is not None:
        client.username_pw_set(broker.user, broker.password)
    if broker.tls is not None:
        client.tls_set_context(broker.tls)
    of_will = properties(PacketTypes.WILLMESSAGE, WillDelayInterval=WILL_DELAY_S, ContentType=will.content_type)
    client.will_set(will.topic, will.payload, will.qos, will.retain, of_will)
    asked = properties(
        PacketTypes.CONNECT, SessionExpiryInterval=SESSION_S, ReceiveMaximum=WINDOW, MaximumPacketSize=ACCEPT_BYTES
    )
    client.connect_async(broker.host, broker.port, KEEPALIVE_S, clean_start=mqtt.MQTT_CLEAN_START_FIRST_ONLY, properties=asked)
    return client


def of_message(message: Message, now_s: float) -> Properties:
    """What is said with a message: that it is text, of which kind, and for how long it is worth keeping."""
    more: dict[str, object] = {"PayloadFormatIndicator": 1, "ContentType": message.content_type}
    if message.until_s is not None:
        more["MessageExpiryInterval"] = max(1, round(message.until_s - now_s))
    return properties(PacketTypes.PUBLISH, **more)


def end_of_session() -> Properties:
    """What is said when we leave for good."""
    return properties(PacketTypes.DISCONNECT, SessionExpiryInterval=0)


def subscription(allows: Allowed) -> SubscribeOptions:
    """Not what we published, not what was retained before; what is retained while we listen comes marked as such."""
    return SubscribeOptions(qos=min(1, allows.qos), noLocal=True, retainAsPublished=True, retainHandling=2)


def properties(packet: int, **values: object) -> Properties:
    """MQTT 5.0, section 2.2.2."""
    made = Properties(packet)  # type: ignore[no-untyped-call]
    for name, value in values.items():
        setattr(made, name, value)
    return made
