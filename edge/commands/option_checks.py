"""What can be told of edge-run's options without a file, the network or the model: each value, and values that do not fit.

The parsers are those that a run uses, imported when there is something to parse: --help does without OpenCV and NumPy.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from edge.commands.option_values import for_source, score_thresholds
from edge.errors import UsageError

if TYPE_CHECKING:
    from edge.commands.options import RunOptions

NEEDS_A_PARSER = re.compile(r"(pi)?camera:|gst:|(?!file://)[a-z][a-z0-9+.-]+://|$")
"""The beginning of a source that is neither a path nor the demo."""


def check_camera(text: str) -> None:
    """Refuse what is neither a number nor a device."""
    if not re.fullmatch(r"\d{1,3}|/dev/.+", text, re.ASCII):
        raise UsageError(f"--camera {text}: expected a number, as 0 for /dev/video0, or a path in /dev")


def check_source(uri: str) -> None:
    """Refuse a scheme that is not known and a URL that is none; whether a path is there is not looked at."""
    if NEEDS_A_PARSER.match(uri):
        from edge.sources import open_source

        open_source(uri)


def check_region(text: str) -> None:
    """Refuse what is no region, or one of source N: `[N:]X,Y,...`."""
    from edge.regions import parse_region

    number, colon, polygon = text.rpartition(":")
    if colon and not re.fullmatch(r"[1-9]\d{0,3}", number, re.ASCII):
        raise UsageError(f"region {text!r:.80}: before the colon stands a source's number, from 1")
    parse_region(polygon)


def check_score_threshold(text: str) -> None:
    """Refuse what is neither a score nor that of a class."""
    score_thresholds((text,))


def check_video(path: str) -> None:
    """Refuse a name by whose ending no kind of video is known."""
    from edge.sinks.video import CODECS

    if not path.lower().endswith(tuple(CODECS)):
        raise UsageError(f"--video {path}: give a name ending in {', '.join(CODECS)}")


def check_webhook(url: str) -> None:
    """Refuse what cannot be posted to."""
    from edge.sinks.webhook import WebhookSink

    WebhookSink(url, lambda line: None, changes_only=True).close()


def check_endpoint(url: str) -> None:
    """Refuse what is no endpoint's address."""
    from edge.offload.address import parse_address

    parse_address(url, "model")


def check_pin(text: str) -> None:
    """Refuse what is no fingerprint."""
    from edge.offload.credentials import Credentials

    Credentials(pin=text).fingerprint()


def check_web(text: str) -> None:
    """Refuse what is no place to listen at."""
    from edge.web.address import parse_address

    parse_address(text)


def check_broker(url: str) -> None:
    """Refuse what is no broker's address."""
    from edge.mqtt.address import parse_address

    parse_address(url)


def check_user(name: str) -> None:
    """Refuse what is no name to log in under."""
    from edge.mqtt.address import check_user

    check_user(name)


def check_topic(flag: str) -> Callable[[str], None]:
    """What refuses a topic that nothing can be published below."""

    def check(text: str) -> None:
        from edge.mqtt.topics import check_topic

        check_topic(flag, text)

    return check


def check_qos(text: str) -> None:
    """Refuse what is no quality of service, or one of no topic of ours."""
    from edge.mqtt.topics import topics_of

    topics_of("edge", (text,))


def check_together(options: RunOptions, *, all_sources: bool = True) -> None:
    """Refuse values that do not fit one another; what is said begins with a flag.

    `all_sources`: no others are read than those that the options name.
    """
    _check_sources(options, all_sources=all_sources)
    _check_policy(options)
    _check_trust(options)


def _check_sources(options: RunOptions, *, all_sources: bool) -> None:
    named = [("--camera", text) for text in options.camera] + [("--source", text) for text in options.source]
    uris = [text if text.startswith("/dev/") or flag == "--source" else f"camera:{text}" for flag, text in named]
    for number, (flag, text) in enumerate(named):
        if uris[number] in uris[:number]:
            from edge.sources.camera import without_password

            raise UsageError(f"{flag} {without_password(text)} is given twice; give each source once")
    if not uris or not all_sources:
        return
    for number in range(1, len(uris) + 1):
        for_source(options.mask, "--mask", number, len(uris))
        count = len(for_source(options.roi, "--roi", number, len(uris)))
        if count > 1:
            raise UsageError(f"--roi is given {count} times for source {number}; give it once")


def _check_policy(options: RunOptions) -> None:
    if options.max_error is not None and options.policy != "guarantee":
        raise UsageError("--max-error does nothing without --policy guarantee; give both or neither")
    if options.offload is None:
        return
    allowance = options.offload_budget
    if options.policy != "budget":
        if allowance is not None:
            raise UsageError("--offload-budget does nothing without --policy budget; give both or neither")
    elif allowance is None:
        raise UsageError("--policy budget needs --offload-budget, as in 5%, 600/h or 20MB/h")
    elif options.offload_price is not None and (allowance.in_bytes or allowance.per_frame):
        raise UsageError(f"--offload-price: the budget {allowance.text} is not of money; give an amount as in 0.50/h")
    if options.policy == "guarantee":
        for name in ("classes", "roi", "score_threshold", "second_look", "threshold"):
            if getattr(options, name) not in (None, ()):
                flag = f"--{name.replace('_', '-')}"
                raise UsageError(f"--policy guarantee: the bundle's promises are for its own answers; leave {flag} out")
    if options.spool is not None and options.offload_send == "tensor":
        raise UsageError(
            "--spool keeps pictures, which an endpoint asked with --offload-send tensor does not take; leave one out"
        )


def _check_trust(options: RunOptions) -> None:
    """Certificates are for encrypted connections, and a fingerprint for HTTP; no file is read."""
    if options.offload_ca or options.offload_pin or options.offload_cert:
        from edge.offload.address import parse_address
        from edge.offload.credentials import Credentials

        address = parse_address(options.offload or "", "model")
        if not address.encrypted:
            Credentials(options.offload_ca, options.offload_pin, options.offload_cert).check(address)
        elif options.offload_pin:
            Credentials(pin=options.offload_pin).check(address)
    if options.mqtt is not None and (options.mqtt_ca or options.mqtt_cert):
        from edge.mqtt import address as broker

        broker.check_trust(broker.parse_address(options.mqtt)[0], options)
