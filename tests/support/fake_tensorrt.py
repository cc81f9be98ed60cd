"""A stand-in for the module `tensorrt` that records its calls and builds nothing."""

from __future__ import annotations

from enum import IntEnum
from types import ModuleType, SimpleNamespace
from typing import Any

from panrt.plugins.library import NAMESPACE, OPS


class Flag(IntEnum):
    STRONGLY_TYPED = 1


class Names:
    """An enumeration with every name that is asked for."""

    def __getattr__(self, name: str) -> str:
        return name


class Logger:
    INTERNAL_ERROR, ERROR, WARNING = range(3)


class Config:
    """What a builder configuration was told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        self.told.append((pool, size))

    def set_flag(self, flag: str) -> None:
        self.told.append((flag,))

    def clear_flag(self, flag: str) -> None:
        self.told.append(("not", flag))

    def create_timing_cache(self, content: bytes) -> bytes:
        return content

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> None:
        self.told.append(("timings", cache, ignore_mismatch))

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: b"measured")


class Builder:
    """Remembers the flags of its networks."""

    flags: list[int]

    def __init__(self, logger: Logger) -> None:
        self.flags = []

    def get_plugin_registry(self) -> Any:
        return SimpleNamespace(all_creators=[SimpleNamespace(plugin_namespace=NAMESPACE, name=op) for op in OPS])

    def create_network(self, flags: int) -> Any:
        self.flags.append(flags)
        return SimpleNamespace()

    def create_builder_config(self) -> Config:
        return Config()


class Parser:
    num_errors = 0

    def __init__(self, network: Any, logger: Logger) -> None:
        pass

    def parse(self, model: bytes) -> bool:
        return True


def fake_tensorrt(version: str) -> ModuleType:
    """The module, of this version."""
    module = ModuleType("tensorrt")
    for name, value in {
        "__version__": version,
        "ILogger": Logger,
        "Builder": Builder,
        "OnnxParser": Parser,
        "NetworkDefinitionCreationFlag": Flag,
        **dict.fromkeys(("BuilderFlag", "MemoryPoolType", "HardwareCompatibilityLevel", "DeviceType"), Names()),
    }.items():
        setattr(module, name, value)
    return module
