"""Every name of the fake TensorRT exists in the real one; no engine runs without a GPU."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from pathlib import Path

FAKE = Path(__file__).parents[2] / "tools" / "simcuda" / "fake_tensorrt.py"
CLASSES = {"PluginRegistry": "IPluginRegistry"}  # where the fake's is called otherwise
ATTRIBUTES = {
    "ICudaEngine": {"num_io_tensors", "device_memory_size_v2"},
    "IExecutionContext": {"profiler"},
    "IProfiler": {"report_layer_time"},
    "Runtime": {"engine_host_code_allowed"},
    "ILogger": {"INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE", "log"},
    "DataType": {"FLOAT", "HALF", "INT8", "INT32", "BOOL", "UINT8"},
    "TensorIOMode": {"INPUT", "OUTPUT"},
    "ExecutionContextAllocationStrategy": {"USER_MANAGED"},
}


def real_names() -> dict[str, set[str]]:
    """Of TensorRT for RTX, in a process of its own."""
    program = inspect.cleandoc("""
        import json, tensorrt_rtx
        names = {name: dir(value) for name, value in vars(tensorrt_rtx).items() if isinstance(value, type)}
        print(json.dumps({"": dir(tensorrt_rtx), **names}))
    """)
    run = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return {name: set(members) for name, members in json.loads(run.stdout).items()}


def test_every_name_of_the_fake_is_one_of_tensorrts() -> None:
    real = real_names()
    fake = {name: set(members) for name, members in ATTRIBUTES.items()}
    for node in ast.parse(FAKE.read_text()).body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            methods = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
            fake.setdefault(CLASSES.get(node.name, node.name), set()).update(methods - {"__init__", "__del__"})
    assert len(fake) == 9
    for name, members in fake.items():
        assert members <= real[name], name
    assert {"nptype", "get_plugin_registry", "__version__"} <= real[""]
