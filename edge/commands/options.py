"""What edge-run was asked for, as values: whoever needs them needs none of the flags."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # they bring OpenCV and NumPy, which --help does without
    from edge.governor import Quiet
    from edge.policies import Allowance
    from edge.tasks.classify import Look


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the command line of edge-run says, each field an option of that name."""

    camera: tuple[str, ...]
    source: tuple[str, ...]
    size: tuple[int, int]
    rate: float | None
    pixels: str
    camera_timeout: float | None
    frozen_after: float | None
    model_path: Path
    variant: str | None
    threads: int | None
    lanes: int | None
    spin: bool | None
    engine_timeout: float | None
    second_look: Look | None
    score_threshold: tuple[str, ...]
    classes: str | None
    roi: tuple[str, ...]
    mask: tuple[str, ...]
    motion_gate: bool
    refresh: float
    track: bool
    events: str | None
    rotate_mb: float
    keep: int
    video: str | None
    webhook: str | None
    webhook_on: str
    store: str | None
    keep_days: float
    summary_path: str | None
    offload: str | None
    policy: str
    threshold: float | None
    offload_budget: Allowance | None
    offload_price: float | None
    max_error: float | None
    offload_deadline: float
    offload_send: str
    redact: str | None
    spool: str | None
    spool_mb: float
    spool_days: float
    offload_ca: str | None
    offload_pin: str | None
    offload_cert: str | None
    offload_key: str | None
    offload_token_file: str | None
    max_temp: float | Literal["auto"] | None
    max_watts: float | None
    target_fps: float | None
    quiet_hours: Quiet | None
    min_battery: float | None
    web: str | None
    web_token_file: str | None
    web_cert: str | None
    web_key: str | None
    web_fps: float
    mqtt: str | None
    mqtt_topic: str | None
    mqtt_user: str | None
    mqtt_password_file: str | None
    mqtt_ca: str | None
    mqtt_cert: str | None
    mqtt_key: str | None
    mqtt_on: Literal["changes", "all", "none"]
    mqtt_qos: tuple[str, ...]
    mqtt_queue: int
    mqtt_commands: str | None
    home_assistant: bool
    home_assistant_prefix: str
    max_frames: int | None

    @property
    def watched(self) -> bool:
        """Whether anybody may look at the loop, or turn its controls, while it runs."""
        return self.web is not None or self.mqtt is not None
