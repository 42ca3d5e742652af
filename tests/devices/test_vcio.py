"""The Raspberry Pi's firmware: what is sent to it, and how its answers are understood."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from devices import vcio

ADC = """\
     3V7_WL_SW_A current(0)=0.09759200A
       3V3_SYS_A current(1)=0.07221800A
     VDD_CORE_A current(7)=1.94400000A
     3V7_WL_SW_V volt(8)=3.70000000V
       3V3_SYS_V volt(9)=3.30000000V
     VDD_CORE_V volt(15)=0.88000000V
         EXT5V_V volt(24)=5.14980000V
          BATT_V volt(25)=0.00000000V
"""


def test_what_is_sent_and_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vcio").touch()
    sent: list[bytes] = []

    def ioctl(descriptor: int, request: int, message: bytearray) -> int:
        assert request == (0xC0086400 if struct.calcsize("P") == 8 else 0xC0046400)
        sent.append(bytes(message))
        message[24:36] = b"throttled=0x"
        message[36:42] = b"50005\0"
        return 0

    monkeypatch.setattr("devices.vcio.fcntl.ioctl", ioctl)
    assert vcio.ask(str(tmp_path / "vcio"), "get_throttled") == "throttled=0x50005"
    words = struct.unpack("=6I", sent[0][:24])
    assert words == (len(sent[0]), 0, 0x00030080, 1024, 0, 0)
    assert len(sent[0]) == 1024 + 7 * 4
    assert sent[0][24:].rstrip(b"\0") == b"get_throttled"


def test_no_device_and_no_right(tmp_path: Path) -> None:
    assert vcio.ask(str(tmp_path / "nowhere"), "get_throttled") == ""
    (tmp_path / "plain").touch()
    assert vcio.ask(str(tmp_path / "plain"), "get_throttled") == ""
    assert vcio.ask(str(tmp_path), "get_throttled") == ""


def test_watts_are_of_rails_with_both() -> None:
    assert vcio.rails_watts(ADC) == pytest.approx(0.097592 * 3.7 + 0.072218 * 3.3 + 1.944 * 0.88)


@pytest.mark.parametrize(
    "answer", ["", 'error=1 error_msg="Command not registered"', "EXT5V_V volt(24)=5.1V", "A current(x)=1A"]
)
def test_answers_without_watts(answer: str) -> None:
    assert vcio.rails_watts(answer) is None


@pytest.mark.parametrize(
    ("answer", "word"),
    [("throttled=0x50005\n", 0x50005), ("throttled=0x0", 0), ("", None), ("throttled=", None), ("0x1", None)],
)
def test_throttled_word(answer: str, word: int | None) -> None:
    assert vcio.throttled_word(answer) == word
