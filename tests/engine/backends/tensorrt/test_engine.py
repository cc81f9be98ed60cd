"""Scratch memory of an engine, in the forms that TensorRT's Python has had."""

from __future__ import annotations

from types import SimpleNamespace

from panrt.engine.backends.tensorrt import engine


class Context:
    """Of TensorRT 10.1 and later."""

    def set_device_memory(self, memory: int, size: int) -> None:
        self.given = memory, size

    @property
    def device_memory(self) -> int:
        raise AssertionError("write only, and deprecated")


def test_scratch_memory_is_given_with_its_size_where_tensorrt_takes_one() -> None:
    context = Context()
    engine.use_scratch(context, 4096, 256)
    assert context.given == (4096, 256)
    assert engine.scratch_bytes(SimpleNamespace(device_memory_size_v2=256)) == 256


def test_scratch_memory_is_given_in_the_older_form_too() -> None:
    context = SimpleNamespace(device_memory=None)
    engine.use_scratch(context, 4096, 256)
    assert context.device_memory == 4096
    assert engine.scratch_bytes(SimpleNamespace(device_memory_size=512)) == 512
