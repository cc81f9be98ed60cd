"""An engine file is opened where it fits, and where it does not the message says what to do."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import pytest
from cuda.bindings import driver as cu
from typer.testing import CliRunner

import panrt
from panrt.cli import app
from panrt.engine.backends.tensorrt import runtime_cache
from panrt.engine.backends.tensorrt.plans import TensorRTBackend
from panrt.errors import (
    BackendError,
    EngineError,
    InputSizeError,
    MissingError,
    PlanFileError,
    PlanMismatch,
    PluginLibraryError,
)
from panrt.formats import plan_file
from panrt.formats.plan_file import BuildOptions, PlanFile, Precisions
from panrt.plugins import library
from panrt.plugins.library import PluginLibrary
from support import homes
from tools.simcuda import fake_tensorrt, fake_tensorrt_rtx
from tools.simcuda.sessions import MODEL, check, contexts_unchanged, picture, tensors

LIBRARY = Path(os.environ["PANRT_TEST_KERNELS"])
PLUGINS = PluginLibrary(LIBRARY, "1" * 64, "2" * 64, "10.3.0", ("87", "89"))
Engine = Callable[..., Path]
TENSORRT = TensorRTBackend("tensorrt")


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, kernels: object, tmp_path: Path) -> None:
    """TensorRT and the plugin library are installed."""
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", fake_tensorrt_rtx)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(fake_tensorrt_rtx, "compiled", [])
    monkeypatch.setattr(fake_tensorrt_rtx, "setups", [])
    monkeypatch.setattr(library, "find", lambda: PLUGINS)
    monkeypatch.setattr(library, "_loaded", [])
    monkeypatch.setattr(fake_tensorrt.registry, "loaded", [])


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """Writes an engine and its sidecar."""

    def write(*, has_host_code: bool = False, **changes: Any) -> Path:
        path = tmp_path / "street.plan"
        path.write_bytes(fake_tensorrt.plan(tensors(MODEL), has_host_code=has_host_code))
        file = PlanFile(
            model=MODEL,
            flavour="tensorrt",
            tensorrt="10.3.0",
            gpu="NVIDIA GeForce RTX 4090",
            compute_capability="8.9",
            driver="13.0",
            panrt="0.1.0",
            plugin_version=library.VERSION,
            plugins_sha256=PLUGINS.sha256,
            plugins_sources_sha256=PLUGINS.sources_sha256,
            onnx="street.onnx",
            onnx_sha256="0" * 64,
            plan_sha256=plan_file.sha256_of(path),
            plan_bytes=path.stat().st_size,
            options=BuildOptions(),
            workspace_bytes=1 << 30,
            precisions=Precisions(fp32=1, fp16=0, int8=0, plugins=5, other=0, fallen_to_fp32=()),
            build_seconds=1.0,
        )
        plan_file.sidecar(path).write_text(plan_file.dumps(dataclasses.replace(file, **changes)))
        return path

    return write


RTX: dict[str, Any] = {"flavour": "rtx", "tensorrt": "1.7.1.116", "gpu": "", "compute_capability": ""}


@pytest.mark.parametrize("backend", ["auto", "tensorrt"])
def test_an_engine_that_fits_is_opened(engine: Engine, backend: str) -> None:
    with panrt.load(engine(), backend=backend) as session:
        assert (session.backend, session.capacity, session.model) == ("tensorrt", 2, MODEL)
        check(session(picture(0)), picture(0))


def test_every_kernel_is_loaded_before_a_capture_can_need_it(engine: Engine) -> None:
    kernels = ctypes.CDLL(str(LIBRARY))
    loaded, mode = ctypes.c_int(), ctypes.c_int()
    with panrt.load(engine()):
        kernels.hc_loaded(ctypes.byref(loaded), ctypes.byref(mode))
    before = loaded.value
    kernels.panrt_cuda_prepare()
    kernels.hc_loaded(ctypes.byref(loaded), ctypes.byref(mode))
    assert loaded.value == before > 0


def test_loading_leaves_the_callers_contexts_as_they_are(engine: Engine) -> None:
    path = engine()
    for _ in range(2):
        with contexts_unchanged():
            assert TENSORRT.obstacle(path) is None
        with contexts_unchanged(), pytest.raises(InputSizeError):
            panrt.load(path, input_hw=(64, 64))
        with contexts_unchanged(), pytest.raises(EngineError):
            panrt.load(engine(has_host_code=True))
        with contexts_unchanged(), panrt.load(engine()) as session:
            check(session(picture(0)), picture(0))
        cu.cuCtxPushCurrent(cu.cuDevicePrimaryCtxRetain(0)[1])  # the second time in a program that has one
    for _ in range(2):
        cu.cuCtxPopCurrent()
        cu.cuDevicePrimaryCtxRelease(0)


def test_an_engine_of_tensorrt_for_rtx_is_opened_by_its_backend(engine: Engine) -> None:
    path = engine(**RTX)
    with panrt.load(path) as session:
        assert session.backend == "rtx"
        check(session(picture(0)), picture(0))
    with pytest.raises(BackendError, match="it is an engine of TensorRT-RTX, not of TensorRT"):
        panrt.load(path, backend="tensorrt")


# Kernels that TensorRT for RTX compiles


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "panrt" / "kernels").iterdir())


def test_kernels_are_compiled_at_the_first_start_alone(engine: Engine, tmp_path: Path) -> None:
    path = engine(**RTX)
    for _ in range(3):
        with panrt.load(path) as session:
            check(session(picture(0)), picture(0))
    assert fake_tensorrt_rtx.compiled == ["pattern"]
    assert len(kept(tmp_path)) == 1


def test_all_slots_share_one_setup(engine: Engine) -> None:
    with panrt.load(engine(**RTX)) as session:
        one, other = fake_tensorrt_rtx.setups
        assert session.capacity == 2
    assert one is other
    assert one.cache is not None


def test_tensorrt_has_nothing_to_compile(engine: Engine, tmp_path: Path) -> None:
    panrt.load(engine()).close()
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: whole[:-1],
        lambda whole: whole[:10],
        lambda whole: whole[:-1] + b"!",
        lambda whole: whole + b"more",
    ],
)
def test_a_damaged_file_of_kernels_is_written_again(
    engine: Engine, tmp_path: Path, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    path = engine(**RTX)
    panrt.load(path).close()
    (file,) = kept(tmp_path)
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    panrt.load(path).close()
    assert f"{file}: damaged; kernels are compiled again." in caplog.messages
    assert fake_tensorrt_rtx.compiled == ["pattern"] * 2
    assert file.read_bytes() == whole
    panrt.load(path).close()
    assert fake_tensorrt_rtx.compiled == ["pattern"] * 2


def test_kernels_that_tensorrt_does_not_take_are_compiled_again(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = engine(**RTX)
    panrt.load(path).close()
    (file,) = kept(tmp_path)
    whole = file.read_bytes()
    with monkeypatch.context() as patch:  # something that TensorRT looks at and the name of the file does not have
        patch.setattr(fake_tensorrt_rtx, "_environment", lambda: "another driver")
        panrt.load(path).close()
    assert f"{file}: TensorRT for RTX rejects its kernels, and compiles them again." in caplog.messages
    assert fake_tensorrt_rtx.compiled == ["pattern"] * 2
    assert file.read_bytes() != whole


def test_each_gpu_driver_and_version_has_kernels_of_its_own(
    engine: Engine, tmp_path: Path, gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = engine(**RTX)
    panrt.load(path).close()
    gpu.set_fact("driver_version", 13010)
    panrt.load(path).close()
    gpu.set_name("Other GPU")
    panrt.load(path).close()
    monkeypatch.setattr(fake_tensorrt_rtx, "__version__", "1.8.0")
    panrt.load(engine(**RTX | {"tensorrt": "1.8.0"})).close()
    assert len(kept(tmp_path)) == len(fake_tensorrt_rtx.compiled) == 4


def test_pruned_kernels_are_compiled_again(engine: Engine, tmp_path: Path) -> None:
    path = engine(**RTX)
    with panrt.load(path) as session:
        ((file, size),) = runtime_cache.sizes().items()
        assert [file] == kept(tmp_path)
        assert runtime_cache.prune(unused_days=1) == (0, 0)  # it was used just now
        assert runtime_cache.prune(unused_days=0) == (1, size)
        check(session(picture(0)), picture(0))
    panrt.load(path).close()
    assert fake_tensorrt_rtx.compiled == ["pattern"] * 2


def test_a_cache_that_cannot_be_written_costs_time_alone(
    engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = engine(**RTX)
    (tmp_path / "cache" / "panrt").mkdir(parents=True)
    (tmp_path / "cache" / "panrt" / "kernels").write_text("not a folder")
    with panrt.load(path) as session:
        check(session(picture(0)), picture(0))
    assert "the next start compiles kernels again." in caplog.text


def test_without_a_home_folder_kernels_are_compiled_at_every_start(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = engine(**RTX)
    homes.have_none(monkeypatch)
    for _ in range(2):
        with panrt.load(path) as session:
            check(session(picture(0)), picture(0))
    assert fake_tensorrt_rtx.compiled == ["pattern"] * 2
    warned = [message for message in caplog.messages if "XDG_CACHE_HOME" in message]
    assert len(warned) == 2
    assert warned[0].endswith("TensorRT for RTX compiles kernels at every start.")


def test_foreign_files_in_the_place_of_a_cache_file_cost_time_alone(
    engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = engine(**RTX)
    panrt.load(path).close()
    (file,) = kept(tmp_path)
    file.unlink()
    os.mkfifo(file)
    panrt.load(path).close()
    assert f"{file}: is a pipe, expected compiled kernels. Kernels are compiled again." in caplog.messages
    panrt.load(path).close()
    assert fake_tensorrt_rtx.compiled == ["pattern"] * 2


def test_a_tensorrt_that_takes_no_cache_runs_without(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fake_tensorrt_rtx, "takes_caches", False)
    with panrt.load(engine(**RTX)) as session:
        check(session(picture(0)), picture(0))
    assert "rejects the cache, and compiles at every start" in caplog.text


def test_an_engine_has_one_input_size(engine: Engine) -> None:
    panrt.load(engine(), backend="tensorrt", input_hw=MODEL.input_hw).close()
    with pytest.raises(InputSizeError, match=r"its input is 32x64 \(height x width\) and cannot be 64x64"):
        panrt.load(engine(), backend="tensorrt", input_hw=(64, 64))


def test_only_an_engine_that_was_built_version_compatible_may_bring_code(engine: Engine) -> None:
    compatible = BuildOptions(version_compatible=True)
    with panrt.load(engine(has_host_code=True, tensorrt="10.1.0", options=compatible)) as session:
        check(session(picture(0)), picture(0))
    with pytest.raises(EngineError, match="host code is not allowed"):
        TENSORRT.open_session(engine(has_host_code=True))


def test_the_plugin_library_is_loaded_once_in_a_process(engine: Engine) -> None:
    for _ in range(3):
        panrt.load(engine()).close()
    assert fake_tensorrt.registry.loaded == [str(LIBRARY)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tensorrt": "10.13.2"}, "TensorRT version: built with 10.13.2, this process has 10.3.0.\n  Rebuild it here:  "
         "panrt build .*street.onnx -o .*street.plan"),
        ({"gpu": "Orin (nvgpu)", "compute_capability": "8.7"}, r"GPU: built with 'Orin \(nvgpu\)' .*8\.7.*, this "
         r"process has 'NVIDIA GeForce RTX 4090' \(compute capability 8\.9\)"),
        ({"plugins_sha256": "3" * 64, "plugins_sources_sha256": "4" * 64}, "plugin library: built with sha256 33333"),
        ({"plugin_version": "0"}, "plugin version: built with 0, this process has 2"),
    ],
)  # fmt: skip
def test_an_engine_of_something_else_is_refused_before_tensorrt_sees_it(
    engine: Engine, gpu: ModuleType, changes: dict[str, Any], message: str
) -> None:
    path = engine(**changes)
    gpu.take_log()
    with pytest.raises(BackendError, match=message):
        panrt.load(path, backend="tensorrt")
    assert "cuMemAlloc" not in gpu.take_log()
    with pytest.raises(PlanMismatch, match=message):
        TENSORRT.open_session(path)


def test_an_engine_that_was_cut_off_or_changed_is_refused(engine: Engine, gpu: ModuleType) -> None:
    path = engine()
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    assert "the file is cut off" in str(TENSORRT.obstacle(path))
    path.write_bytes(whole[:-1] + b"!")
    before = gpu.alive()
    with pytest.raises(PlanFileError, match="the file is damaged"):
        panrt.load(path)
    assert gpu.alive() == before


def test_an_engine_without_its_sidecar_is_refused(engine: Engine) -> None:
    path = engine()
    plan_file.sidecar(path).unlink()
    with pytest.raises(BackendError, match=r"street\.plan\.json: no such file"):
        panrt.load(path, backend="tensorrt")
    with pytest.raises(PlanFileError):
        TENSORRT.open_session(path)


def test_an_onnx_file_is_answered_with_how_to_build(tmp_path: Path) -> None:
    for backend in (TENSORRT, TensorRTBackend("rtx")):
        assert backend.obstacle(tmp_path / "street.onnx") == (
            f"it is not an engine; build one:  panrt build {tmp_path}/street.onnx -o {tmp_path}/street.plan"
        )


# A machine that lacks something


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("tensorrt", "TensorRT's Python module does not import .*it comes with JetPack, .*--system-site-packages"),
        ("cuda", r"cuda-python does not import .*pip install 'panrt\[cuda\]'"),
    ],
)
def test_packages_that_do_not_import_are_named_with_their_installation(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, module: str, message: str
) -> None:
    path = engine()
    monkeypatch.delitem(sys.modules, module)
    for name in [
        name for name in sys.modules if name.startswith((f"{module}.", "panrt.engine.backends.tensorrt.driver"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("panrt.engine.backends.tensorrt.driver")

    class Finder:
        """Finds nothing."""

        def find_spec(self, name: str, *_: Any) -> None:
            if name == module or name.startswith(f"{module}."):
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    with pytest.raises(BackendError, match=message):
        panrt.load(path, backend="tensorrt")


def test_a_tensorrt_that_is_too_old_is_refused(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake_tensorrt, "__version__", "10.2.0")
    assert TENSORRT.obstacle(engine()) == "TensorRT 10.2.0 is too old, PanRT needs 10.3; upgrade it."


@pytest.mark.parametrize(("call", "error", "name"), [("cuInit", 100, "CUDA_ERROR_NO_DEVICE"), ("cuDeviceGet", 999, "")])
def test_a_machine_without_a_gpu_is_said_to_be_one(
    engine: Engine, gpu: ModuleType, call: str, error: int, name: str
) -> None:
    gpu.fail(call, error)
    with pytest.raises(BackendError, match=rf"there is no GPU to run it on \({call}: {name}"):
        panrt.load(engine(), backend="tensorrt")


def test_a_plugin_library_without_kernels_is_refused(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "find", lambda: PLUGINS._replace(cuda_architectures=()))
    with pytest.raises(BackendError, match=r"has no CUDA kernels, .* panrt plugins build"):
        panrt.load(engine(), backend="tensorrt")


def test_a_plugin_library_that_is_missing_or_does_not_load_is_named(
    engine: Engine, gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> PluginLibrary:
        raise PluginLibraryError("libpanrt_plugins.so: not built; run  panrt plugins build.")

    with monkeypatch.context() as patch:
        patch.setattr(library, "find", missing)
        with pytest.raises(BackendError, match="not built; run  panrt plugins build"):
            panrt.load(engine(), backend="tensorrt")
    monkeypatch.setattr(fake_tensorrt.registry, "load_library", lambda path: None)
    before = gpu.alive()
    with pytest.raises(PluginLibraryError, match="TensorRT did not accept all of its plugins"):
        panrt.load(engine(), backend="tensorrt")
    assert gpu.alive() == before


def test_what_is_missing_is_an_error_of_its_own(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake_tensorrt, "__version__", "8.6.1")
    with pytest.raises(MissingError, match="too old"):
        TENSORRT.open_session(engine())


def test_bench_takes_a_frame_on_the_gpu_apart(engine: Engine, tmp_path: Path) -> None:
    frame = tmp_path / "frame.png"
    assert cv2.imwrite(str(frame), picture(0))
    arguments = ["bench", str(engine()), "--source", str(tmp_path), "--frames", "3", "--warm-up", "1", "--rate", "0"]
    shown = CliRunner().invoke(app, [*arguments, "--profile"])
    assert shown.exit_code == 0, shown.output
    for text in ("on the GPU", "throughput run", "slowest of 2 layers", r"backbone +0\.500 +50\.0"):
        assert re.search(text, shown.output)
    told = json.loads(CliRunner().invoke(app, [*arguments, "--profile", "--json"]).output)
    assert told["gpu_profile"]["layers"] == {"backbone": 0.5e-3, "merge": 0.5e-3}
