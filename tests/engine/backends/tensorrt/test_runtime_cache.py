"""The kernels' cache uses what the real TensorRT for RTX has; tests/simcuda/inside/test_plans.py runs it on a fake."""

from __future__ import annotations

import json
import subprocess
import sys

_MEMBERS = """
import json
import tensorrt_rtx_libs
import tensorrt_rtx as trt
members = {
    "config": trt.ICudaEngine.create_runtime_config,
    "context": trt.ICudaEngine.create_execution_context,
    "strategy": trt.IRuntimeConfig.set_execution_context_allocation_strategy,
    "cache": trt.IRuntimeConfig.create_runtime_cache,
    "set": trt.IRuntimeConfig.set_runtime_cache,
    "serialize": trt.IRuntimeCache.serialize,
    "deserialize": trt.IRuntimeCache.deserialize,
    "user": trt.ExecutionContextAllocationStrategy.USER_MANAGED,
}
print(json.dumps({name: member.__doc__ for name, member in members.items()}))
"""


def test_tensorrt_for_rtx_has_what_the_cache_uses() -> None:
    """Its signatures are in its docstrings; an engine, which has the objects themselves, needs a GPU."""
    done = subprocess.run([sys.executable, "-c", _MEMBERS], capture_output=True, text=True, check=True)
    documented = done.stdout.replace("tensorrt_rtx_bindings.tensorrt_rtx.", "")
    said = {name: " ".join(text.split()) for name, text in json.loads(documented).items()}
    assert said["config"].startswith("create_runtime_config(self: ICudaEngine) -> IRuntimeConfig")
    assert "create_execution_context(self: ICudaEngine, runtime_config: IRuntimeConfig = None)" in said["context"]
    assert "strategy: ExecutionContextAllocationStrategy" in said["strategy"]
    assert said["cache"].startswith("create_runtime_cache(self: IRuntimeConfig) -> ")
    assert said["set"].startswith("set_runtime_cache(self: IRuntimeConfig, cache: ")
    assert "-> bool" in said["set"]
    assert said["serialize"].startswith("serialize(self: IRuntimeCache) -> IHostMemory")
    assert said["deserialize"].startswith("deserialize(self: IRuntimeCache, blob: ")
    assert "-> bool" in said["deserialize"]
