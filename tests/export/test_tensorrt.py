"""Differences between TensorRT releases, on a stand-in for TensorRT that records its calls."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from panrt.errors import BuildError
from panrt.export.tensorrt import TensorRT
from panrt.formats.plan_file import BuildOptions
from panrt.gpu import device as gpu
from support.fake_tensorrt import fake_tensorrt
from tools.plugin_library import plugin_library


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> TensorRT:
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt(request.param))
    return TensorRT("tensorrt", plugin_library("auto"))


@pytest.mark.parametrize(
    ("tensorrt", "flags"), [("10.3.0", 2), ("10.13.2.6", 2), ("11.0.0", 0), ("11.4.1", 0)], indirect=["tensorrt"]
)
def test_networks_are_strongly_typed_in_every_release(tensorrt: TensorRT, flags: int) -> None:
    tensorrt.parse(b"", source="m.onnx")
    assert tensorrt._builder.flags == [flags]


@pytest.mark.parametrize("tensorrt", ["11.4.1"], indirect=True)
def test_options_reach_the_configuration(tensorrt: TensorRT) -> None:
    options = BuildOptions(
        optimization_level=4, aux_streams=2, version_compatible=True, hardware_compatibility="ampere_plus", dla_core=1
    )
    config = tensorrt.config(options, workspace_bytes=2**30, timings=b"earlier")
    assert config.told == [
        ("not", "TF32"),
        ("WORKSPACE", 2**30),
        ("VERSION_COMPATIBLE",),
        ("GPU_FALLBACK",),
        ("timings", b"earlier", False),
    ]
    assert (config.builder_optimization_level, config.hardware_compatibility_level) == (4, "AMPERE_PLUS")
    assert config.max_aux_streams == 2
    assert (config.default_device_type, config.DLA_core) == ("DLA", 1)
    assert tensorrt.timings(config) == b"measured"


@pytest.mark.parametrize("tensorrt", ["10.3.0", "11.4.1"], indirect=True)
@pytest.mark.parametrize(("tf32", "told"), [(True, ("TF32",)), (False, ("not", "TF32"))])
def test_tf32_and_auxiliary_streams_are_never_left_to_the_release(
    tensorrt: TensorRT, tf32: bool, told: tuple[str, ...]
) -> None:
    config = tensorrt.config(BuildOptions(tf32=tf32), workspace_bytes=0, timings=b"")
    assert told in config.told
    assert config.max_aux_streams == 0


@pytest.mark.parametrize("tensorrt", ["10.13.2"], indirect=True)
def test_a_jetson_has_no_hardware_compatibility(
    tensorrt: TensorRT, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    release = tmp_path / "nv_tegra_release"
    monkeypatch.setattr(gpu, "JETSON_RELEASE", release)
    options = BuildOptions(hardware_compatibility="ampere_plus")
    tensorrt.check(options)
    release.write_text("# R38 (release), REVISION: 2.1")
    tensorrt.check(BuildOptions())
    with pytest.raises(BuildError, match="hardware_compatibility: TensorRT does not support it on a Jetson; build the"):
        tensorrt.check(options)


@pytest.mark.parametrize(
    ("tensorrt", "options", "message"),
    [
        ("11.4.0", BuildOptions(dla_core=0), r"dla_core: TensorRT 11\.4\.0 does not support it; 11\.4\.1 and newer do"),
        (
            "10.3.0",
            BuildOptions(hardware_compatibility="same_compute_capability"),
            r"same_compute_capability: .* 10\.14",
        ),
        ("10.3.0", BuildOptions(compute_capabilities=("8.6",)), r"only RTX takes targets"),
    ],
    indirect=["tensorrt"],
)
def test_what_a_release_does_not_have_is_refused(tensorrt: TensorRT, options: BuildOptions, message: str) -> None:
    with pytest.raises(BuildError, match=message):
        tensorrt.check(options)


@pytest.mark.parametrize("tensorrt", ["10.14.1", "11.4.1"], indirect=True)
def test_what_a_release_has_is_allowed(tensorrt: TensorRT) -> None:
    tensorrt.check(BuildOptions(hardware_compatibility="same_compute_capability", version_compatible=True))


def test_a_release_older_than_jetpack_6_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt("10.2.1"))
    with pytest.raises(BuildError, match=r"TensorRT 10\.2\.1 is too old, PanRT needs 10\.3 or newer"):
        TensorRT("tensorrt", plugin_library("auto"))
