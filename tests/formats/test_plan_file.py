"""An engine's sidecar survives writing and reading, and a process that the engine does not fit is told why."""

import json
import os
import shlex
from pathlib import Path
from typing import Any

import pytest

from panrt.errors import PanrtError, PlanFileError, PlanMismatch
from panrt.formats.plan_file import (
    BuildOptions,
    PlanFile,
    Process,
    check,
    check_engine,
    dumps,
    loads,
    read,
    read_engine,
    rebuild_command,
)
from panrt.formats.records import shown
from support.plans import ENGINE, plan_file

HERE = Process("tensorrt", "10.3.0", "Orin (nvgpu)", "8.7", "1", "a" * 64, "b" * 64)


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "street.plan"
    path.write_bytes(ENGINE)
    return path


def changed(**fields: object) -> str:
    return json.dumps({**json.loads(dumps(plan_file())), **fields})


def test_reading_gives_what_was_written(plan: Path) -> None:
    file = plan_file(options=BuildOptions(compute_capabilities=("8.6", "8.9"), tf32=True, aux_streams=3))
    Path(f"{plan}.json").write_text(dumps(file))
    assert read(plan) == file


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"^a\.json: invalid JSON"),
        ("[]", r"^a\.json: got list, expected an object"),
        (changed(schema=3), r"schema 3, this PanRT reads up to 2; upgrade"),
        (changed(schema=1), r"schema: got 1, expected 2; build the engine again"),
        (changed(schema=True), r"schema: got True, expected 2"),
        (changed(flavour="openvino"), r"a\.json: flavour: got 'openvino', expected 'tensorrt' or 'rtx'"),
        (changed(plan_bytes="9"), r"a\.json: plan_bytes: got '9', expected an integer"),
        (changed(colour="red"), r"a\.json: unknown field colour"),
        (changed(options={}), r"a\.json: options: missing field aux_streams, compute_capabilities"),
        (changed(options=7), r"a\.json: options: got 7, expected an object"),
        (changed(model={"schema": 9}), r"a\.json: model: written with metadata schema 9"),
    ],
)
def test_what_is_not_ours_is_refused_by_the_name_of_the_field(text: str, message: str) -> None:
    with pytest.raises(PanrtError, match=message):
        loads(text, source="a.json")


def test_an_engine_without_its_sidecar_says_which_file_to_copy_along(plan: Path) -> None:
    with pytest.raises(PlanFileError, match=r"street\.plan\.json: no such file; it belongs to street\.plan"):
        read(plan)


def test_an_engine_fits_the_process_it_was_built_in(plan: Path) -> None:
    check(plan, plan_file(), HERE)


@pytest.mark.parametrize(
    ("process", "field", "built", "found"),
    [
        ({"flavour": "rtx"}, "kind of TensorRT", "TensorRT", "TensorRT-RTX"),
        ({"tensorrt": "10.13.2"}, "TensorRT version", "10.3.0", "10.13.2"),
        ({"gpu": "NVIDIA Thor", "compute_capability": "11.0"}, "GPU", "'Orin (nvgpu)'", "'NVIDIA Thor'"),
        ({"plugin_version": "2"}, "plugin version", "1", "2"),
        (
            {"plugins_sha256": "d" * 64, "plugins_sources_sha256": "e" * 64},
            "plugin library",
            "aaaaaaaaaaaa",
            "dddddddddddd",
        ),
    ],
)
def test_a_mismatch_names_the_field_both_values_and_the_command(
    plan: Path, process: dict[str, str], field: str, built: str, found: str
) -> None:
    with pytest.raises(PlanMismatch) as caught:
        check(plan, plan_file(), HERE._replace(**process))  # type: ignore[arg-type]
    assert caught.value.field == field
    assert built in caught.value.built
    assert found in caught.value.found
    rtx = " --flavour rtx" if process.get("flavour") == "rtx" else ""
    command = f"panrt build {plan.with_name('street.onnx')} -o {plan}{rtx}"
    assert str(caught.value).endswith(f"\n  Rebuild it here:  {command}")
    assert f"{plan}: {field}: built with" in str(caught.value)


def test_the_command_that_rebuilds_an_engine_of_an_open_file_has_its_size(plan: Path) -> None:
    file = plan_file(options=BuildOptions(input_hw=(512, 1024)))
    assert rebuild_command(plan, file, HERE).endswith(f"street.onnx -o {plan} --height 512 --width 1024")


def test_the_command_that_rebuilds_an_engine_asks_for_the_same(plan: Path) -> None:
    options = BuildOptions(
        optimization_level=5, tf32=True, aux_streams=2, version_compatible=True, workspace_bytes=2**30, dla_core=0
    )
    command = rebuild_command(plan, plan_file(options=options), HERE)
    assert command.endswith(f"-o {plan} --optimization-level 5 --tf32 --aux-streams 2 --version-compatible")
    rtx = rebuild_command(plan, plan_file(options=options), HERE._replace(flavour="rtx"))
    assert rtx.endswith(f"-o {plan} --flavour rtx --optimization-level 5 --tf32 --aux-streams 2")


@pytest.mark.parametrize(
    ("options", "process", "fits"),
    [
        ({"version_compatible": True}, {"tensorrt": "10.16.1"}, True),
        ({"version_compatible": True}, {"tensorrt": "10.3.0.30"}, True),
        ({"version_compatible": True}, {"tensorrt": "11.4.1"}, False),
        ({"version_compatible": True}, {"tensorrt": "10.2.9"}, False),
        ({"hardware_compatibility": "ampere_plus"}, {"gpu": "NVIDIA A40", "compute_capability": "8.6"}, True),
        ({"hardware_compatibility": "ampere_plus"}, {"gpu": "NVIDIA Thor", "compute_capability": "11.0"}, True),
        ({"hardware_compatibility": "ampere_plus"}, {"gpu": "Tesla T4", "compute_capability": "7.5"}, False),
        ({"hardware_compatibility": "same_compute_capability"}, {"gpu": "Other Orin"}, True),
        ({"hardware_compatibility": "same_compute_capability"}, {"compute_capability": "8.6"}, False),
        ({}, {"gpu": "Other Orin"}, False),
        ({}, {"plugins_sha256": "d" * 64}, True),  # compiled here, from the same sources
    ],
)
def test_compatibility_is_what_was_asked_for_at_the_build(
    plan: Path, options: dict[str, Any], process: dict[str, str], fits: bool
) -> None:
    assert fit(plan, plan_file(options=BuildOptions(**options)), HERE._replace(**process)) is fits  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("targets", "compute_capability", "fits"),
    [
        ((), "8.9", True),
        ((), "12.0", True),
        ((), "7.5", False),
        (("7.5", "8.6"), "7.5", True),
        (("8.6",), "8.9", False),
    ],
)
def test_an_rtx_engine_runs_on_its_targets(
    plan: Path, targets: tuple[str, ...], compute_capability: str, fits: bool
) -> None:
    file = plan_file(flavour="rtx", tensorrt="1.7.1.116", gpu="", options=BuildOptions(compute_capabilities=targets))
    process = HERE._replace(flavour="rtx", tensorrt="1.7.1.116", compute_capability=compute_capability)
    assert fit(plan, file, process) is fits


def test_an_engine_for_later_versions_says_for_which(plan: Path) -> None:
    file = plan_file(options=BuildOptions(version_compatible=True))
    with pytest.raises(PlanMismatch, match=r"built with 10\.3\.0 for itself and later 10\.x, this .* 11\.0\.0"):
        check(plan, file, HERE._replace(tensorrt="11.0.0"))


def test_libraries_of_unknown_sources_are_told_apart_by_their_bytes(plan: Path) -> None:
    by_hand = plan_file(plugins_sources_sha256="")
    assert fit(plan, by_hand, HERE._replace(plugins_sources_sha256=""))
    assert not fit(plan, by_hand, HERE._replace(plugins_sha256="d" * 64, plugins_sources_sha256=""))


@pytest.mark.parametrize(
    ("engine", "message"), [(ENGINE[:-1], r"has 8 bytes, street\.plan\.json states 9"), (b"otherwise", "damaged")]
)
def test_a_truncated_or_changed_engine_is_found_before_it_is_loaded(plan: Path, engine: bytes, message: str) -> None:
    plan.write_bytes(engine)
    for read_or_check in (check_engine, read_engine):
        with pytest.raises(PlanFileError, match=message):
            read_or_check(plan, plan_file())


def test_an_engine_that_fits_is_looked_into_when_it_is_read_and_not_before(plan: Path) -> None:
    assert read_engine(plan, plan_file()) == ENGINE
    plan.write_bytes(b"otherwise")
    check(plan, plan_file(), HERE)  # loading hashes a file of some 100 MB once, not twice
    plan.write_bytes(ENGINE[:-1])
    with pytest.raises(PlanFileError, match="cut off"):
        check(plan, plan_file(), HERE)


def fit(plan: Path, file: PlanFile, process: Process) -> bool:
    try:
        check(plan, file, process)
    except PlanMismatch:
        return False
    return True


# Sidecars that somebody else wrote


OPTIONS = json.loads(dumps(plan_file()))["options"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"onnx": ""}, r"onnx: got '', expected the name of a file without a folder"),
        ({"onnx": ".."}, r"onnx: got '\.\.', expected the name"),
        ({"onnx": "../../x"}, r"onnx: got '\.\./\.\./x', expected the name"),
        ({"onnx": "/etc/passwd"}, r"onnx: got '/etc/passwd', expected the name"),
        ({"onnx": "a\0b"}, r"onnx: got 'a\\x00b', expected one line of printable text"),
        ({"gpu": "\x1b[31m"}, r"gpu: got '\\x1b\[31m', expected one line"),
        ({"tensorrt": "\ud800"}, r"tensorrt: got .* expected one line"),
        ({"build_seconds": 10**400}, r"build_seconds: got .* expected a number"),
        ({"plan_bytes": 10**400}, r"plan_bytes: got .* expected an integer"),
        ({"plan_bytes": -7}, r"plan_bytes: got -7"),
        ({"options": {**OPTIONS, "input_hw": [1]}}, r"options.input_hw: got \[1\], expected a list of 2"),
        ({"options": {**OPTIONS, "input_hw": "123"}}, r"options.input_hw: got '123', expected a list of 2"),
        ({"options": {**OPTIONS, "tf32": 1}}, r"options.tf32: got 1, expected true or false"),
        ({"workspace_bytes": "1 GB"}, r"workspace_bytes: got '1 GB', expected an integer"),
        ({"options": {**OPTIONS, "version_compatible": 1}}, r"version_compatible: got 1, expected true or false"),
        ({"options": {**OPTIONS, "hardware_compatibility": ["none"]}}, r"hardware_compatibility: got \['none'\]"),
        ({"plugin_library": "/tmp/evil.so"}, r"unknown field plugin_library"),
    ],
    ids=[str(number) for number in range(17)],
)
def test_a_value_that_no_build_writes_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanFileError, match=rf"^a\.json: (options\.)?{message}") as caught:
        loads(changed(**fields), source="a.json")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "text", ["[" * 200_000, '{"a":' * 100_000, "", "null", b"\xff\xfe", '{"schema": 1e400}'], ids=shown
)
def test_a_sidecar_that_cannot_be_read_is_one_line(text: str | bytes) -> None:
    with pytest.raises(PlanFileError, match=r"^a\.json: ") as caught:
        loads(text, source="a.json")
    assert "\n" not in str(caught.value)


def test_a_sidecar_with_a_byte_order_mark_is_read() -> None:
    assert loads("\ufeff" + dumps(plan_file()), source="a.json") == plan_file()
    assert loads(b"\xef\xbb\xbf" + dumps(plan_file()).encode(), source="a.json") == plan_file()


def test_a_sidecar_that_is_too_long_or_no_file_is_not_read(plan: Path) -> None:
    sidecar = Path(f"{plan}.json")
    with sidecar.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(PlanFileError, match=r"street\.plan\.json: has more than 16777216 bytes"):
        read(plan)
    sidecar.unlink()
    os.mkfifo(sidecar)
    with pytest.raises(PlanFileError, match=r"street\.plan\.json: is a pipe, expected the sidecar of an engine"):
        read(plan)


def test_an_engine_that_is_no_file_is_not_waited_for(plan: Path) -> None:
    plan.unlink()
    os.mkfifo(plan)
    for check_it in (check_engine, read_engine):
        with pytest.raises(PlanFileError, match=r"street\.plan: is a pipe, expected an engine of panrt build"):
            check_it(plan, plan_file(plan_bytes=0))


@pytest.mark.parametrize("name", ["a b.onnx", "a.onnx; touch PWNED", "$(reboot).onnx", "'.onnx", "-o.onnx", "*.onnx"])
def test_names_in_a_command_to_paste_are_one_word_to_a_shell(name: str) -> None:
    command = rebuild_command(Path("my engines/street.plan"), plan_file(onnx=name), HERE)
    assert shlex.split(command) == [
        "panrt", "build", f"my engines/{name}", "-o", "my engines/street.plan",
    ]  # fmt: skip
    here = shlex.split(rebuild_command(Path("street.plan"), plan_file(onnx=name), HERE))
    assert here[2] == (f"./{name}" if name.startswith("-") else name)


def test_an_open_size_is_an_empty_list_in_the_file_and_none_in_python() -> None:
    assert json.loads(dumps(plan_file()))["options"]["input_hw"] == []
    assert loads(dumps(plan_file()), source="a.json").options.input_hw is None
    sized = plan_file(options=BuildOptions(input_hw=(64, 96)))
    assert json.loads(dumps(sized))["options"]["input_hw"] == [64, 96]
    assert loads(dumps(sized), source="a.json") == sized
