"""Options of edge-run for who wants to watch it: the live page and MQTT."""

from __future__ import annotations

import click

from edge.commands import option_checks
from edge.commands.option_types import Checked, Number

WEB_OPTIONS = (
    click.option(
        "--web",
        metavar="[HOST:]PORT",
        type=Checked(option_checks.check_web),
        help="Serve the live page and /metrics here; on any HOST but loopback a token is needed.  [default: no page]",
    ),
    click.option("--web-token-file", metavar="FILE", help="Ask viewers for the token in this file.  [default: EDGE_WEB_TOKEN]"),
    click.option("--web-cert", metavar="FILE", help="Serve https with this certificate (PEM)."),
    click.option("--web-key", metavar="FILE", help="... whose key is here, unless it is in the same file."),
    click.option(
        "--web-fps",
        metavar="F",
        type=Number(0.1, 60),
        default=5.0,
        show_default=True,
        help="Show viewers at most F pictures a second.",
    ),
)

MQTT_OPTIONS = (
    click.option(
        "--mqtt",
        metavar="URL",
        type=Checked(option_checks.check_broker),
        help="Publish to this broker: mqtts://HOST[:8883], or mqtt://HOST[:1883] without TLS.",
    ),
    click.option(
        "--mqtt-topic",
        metavar="PREFIX",
        type=Checked(option_checks.check_topic("--mqtt-topic")),
        help="Publish below this topic.  [default: edge/ and the host's name]",
    ),
    click.option("--mqtt-user", metavar="NAME", type=Checked(option_checks.check_user), help="Log in under this name."),
    click.option(
        "--mqtt-password-file", metavar="FILE", help="... with the password in this file.  [default: EDGE_MQTT_PASSWORD]"
    ),
    click.option("--mqtt-ca", metavar="FILE", help="Trust certificates signed by these (PEM) instead of the system's."),
    click.option("--mqtt-cert", metavar="FILE", help="Show the broker this certificate (PEM)."),
    click.option("--mqtt-key", metavar="FILE", help="... whose key is here, unless it is in the same file."),
    click.option(
        "--mqtt-on",
        type=click.Choice(["changes", "all", "none"]),
        default="changes",
        show_default=True,
        help="Publish events in which something enters, leaves or changes; every event; or none, the state only.",
    ),
    click.option(
        "--mqtt-qos",
        metavar="[TOPIC=]N",
        type=Checked(option_checks.check_qos),
        multiple=True,
        help="Quality of service 0, 1 or 2, of all topics or of one below the prefix.  [default: state=0, all others 1]",
    ),
    click.option(
        "--mqtt-queue",
        metavar="N",
        type=click.IntRange(0, 1_000_000),
        default=1000,
        show_default=True,
        help="While the broker is away, keep the newest N events for it.",
    ),
    click.option(
        "--mqtt-commands",
        metavar="TOPIC",
        type=Checked(option_checks.check_topic("--mqtt-commands")),
        help="Take commands (pause, threshold, ...) from below this topic.  [default: no commands]",
    ),
    click.option("--home-assistant/--no-home-assistant", default=False, help="Let Home Assistant find this device."),
    click.option(
        "--home-assistant-prefix",
        metavar="TOPIC",
        type=Checked(option_checks.check_topic("--home-assistant-prefix")),
        default="homeassistant",
        show_default=True,
        help="... which looks for it below this topic.",
    ),
)

IDLE_WITHOUT = {
    "web_token_file": "web",
    "web_cert": "web",
    "web_key": "web_cert",
    "web_fps": "web",
    "mqtt_topic": "mqtt",
    "mqtt_user": "mqtt",
    "mqtt_password_file": "mqtt_user",
    "mqtt_ca": "mqtt",
    "mqtt_cert": "mqtt",
    "mqtt_key": "mqtt_cert",
    "mqtt_on": "mqtt",
    "mqtt_qos": "mqtt",
    "mqtt_queue": "mqtt",
    "mqtt_commands": "mqtt",
    "home_assistant": "mqtt",
    "home_assistant_prefix": "home_assistant",
}
"""Parameter → the one without which it does nothing."""
