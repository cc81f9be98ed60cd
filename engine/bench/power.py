"""Power, temperature and clock during a run, read from the sensors of the GPU or the board.

Desktop GPUs are read through NVML (package `nvidia-ml-py`), Jetsons through jtop (package `jetson-stats` and its
service, which reads the board's power monitors). Without either there are no figures.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any, NamedTuple, Protocol

from panrt.gpu import device as gpu

EVERY = 0.1  # seconds between readings; sensors average over about as long


class Reading(NamedTuple):
    """One reading of the sensors; None for a value that they lack."""

    watts: float | None
    celsius: float | None
    megahertz: float | None  # of the GPU's cores
    limits: tuple[str, ...] = ()  # what kept the clock down


class Sensor(Protocol):
    """A source of readings."""

    name: str

    def read(self) -> Reading: ...
    def close(self) -> None: ...


class Power(NamedTuple):
    """The readings of a run, summarised."""

    sensor: str
    readings: int
    mean_watts: float | None
    max_watts: float | None
    max_celsius: float | None
    megahertz: tuple[float, float] | None  # lowest and highest
    limits: tuple[str, ...]  # all that occurred

    def text(self) -> str:
        """Return it in words."""
        parts = []
        if self.mean_watts is not None and self.max_watts is not None:
            parts.append(f"{self.mean_watts:.1f} W, at most {self.max_watts:.1f} W")
        if self.megahertz is not None:
            parts.append(f"{self.megahertz[0]:.0f} to {self.megahertz[1]:.0f} MHz")
        if self.max_celsius is not None:
            parts.append(f"up to {self.max_celsius:.0f} °C")
        if self.limits:
            parts.append(f"clock held down by {', '.join(self.limits)}")
        return f"{', '.join(parts)} ({self.readings} readings of {self.sensor})"


class PowerMeter:
    """Reads a sensor on its own thread while a `with` block runs; without a sensor it does nothing."""

    def __init__(self, sensor: Sensor | None, *, every: float = EVERY) -> None:
        self._sensor = sensor
        self._every = every
        self._readings: list[Reading] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def power(self) -> Power | None:
        """The power of the block after its end; None if nothing could be read."""
        if self._sensor is None or not self._readings:
            return None
        return _summary(self._sensor.name, self._readings)

    def __enter__(self) -> PowerMeter:
        if self._sensor is not None:
            self._thread = threading.Thread(target=self._read_on, args=(self._sensor,), name="panrt-power", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _read_on(self, sensor: Sensor) -> None:
        while True:
            self._readings.append(sensor.read())
            if self._stop.wait(self._every):
                return


def open_sensor(backend: str) -> Sensor | None:
    """Return the sensor for runs of a backend, if there is one; a CPU session does not use a graphics card."""
    sensor: Sensor | None = _Jtop.open()
    if sensor is None and backend != "cpu":
        sensor = _Nvml.open()
    return sensor


def _summary(name: str, readings: Sequence[Reading]) -> Power:
    watts = [r.watts for r in readings if r.watts is not None]
    celsius = [r.celsius for r in readings if r.celsius is not None]
    clocks = [r.megahertz for r in readings if r.megahertz is not None]
    return Power(
        name,
        len(readings),
        sum(watts) / len(watts) if watts else None,
        max(watts, default=None),
        max(celsius, default=None),
        (min(clocks), max(clocks)) if clocks else None,
        tuple(dict.fromkeys(limit for r in readings for limit in r.limits)),
    )


# Bits of NVML's reasons for the clock that mean a slower one than the load asks for.
_LIMITS = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "temperature (software)",
    0x40: "temperature (hardware)",
    0x80: "power brake",
}


class _Nvml:
    """The first GPU that this process may use, found by its PCI address, as NVML numbers GPUs in its own order."""

    def __init__(self, nvml: Any, device: Any) -> None:
        self._nvml, self._device = nvml, device
        self.name = "NVML"

    @classmethod
    def open(cls) -> _Nvml | None:
        try:
            import pynvml  # noqa: PLC0415  # optional
        except ImportError:
            return None
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError:  # no driver
            return None
        address = gpu.bus_address()
        try:
            if address is not None:
                return cls(pynvml, pynvml.nvmlDeviceGetHandleByPciBusId(address.encode()))
        except pynvml.NVMLError:  # an integrated GPU
            pass
        pynvml.nvmlShutdown()
        return None

    def read(self) -> Reading:
        nvml, device = self._nvml, self._device
        watts = self._ask(nvml.nvmlDeviceGetPowerUsage, device)
        reasons = self._ask(nvml.nvmlDeviceGetCurrentClocksThrottleReasons, device) or 0
        return Reading(
            None if watts is None else watts / 1000,
            self._ask(nvml.nvmlDeviceGetTemperature, device, nvml.NVML_TEMPERATURE_GPU),
            self._ask(nvml.nvmlDeviceGetClockInfo, device, nvml.NVML_CLOCK_SM),
            tuple(name for bit, name in _LIMITS.items() if int(reasons) & bit),
        )

    def close(self) -> None:
        self._nvml.nvmlShutdown()

    def _ask(self, question: Any, *arguments: Any) -> float | None:
        """Return a value; None if this GPU does not report it."""
        try:
            return float(question(*arguments))
        except self._nvml.NVMLError:
            return None


class _Jtop:
    """A Jetson board: its total power, its warmest sensor, its GPU's clock."""

    def __init__(self, jetson: Any) -> None:
        self._jetson = jetson
        self.name = "jtop"

    @classmethod
    def open(cls) -> _Jtop | None:
        try:
            from jtop import JtopException, jtop  # noqa: PLC0415  # optional
        except ImportError:
            return None
        jetson = jtop(interval=EVERY)
        try:
            jetson.start()
        except (JtopException, OSError):  # its service does not run, or this is no Jetson
            return None
        return cls(jetson)

    def read(self) -> Reading:
        self._jetson.ok(spin=True)  # raises what the client's own thread met
        total = self._jetson.power.get("tot", {}).get("power")
        warm = [sensor["temp"] for sensor in self._jetson.temperature.values() if sensor.get("online", True)]
        clocks = [found["freq"]["cur"] for found in self._jetson.gpu.values() if "cur" in found.get("freq", {})]
        return Reading(
            None if total is None else total / 1000,
            max(warm, default=None),
            clocks[0] / 1000 if clocks else None,
        )

    def close(self) -> None:
        self._jetson.close()
