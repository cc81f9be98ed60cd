"""The plugins compile with the headers of any TensorRT from 10.3 on, and have the layout that all of them call.

The build takes a machine's own headers before the fetched ones, so with TENSORRT_HOME=DIR the tests of this folder hold
for the TensorRT in DIR.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import pytest

from panrt.plugins import library
from tools.plugin_library import plugin_library

# What the plugins use of nvinfer1, by the shape of its names; all of it is in the headers of TensorRT 10.3. What is
# younger must not be used unguarded: JetPack 6 has no other headers.
IN_TENSORRT_10_3 = """
    NV_TENSORRT_MAJOR NV_TENSORRT_MINOR NV_TENSORRT_PATCH
    AsciiChar ILogger ILoggerFinder kERROR findLogger
    DataType kBF16 kBOOL kFLOAT kHALF kINT32 kINT64 kINT8 kUINT8
    TensorFormat kHWC kHWC8 kLINEAR
    IDimensionExpr IExprBuilder DimensionOperation DimsExprs getConstantValue isConstant kPROD kSUM nbDims
    DynamicPluginTensorDesc PluginTensorDesc
    PluginField PluginFieldCollection PluginFieldType kFLOAT32 kFLOAT64 nbFields
    IPluginCreatorInterface IPluginCreatorV3One TensorRTPhase createPlugin getFieldNames
    IPluginCapability IPluginV3 PluginCapabilityType getCapabilityInterface kBUILD kCORE kRUNTIME
    IPluginV3OneCore getPluginName getPluginNamespace getPluginVersion
    IPluginV3OneBuild configurePlugin getMetadataString getNbOutputs getNbTactics getOutputDataTypes getOutputShapes
    getTimingCacheID getValidTactics getWorkspaceSize supportsFormatCombination
    IPluginV3OneRuntime IPluginResourceContext attachToContext getFieldsToSerialize onShapeChange setTactic
"""
# kUPPER, NV_UPPER, CamelCase and camelCase; this project's own functions and variables are snake_case.
API_NAME = re.compile(r"k[A-Z][A-Z0-9_]*|NV_\w+|[A-Z]\w*[a-z][A-Z]\w*|I[A-Z]\w+|(?!cuda)[a-z]+[A-Z]\w*")

# The functions that TensorRT calls, by their place in each interface's table, and the sizes of what it hands over: the
# same in the headers of 10.3, 10.14 and 11.1. One place more, less or moved, and it calls the wrong function.
_FIRST = "getAPILanguage getInterfaceInfo ~ ~"
INTERFACES = {
    "v_1_0::IPluginV3": f"{_FIRST} getCapabilityInterface clone",
    "v_1_0::IPluginV3OneCore": f"{_FIRST} getPluginName getPluginVersion getPluginNamespace",
    "v_1_0::IPluginV3OneBuild": f"{_FIRST} configurePlugin getOutputDataTypes getOutputShapes "
    "supportsFormatCombination getNbOutputs getWorkspaceSize getValidTactics getNbTactics getTimingCacheID "
    "getFormatCombinationLimit getMetadataString",
    "v_1_0::IPluginV3OneRuntime": f"{_FIRST} setTactic onShapeChange enqueue attachToContext getFieldsToSerialize",
}
CREATOR = {
    "v_1_0::IPluginCreatorV3One": f"{_FIRST} createPlugin getFieldNames getPluginName getPluginVersion "
    "getPluginNamespace",
}
BYTES = {
    "Dims64": 72,
    "DimsExprs": 72,
    "PluginTensorDesc": 88,
    "DynamicPluginTensorDesc": 304,
    "PluginField": 24,
    "PluginFieldCollection": 16,
}


def test_the_plugins_use_nothing_that_is_younger_than_tensorrt_10_3() -> None:
    used = names_in((library.SOURCES / "tensorrt").glob("*.[ch]*"))
    theirs = names_in(headers().glob("Nv*.h"))
    assert "IPluginV3OneBuild" in theirs
    assert {name for name in used & theirs if API_NAME.fullmatch(name)} == set(IN_TENSORRT_10_3.split())


@pytest.mark.parametrize("op", library.OPS)
def test_a_plugin_has_every_function_where_all_releases_look_for_it(op: str) -> None:
    tables = function_tables(f"panrt::tensorrt::OpPlugin<panrt::ops::{op}>")
    assert list(tables) == list(INTERFACES)
    for interface, expected in INTERFACES.items():
        functions = expected.split()
        # The first table serves the whole class: what the other interfaces add comes after.
        found = tables[interface][: len(functions)] if interface == "v_1_0::IPluginV3" else tables[interface]
        assert found == functions, interface


@pytest.mark.parametrize("op", library.OPS)
def test_a_creator_has_every_function_where_all_releases_look_for_it(op: str) -> None:
    tables = function_tables(f"panrt::tensorrt::OpCreator<panrt::ops::{op}>")
    assert {interface: " ".join(functions) for interface, functions in tables.items()} == CREATOR


def test_what_tensorrt_hands_over_has_the_size_it_has_in_all_releases() -> None:
    found = dict(re.findall(r"^Class nvinfer1::(\w+)\n   size=(\d+)", layout(), re.MULTILINE))
    assert {name: int(found[name]) for name in BYTES} == BYTES


def names_in(files: Iterable[Path]) -> set[str]:
    """Every identifier outside comments and strings."""
    names = set()
    for file in files:
        code = re.sub(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\])*\"", " ", file.read_text(), flags=re.DOTALL)
        names |= set(re.findall(r"[A-Za-z_]\w*", code))
    return names


def function_tables(name: str) -> dict[str, list[str]]:
    """Of a class: each TensorRT interface, by its version, with its functions in order; ~ is a destructor."""
    (table,) = re.findall(rf"^Vtable for {re.escape(name)}\n(.*?)\n\n", layout(), re.DOTALL | re.MULTILINE)
    tables = {}
    for part in re.split(r"^\d+ .*typeinfo for .*\n", table, flags=re.MULTILINE)[1:]:
        (interface,) = re.findall(r"nvinfer1::(v_\d+_\d+::\w+)::getInterfaceInfo", part)
        entries = [line for line in part.splitlines() if "::" in line]
        tables[interface] = [re.sub(r"~\w+", "~", re.findall(r"::(~?\w+)(?:\(.*)?$", line)[0]) for line in entries]
    return tables


@lru_cache
def layout() -> str:
    """What the compiler says of the layout of every class that library.cpp sees."""
    command, folder = compile_command()
    with tempfile.TemporaryDirectory() as scratch:
        dump = Path(scratch, "layout.txt")
        options = ["-fsyntax-only", f"-fdump-lang-class={dump}"]
        done = subprocess.run([*command, *options], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        mangled = dump.read_text()
    assert shutil.which("c++filt") is not None, "c++filt is part of binutils, which the compiler needs too"
    return subprocess.run(["c++filt"], input=mangled, capture_output=True, text=True, check=True).stdout


def headers() -> Path:
    """The folder of the TensorRT headers that the library is compiled with."""
    command, _ = compile_command()
    folders = [Path(folder) for option, folder in pairwise(command) if option == "-isystem"]
    return next(folder for folder in folders if (folder / "NvInferRuntime.h").is_file())


def compile_command() -> tuple[list[str], Path]:
    """How library.cpp is compiled, without its output, and the folder that this is done in."""
    built = plugin_library("off").path
    database = json.loads((built.parent / f"{built.stem}-build" / "compile_commands.json").read_text())
    (entry,) = (entry for entry in database if entry["file"].endswith("tensorrt/library.cpp"))
    command = shlex.split(entry["command"])
    output = command.index("-o")
    return [part for part in command[:output] + command[output + 2 :] if part != "-c"], Path(entry["directory"])
