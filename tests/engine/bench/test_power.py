"""Readings of sensors, through stand-ins for the packages that read them."""

from __future__ import annotations

import sys
import threading
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from panrt.engine.bench.power import PowerMeter, Reading, open_sensor
from panrt.gpu import device as gpu
from tools.clock import PATIENCE


class Steps:
    """A sensor whose readings are known; the last one stays, and sets an event."""

    name = "steps"

    def __init__(self, *readings: Reading) -> None:
        self.readings = list(readings)
        self.at_last = threading.Event()

    def read(self) -> Reading:
        if len(self.readings) > 1:
            return self.readings.pop(0)
        self.at_last.set()
        return self.readings[0]

    def close(self) -> None: ...


def test_readings_are_taken_while_a_run_goes_on_and_summed_up() -> None:
    sensor = Steps(Reading(10.0, 40.0, 900.0, ("power cap",)), Reading(30.0, 60.0, 300.0), Reading(20.0, None, 600.0))
    with PowerMeter(sensor, every=0.001) as meter:
        assert sensor.at_last.wait(PATIENCE)
    power = meter.power
    assert power is not None
    assert power.readings >= 3
    assert (power.max_watts, power.max_celsius, power.megahertz) == (30.0, 60.0, (300.0, 900.0))
    assert power.mean_watts == pytest.approx((10 + 30 + 20 * (power.readings - 2)) / power.readings)
    assert power.limits == ("power cap",)
    assert "clock held down by power cap" in power.text()


def test_a_run_shorter_than_a_period_is_read_once() -> None:
    with PowerMeter(Steps(Reading(5.0, None, None)), every=60) as meter:
        pass
    assert meter.power is not None
    assert (meter.power.readings, meter.power.mean_watts, meter.power.megahertz) == (1, 5.0, None)


def test_without_a_sensor_there_is_no_figure() -> None:
    with PowerMeter(None) as meter:
        pass
    assert meter.power is None


# NVML


class RefusedError(Exception):
    """As pynvml.NVMLError."""


def refuse(*arguments: Any) -> Any:
    raise RefusedError


def nvml(**functions: Any) -> ModuleType:
    module = ModuleType("pynvml")
    known = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: closed.append(True),
        "nvmlDeviceGetHandleByPciBusId": lambda address: address,
        "nvmlDeviceGetPowerUsage": lambda device: 215_500,
        "nvmlDeviceGetTemperature": lambda device, which: 61,
        "nvmlDeviceGetClockInfo": lambda device, which: 2520,
        "nvmlDeviceGetCurrentClocksThrottleReasons": lambda device: 0x4 | 0x40 | 0x1,
        "NVML_TEMPERATURE_GPU": 0,
        "NVML_CLOCK_SM": 1,
        "NVMLError": RefusedError,
    }
    closed: list[bool] = []
    vars(module).update(known | functions, closed=closed)
    return module


@pytest.fixture(autouse=True)
def no_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setitem(sys.modules, "jtop", None)
    monkeypatch.setattr(gpu, "bus_address", lambda: "0000:65:00.0")


def test_a_graphics_card_is_asked_in_its_own_units(monkeypatch: pytest.MonkeyPatch) -> None:
    module = nvml(nvmlDeviceGetHandleByPciBusId=lambda address: {b"0000:65:00.0": "card"}[address])
    monkeypatch.setitem(sys.modules, "pynvml", module)
    sensor = open_sensor("tensorrt")
    assert sensor is not None
    assert sensor.read() == Reading(215.5, 61.0, 2520.0, ("power cap", "temperature (hardware)"))
    sensor.close()
    assert module.closed == [True]


def test_what_a_graphics_card_does_not_answer_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    functions = dict.fromkeys(("nvmlDeviceGetPowerUsage", "nvmlDeviceGetCurrentClocksThrottleReasons"), refuse)
    monkeypatch.setitem(sys.modules, "pynvml", nvml(**functions))
    sensor = open_sensor("rtx")
    assert sensor is not None
    assert sensor.read() == Reading(None, 61.0, 2520.0)


@pytest.mark.parametrize("function", ["nvmlInit", "nvmlDeviceGetHandleByPciBusId"])
def test_no_sensor_where_nvml_refuses(function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = nvml(**{function: refuse})
    monkeypatch.setitem(sys.modules, "pynvml", module)
    assert open_sensor("tensorrt") is None
    assert module.closed == [True] * (function != "nvmlInit")


def test_a_cpu_session_says_nothing_of_the_graphics_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml())
    assert open_sensor("cpu") is None


def test_no_sensor_without_packages() -> None:
    assert open_sensor("tensorrt") is None


# jtop


def jtop(*, fails: bool = False) -> ModuleType:
    class JtopException(Exception):  # noqa: N818  # its name there
        pass

    def start() -> None:
        if fails:
            raise JtopException

    board = SimpleNamespace(
        start=start,
        ok=lambda spin: True,
        close=lambda: None,
        power={"rail": {"VDD_CPU": {"power": 900}}, "tot": {"power": 14_250, "avg": 14_000}},
        temperature={"cpu": {"temp": 51.5, "online": True}, "cv": {"temp": -256, "online": False}},
        gpu={"gpu": {"type": "integrated", "freq": {"cur": 918_000, "max": 918_000}}},
    )
    module = ModuleType("jtop")
    vars(module).update(jtop=lambda interval: board, JtopException=JtopException)
    return module


@pytest.mark.parametrize("backend", ["cpu", "tensorrt"])
def test_a_jetson_is_asked_for_the_whole_board(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jtop", jtop())
    sensor = open_sensor(backend)
    assert sensor is not None
    assert sensor.read() == Reading(14.25, 51.5, 918.0)


def test_no_sensor_where_the_service_of_jtop_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jtop", jtop(fails=True))
    assert open_sensor("cpu") is None
