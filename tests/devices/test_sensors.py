"""Temperatures, throttling, power and load, from pretended roots."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices import BOARDS, Board, Reading, Sensors, detect
from devices.generic import X86_64
from devices.sensors import FIND_AGAIN_S
from tests.devices.faked import machine

KNOWN = {board.name: board for board in BOARDS}
PI_4, PI_5, ORIN, NANO = KNOWN["raspberry-pi-4"], KNOWN["raspberry-pi-5"], KNOWN["jetson-orin-nano"], KNOWN["jetson-nano"]
AGX = KNOWN["jetson-agx-orin"]
PC = replace(X86_64, clusters=PI_4.clusters)

ZONE = "sys/class/thermal/thermal_zone"
COOLING = "sys/class/thermal/cooling_device"
HWMON = "sys/class/hwmon/hwmon"
SUPPLY = "sys/class/power_supply/"
RAPL = "sys/class/powercap/intel-rapl:"
THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def reading(root: Path, board: Board, files: dict[str, Any]) -> Reading:
    return Sensors(board, machine(root, files)).read()


def test_nothing_there(tmp_path: Path) -> None:
    assert Sensors(PI_4, tmp_path).read() == Reading()
    assert Sensors(PI_4, tmp_path / "nowhere").read() == Reading()


def test_this_machine_is_read_quickly() -> None:
    sensors = Sensors(detect())
    sensors.read()
    times = []
    for _ in range(20):
        start = time.perf_counter()
        sensors.read()
        times.append(time.perf_counter() - start)
    assert min(times) < 1e-3


class TestHeat:
    def test_the_hottest_zone_that_counts(self, tmp_path: Path) -> None:
        zones = {
            f"{ZONE}0/type": "cpu-thermal",
            f"{ZONE}0/temp": 51_234,
            f"{ZONE}1/type": "gpu-thermal",
            f"{ZONE}1/temp": 61_000,
            f"{ZONE}2/type": "PMIC-Die",
            f"{ZONE}2/temp": 100_000,
        }
        found = reading(tmp_path, ORIN, zones)
        assert (found.temperature_c, found.zone) == (61.0, "gpu-thermal")
        assert reading(tmp_path, PI_4, {}).temperature_c == 51.234  # its GPU has no zone

    def test_any_zone_where_none_counts(self, tmp_path: Path) -> None:
        found = reading(tmp_path, PI_4, {f"{ZONE}3/type": "acme", f"{ZONE}3/temp": 40_000, f"{HWMON}0/temp1_input": 99_000})
        assert (found.temperature_c, found.zone) == (40.0, "acme")

    def test_hwmon_of_a_processor_without_a_zone(self, tmp_path: Path) -> None:
        found = reading(tmp_path, PC, {f"{HWMON}2/name": "k10temp", f"{HWMON}2/temp1_input": 71_000})
        assert (found.temperature_c, found.zone) == (71.0, "k10temp")

    @pytest.mark.parametrize("temperature", ["", "hot", -273_000, 2_000_000, b"\xff\xfe", "51.2"])
    def test_what_no_chip_can_be_is_left_out(self, tmp_path: Path, temperature: Any) -> None:
        zones = {f"{ZONE}0/type": "cpu-thermal", f"{ZONE}0/temp": temperature}
        assert reading(tmp_path, ORIN, zones).temperature_c is None
        zones |= {f"{ZONE}1/type": "gpu-thermal", f"{ZONE}1/temp": 30_000}
        assert reading(tmp_path, ORIN, zones).zone == "gpu-thermal"

    def test_a_zone_that_sleeps_is_read_once_it_wakes(self, tmp_path: Path) -> None:
        sensors = Sensors(ORIN, machine(tmp_path, {f"{ZONE}0/type": "gpu-thermal", f"{ZONE}0/temp": ""}))
        assert sensors.read().temperature_c is None
        machine(tmp_path, {f"{ZONE}0/temp": 55_000})
        assert sensors.read().temperature_c == 55.0


def test_a_file_that_vanishes_is_looked_for_again(tmp_path: Path) -> None:
    clock = Clock()
    sensors = Sensors(PI_4, machine(tmp_path, {f"{ZONE}0/type": "cpu-thermal", f"{ZONE}0/temp": 50_000}), clock=clock)
    assert sensors.read().temperature_c == 50.0
    shutil.rmtree(tmp_path / f"{ZONE}0")
    machine(tmp_path, {f"{ZONE}7/type": "cpu-thermal", f"{ZONE}7/temp": 60_000})
    assert sensors.read().temperature_c is None
    clock.now_s += FIND_AGAIN_S
    assert sensors.read().temperature_c == 60.0


class TestThrottling:
    @pytest.mark.parametrize(
        ("word", "now", "since_boot"),
        [
            ("0", set(), set()),
            ("1", {"under-voltage"}, {"under-voltage"}),
            ("50005", {"under-voltage", "throttled"}, {"under-voltage", "throttled"}),
            ("50000", set(), {"under-voltage", "throttled"}),
            ("a000a", {"frequency-capped", "soft-temperature-limit"}, {"frequency-capped", "soft-temperature-limit"}),
            ("0x80008", {"soft-temperature-limit"}, {"soft-temperature-limit"}),
            ("-1", set(), set()),
            ("throttled=0x1", set(), set()),
            ("", set(), set()),
        ],
    )
    def test_the_firmware_of_a_pi(self, tmp_path: Path, word: str, now: set[str], since_boot: set[str]) -> None:
        found = reading(tmp_path, PI_4, {THROTTLED: word})
        assert (found.throttled, found.throttled_since_boot) == (now, since_boot)

    def test_a_pi_5_has_it_elsewhere(self, tmp_path: Path) -> None:
        place = "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled"
        assert reading(tmp_path, PI_5, {place: "4"}).throttled == {"throttled"}

    @pytest.mark.parametrize("file", [{}, {THROTTLED: "2"}])
    def test_its_mailbox_is_believed_first(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: dict[str, Any]) -> None:
        answers = {"get_throttled": "throttled=0x50001\n"}
        monkeypatch.setattr("devices.heat.ask", lambda device, command: answers[command])
        found = reading(tmp_path, PI_5, file)
        assert (found.throttled, found.throttled_since_boot) == ({"under-voltage"}, {"under-voltage", "throttled"})

    def test_the_voltage_alarm(self, tmp_path: Path) -> None:
        sensors = Sensors(PI_4, machine(tmp_path, {f"{HWMON}1/name": "rpi_volt", f"{HWMON}1/in0_lcrit_alarm": 1}))
        assert sensors.read().throttled == {"under-voltage"}
        machine(tmp_path, {f"{HWMON}1/in0_lcrit_alarm": 0})
        after = sensors.read()
        assert (after.throttled, after.throttled_since_boot) == (set(), {"under-voltage"})

    @pytest.mark.parametrize(
        ("kind", "state", "throttled"),
        [("cpufreq-cpu0", 2, True), ("thermal-cpufreq-0", 1, True), ("cpufreq-cpu0", 0, False), ("pwm-fan", 3, False)],
    )
    def test_cooling_by_slowing_down(self, tmp_path: Path, kind: str, state: int, throttled: bool) -> None:
        found = reading(tmp_path, ORIN, {f"{COOLING}0/type": kind, f"{COOLING}0/cur_state": state})
        assert found.throttled == ({"throttled"} if throttled else set())

    def test_over_current_events_of_an_orin(self, tmp_path: Path) -> None:
        chip = f"{HWMON}3"
        files = {f"{chip}/name": "soctherm_oc", f"{chip}/oc1_event_cnt": 0, f"{chip}/oc3_event_cnt": 7}
        sensors = Sensors(ORIN, machine(tmp_path, files))
        first = sensors.read()
        assert (first.throttled, first.throttled_since_boot) == (set(), {"throttled"})
        machine(tmp_path, {f"{chip}/oc1_event_cnt": 1, f"{chip}/oc3_event_cnt": 9})
        assert sensors.read().throttled == {"under-voltage", "throttled"}
        assert sensors.read().throttled == set()

    def test_the_counters_of_an_x86_processor(self, tmp_path: Path) -> None:
        cpus = [f"sys/devices/system/cpu/cpu{number}" for number in range(4)]
        for number, cpu in enumerate(cpus):
            files = {f"{cpu}/thermal_throttle/package_throttle_count": 3, f"{cpu}/topology/physical_package_id": number // 2}
            machine(tmp_path, files)
        sensors = Sensors(PC, tmp_path)
        assert sensors.read().throttled == set()
        for cpu in cpus[2:]:  # the second package's
            machine(tmp_path, {f"{cpu}/thermal_throttle/package_throttle_count": 4})
        found = sensors.read()
        assert (found.throttled, found.throttled_since_boot) == ({"throttled"}, {"throttled"})
        assert sensors.read().throttled == set()


class TestPower:
    def rails(self, chip: str, *rails: tuple[str, int, int]) -> dict[str, Any]:
        files: dict[str, Any] = {f"{chip}/name": "ina3221"}
        for channel, (label, volts_m, amperes_m) in enumerate(rails, 1):
            files[f"{chip}/in{channel}_label"] = label
            files[f"{chip}/in{channel}_input"] = volts_m
            files[f"{chip}/curr{channel}_input"] = amperes_m
        return files

    def test_the_whole_board_s_rail(self, tmp_path: Path) -> None:
        chip = self.rails(f"{HWMON}1", ("VDD_IN", 5000, 1500), ("VDD_CPU_GPU_CV", 5000, 400), ("VDD_SOC", 5000, 300))
        assert reading(tmp_path, ORIN, chip).watts == pytest.approx(7.5)

    def test_the_sum_where_no_rail_feeds_all(self, tmp_path: Path) -> None:
        one = self.rails(f"{HWMON}1", ("VDD_GPU_SOC", 19000, 200), ("VDD_CPU_CV", 19000, 100), ("VIN_SYS_5V0", 5000, 900))
        two = self.rails(f"{HWMON}2", ("NC", 0, 0), ("VDDQ_VDD2_1V8AO", 5000, 100))
        assert reading(tmp_path, AGX, one | two).watts == pytest.approx(3.8 + 1.9 + 4.5)

    def test_nvidia_s_own_driver(self, tmp_path: Path) -> None:
        chip = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
        files = {f"{chip}/rail_name_0": "POM_5V_IN", f"{chip}/in_power0_input": 2850}
        files |= {f"{chip}/rail_name_1": "POM_5V_GPU", f"{chip}/in_power1_input": 400}
        assert reading(tmp_path, NANO, files).watts == pytest.approx(2.85)

    def test_a_board_s_sensors_are_its_own(self, tmp_path: Path) -> None:
        assert reading(tmp_path, PI_4, self.rails(f"{HWMON}1", ("VDD_IN", 5000, 1500))).watts is None

    def test_a_rail_that_cannot_be_read_any_more(self, tmp_path: Path) -> None:
        sensors = Sensors(ORIN, machine(tmp_path, self.rails(f"{HWMON}1", ("VDD_IN", 5000, 1500))))
        machine(tmp_path, {f"{HWMON}1/curr1_input": "error"})
        assert sensors.read().watts is None

    def test_energy_becomes_watts_between_two_reads(self, tmp_path: Path) -> None:
        clock = Clock()
        package = {
            f"{RAPL}0/name": "package-0",
            f"{RAPL}0/max_energy_range_uj": 262_143_000_000,
            f"{RAPL}0/energy_uj": 5_000_000,
        }
        psys = {f"{RAPL}1/name": "psys", f"{RAPL}1/max_energy_range_uj": 262_143_000_000, f"{RAPL}1/energy_uj": 9}
        core = {f"{RAPL}0:0/name": "package-0", f"{RAPL}0:0/max_energy_range_uj": 9, f"{RAPL}0:0/energy_uj": 9}
        sensors = Sensors(PC, machine(tmp_path, package | psys | core), clock=clock)
        assert sensors.read().watts is None
        clock.now_s += 2.0
        machine(tmp_path, {f"{RAPL}0/energy_uj": 35_000_000})
        assert sensors.read().watts == pytest.approx(15.0)
        clock.now_s += 0.001
        assert sensors.read().watts == pytest.approx(15.0)  # too short to tell

    def test_the_counter_wraps(self, tmp_path: Path) -> None:
        clock = Clock()
        top = 65_532_610_987
        files = {f"{RAPL}0/name": "package-0", f"{RAPL}0/max_energy_range_uj": top, f"{RAPL}0/energy_uj": top - 4_000_000}
        sensors = Sensors(PC, machine(tmp_path, files), clock=clock)
        sensors.read()
        clock.now_s += 1.0
        machine(tmp_path, {f"{RAPL}0/energy_uj": 6_000_000})
        assert sensors.read().watts == pytest.approx(10.0)
        clock.now_s += 1000.0  # it may have wrapped more than once
        machine(tmp_path, {f"{RAPL}0/energy_uj": 7_000_000})
        assert sensors.read().watts is None
        clock.now_s += 1.0
        machine(tmp_path, {f"{RAPL}0/energy_uj": 1})  # set back, not wrapped
        assert sensors.read().watts is None

    def test_a_counter_that_this_user_may_not_read(self, tmp_path: Path) -> None:
        files = {f"{RAPL}0/name": "package-0", f"{RAPL}0/max_energy_range_uj": 1000, f"{RAPL}0/energy_uj": ""}
        assert reading(tmp_path, PC, files).watts is None

    def test_a_pi_5_s_chip_is_asked_once_a_second(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[str] = []

        def ask(device: str, command: str) -> str:
            asked.append(command)
            return " VDD_CORE_A current(7)=2.00000000A\n VDD_CORE_V volt(15)=0.75000000V\n EXT5V_V volt(24)=5.1V\n"

        monkeypatch.setattr("devices.power.ask", ask)
        clock = Clock()
        sensors = Sensors(PI_5, tmp_path, clock=clock)
        assert [sensors.read().watts for _ in range(3)] == [pytest.approx(1.5)] * 3
        assert asked == ["pmic_read_adc"] * 2  # to find it, and to read it
        clock.now_s += 1.0
        sensors.read()
        assert len(asked) == 3


class TestBattery:
    def supply(self, name: str, **values: Any) -> dict[str, Any]:
        return {f"{SUPPLY}{name}/{key}": value for key, value in values.items()}

    @pytest.mark.parametrize(
        ("status", "online", "on_battery"),
        [
            ("Discharging", 0, True),
            ("Discharging", None, True),
            ("Charging", 1, False),
            ("Full", None, False),
            ("Not charging", 0, False),
            ("Discharging", 1, False),
            ("", 0, True),
            ("", None, None),
        ],
    )
    def test_on_battery(self, tmp_path: Path, status: str, online: int | None, on_battery: bool | None) -> None:
        files = self.supply("BAT0", type="Battery", capacity=80, status=status)
        if online is not None:
            files |= self.supply("AC", type="Mains", online=online)
        found = reading(tmp_path, PC, files)
        assert (found.battery, found.on_battery) == (0.8, on_battery)

    def test_mains_only(self, tmp_path: Path) -> None:
        assert reading(tmp_path, PC, self.supply("AC", type="Mains", online=1)).on_battery is False
        # an unused USB port of a board that is fed elsewhere
        assert reading(tmp_path / "b", PC, self.supply("usb", type="USB", online=0)).on_battery is None

    def test_a_mouse_has_a_battery_of_its_own(self, tmp_path: Path) -> None:
        mouse = self.supply("hid-0", type="Battery", scope="Device", capacity=3, status="Discharging")
        assert reading(tmp_path, PC, mouse).battery is None

    @pytest.mark.parametrize("capacity", ["", -1, 101, "full"])
    def test_levels_that_are_none(self, tmp_path: Path, capacity: Any) -> None:
        assert reading(tmp_path, PC, self.supply("BAT0", type="Battery", capacity=capacity)).battery is None


def test_governor_frequency_and_load(tmp_path: Path) -> None:
    cpufreq = "sys/devices/system/cpu/cpu0/cpufreq"
    files = {f"{cpufreq}/scaling_governor": "ondemand", f"{cpufreq}/scaling_cur_freq": 1_500_000}
    found = reading(tmp_path, PI_4, files | {"proc/loadavg": "2.00 1.50 0.75 1/123 4567"})
    assert (found.governor, found.mhz, found.load) == ("ondemand", 1500.0, 0.5)


@pytest.mark.parametrize("load", ["", "x", "nan 1 1", "inf", "-1 0 0"])
def test_loads_that_are_none(tmp_path: Path, load: str) -> None:
    assert reading(tmp_path, PI_4, {"proc/loadavg": load}).load is None


READ = [
    *(f"{ZONE}0/type", f"{ZONE}0/temp", f"{COOLING}0/type", f"{COOLING}0/cur_state", THROTTLED),
    *(f"{HWMON}0/name", f"{HWMON}0/temp1_input", f"{HWMON}0/in0_lcrit_alarm", f"{HWMON}0/oc1_event_cnt"),
    *(f"{HWMON}0/in1_label", f"{HWMON}0/in1_input", f"{HWMON}0/curr1_input", f"{HWMON}0/power1_input"),
    *(f"{RAPL}0/name", f"{RAPL}0/energy_uj", f"{RAPL}0/max_energy_range_uj"),
    *(f"{SUPPLY}BAT0/type", f"{SUPPLY}BAT0/capacity", f"{SUPPLY}BAT0/status", f"{SUPPLY}BAT0/online"),
    *("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"),
    *("sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count", "proc/loadavg", "dev/vcio"),
]

CONTENTS = st.binary(max_size=40) | st.sampled_from(
    [
        b"cpu-thermal",
        b"ina3221",
        b"rpi_volt",
        b"soctherm_oc",
        b"package-0",
        b"Battery",
        b"cpufreq-0",
        b"9" * 31,
        b"-9",
        b"1e999",
    ]
)


@settings(max_examples=30)
@given(st.lists(st.dictionaries(st.sampled_from(READ), CONTENTS), min_size=2, max_size=2))
def test_no_contents_of_any_file_raise(tmp_path_factory: pytest.TempPathFactory, states: list[dict[str, bytes]]) -> None:
    root = tmp_path_factory.getbasetemp() / "sensors"
    clock = Clock()
    before, after = states
    machine(root, {name: before.get(name, b"") for name in READ})
    everything = replace(PC, power=("ina3221", "ina2xx", "rapl", "rpi-pmic"))
    sensors = Sensors(everything, root, clock=clock)
    sensors.read()
    machine(root, after)
    clock.now_s += 1.0
    found = sensors.read()
    assert found.temperature_c is None or -40 <= found.temperature_c <= 150
    assert found.battery is None or 0 <= found.battery <= 1
    assert found.throttled <= found.throttled_since_boot


def test_folders_in_the_place_of_files(tmp_path: Path) -> None:
    for name in READ:
        (tmp_path / name).mkdir(parents=True)
    assert Sensors(PC, tmp_path).read() == Reading()
