"""Building, finding and loading the plugin library, and what is said where that fails."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from panrt.cli import app
from panrt.errors import GpuError, PluginLibraryError
from panrt.gpu import device as gpu
from panrt.gpu.device import Gpu
from panrt.plugins import _native, library
from panrt.plugins.nodes import versions
from support import homes
from tools.plugin_library import folder, plugin_library


class Registry:
    """What TensorRT's plugin registry shows of itself."""

    def __init__(self, *, brings: Iterable[str] = library.OPS) -> None:
        self.all_creators: list[SimpleNamespace] = []
        self.brings = brings
        self.loaded: list[str] = []

    def load_library(self, path: str) -> object:
        self.loaded.append(path)
        self.all_creators += [SimpleNamespace(name=name, plugin_namespace="panrt") for name in self.brings]
        return object() if self.brings else None


class UnlistedRegistry:
    """One with a creator that TensorRT's Python does not know: it lists none then, but finds them by name."""

    all_creators = None

    def __init__(self) -> None:
        self.inner = Registry()

    def load_library(self, path: str) -> object:
        return self.inner.load_library(path)

    def get_creator(self, name: str, version: str, namespace: str) -> object:
        assert namespace == "panrt"
        assert version in [str(op.version) for op in versions(name)], "TensorRT knows no other"
        return next((creator for creator in self.inner.all_creators if creator.name == name), None)


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No library is loaded, chosen or cached."""
    monkeypatch.setattr(library, "_loaded", [])
    monkeypatch.delenv("PANRT_PLUGINS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_what_is_built_is_found_and_tells_what_it_was_built_from(monkeypatch: pytest.MonkeyPatch) -> None:
    built = plugin_library("off")
    assert built.cuda_architectures == ()
    assert built.sources_sha256 == library.sources_sha256()
    assert built.sha256 == hashlib.sha256(built.path.read_bytes()).hexdigest()
    assert tuple(map(int, built.tensorrt_headers.split("."))) >= (10, 0, 0)
    assert built.rtx_loader.is_file()
    monkeypatch.setenv("PANRT_PLUGINS", str(built.path))
    assert library.find() == built


def test_kernels_are_there_for_each_architecture_and_as_ptx_for_newer_ones() -> None:
    architectures = plugin_library("auto").cuda_architectures
    if architectures:  # nvcc was found
        *real, ptx = architectures
        assert "75" in real
        assert ptx == f"{real[-1]}-ptx"
    else:
        assert shutil.which("nvcc", path=f"{library.tool_path()}:/usr/local/cuda/bin") is None


def test_building_again_changes_nothing() -> None:
    built = plugin_library("off")
    before = built.path.stat().st_mtime_ns
    plugin_library.cache_clear()
    assert plugin_library("off") == built
    assert built.path.stat().st_mtime_ns == before
    assert [p.name for p in built.path.parent.iterdir() if p.name.startswith(".")] == []


ORIN = Gpu("Orin", "8.7", "12.6", True, 8 << 30, 5 << 30)


def broken_driver() -> Gpu:
    raise GpuError("cuDeviceGet: CUDA error 999")


class Build:
    """What `library.build` asks of CMake, which is not run, and what it says meanwhile."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, find: Callable[[], Gpu | None]) -> None:
        self.commands: list[tuple[str, ...]] = []
        self.said: list[str] = []
        self.output = tmp_path / library.NAME
        monkeypatch.setattr(gpu, "find", find)
        monkeypatch.setattr(library, "_run", lambda *command, progress=None: self.commands.append(command))
        monkeypatch.setattr(library, "_replace", lambda source, target: None)
        monkeypatch.setattr(library, "inspect", lambda path: None)

    def __call__(self, *architectures: str) -> str:
        """The architectures that CMake gets: those that were asked for, then the machine's."""
        library.build(
            output=self.output,
            architectures=architectures,
            progress=lambda step, text: self.said.append(f"{step}: {text}"),
        )
        configure = self.commands[0]
        options = dict(option[2:].split("=", 1) for option in configure if option.startswith("-D"))
        return f"{options['PANRT_CUDA_ARCHITECTURES']}|{options['PANRT_NATIVE_ARCHITECTURE']}"


@pytest.mark.parametrize(
    ("find", "architectures", "given", "said"),
    [
        (lambda: ORIN, (), "|87", "target: architecture 87, that of the Orin; --arch all compiles for others too"),
        (lambda: None, (), "|", "target: all architectures, as this machine has no GPU"),
        (
            broken_driver,
            (),
            "|",
            "target: all architectures, as the GPU is unknown (cuDeviceGet: CUDA error",
        ),
        (lambda: ORIN, ("all",), "|", ""),
        (lambda: ORIN, ("86", "89"), "86;89|", ""),
    ],
)
def test_kernels_are_compiled_for_this_machines_gpu_or_for_what_is_asked(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    find: Callable[[], Gpu | None],
    architectures: tuple[str, ...],
    given: str,
    said: str,
) -> None:
    build = Build(monkeypatch, tmp_path, find)
    assert build(*architectures) == given
    assert any(said in line for line in build.said)
    assert any(line.startswith("target: ") for line in build.said) == bool(said)


def test_all_architectures_are_asked_for_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(PluginLibraryError, match="architectures: got all, 87; expected all alone, or numbers"):
        Build(monkeypatch, tmp_path, lambda: None)("all", "87")


@pytest.mark.parametrize(
    ("cores", "gigabytes", "jobs"), [(6, 7.9, 3), (6, 3.9, 1), (6, 0.2, 1), (2, 64.0, 2), (12, 24.0, 12)]
)
def test_as_many_files_are_compiled_at_a_time_as_memory_holds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cores: int, gigabytes: float, jobs: int
) -> None:
    monkeypatch.setattr("panrt.plugins.library.os.sched_getaffinity", lambda process: set(range(cores)))
    monkeypatch.setattr(library, "available_bytes", lambda: int(gigabytes * 1e9))
    build = Build(monkeypatch, tmp_path, lambda: ORIN)
    build()
    assert build.commands[1][-2:] == ("--parallel", str(jobs))
    assert f"compile: {jobs} at a time, of about 2 GB each" in build.said


def test_available_memory_is_some() -> None:
    assert 2**20 < library.available_bytes() < 2**50


@pytest.mark.parametrize(("native", "built"), [("87", "87;87-ptx"), ("999", "75;80;86;87;89;90;100;110;120;120-ptx")])
def test_an_architecture_that_nvcc_does_not_know_is_left_to_ptx(tmp_path: Path, native: str, built: str) -> None:
    if shutil.which("nvcc", path=f"{library.tool_path()}:/usr/local/cuda/bin") is None:
        pytest.skip("no nvcc")
    plugin_library("off")  # its headers
    headers = folder("off") / "tensorrt-headers" / "kernel_lens" / "include" / "tensorrt"
    options = ("-DPANRT_KERNELS=ON", f"-DPANRT_NATIVE_ARCHITECTURE={native}", f"-DPANRT_TENSORRT_INCLUDE={headers}")
    command = ["cmake", "-S", str(library.SOURCES), "-B", str(tmp_path), *options]
    done = subprocess.run(
        command, env={**os.environ, "PATH": library.tool_path()}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"kernels for {built}, with" in done.stdout


def test_building_tells_each_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "cmake").write_text(
        "#!/bin/sh\necho '[1/2] Building CUDA object CMakeFiles/x.dir/cuda/overlay.cu.o'\n"
        "echo '[ 50%] Building CXX object CMakeFiles/x.dir/tensorrt/report.cpp.o'\n"
        "echo '[2/2] Linking CXX shared library libpanrt_plugins.so'\n"
    )
    (tmp_path / "cmake").chmod(0o755)
    monkeypatch.setattr(library, "tool_path", lambda: str(tmp_path))
    library._run("cmake", progress=lambda step, text: said.append(f"{step} {text}"))
    assert said == ["1/2 overlay.cu", "50% report.cpp", "2/2 libpanrt_plugins.so"]


def test_a_library_that_was_not_built_is_missed_with_the_way_to_it(tmp_path: Path) -> None:
    with pytest.raises(PluginLibraryError, match=r"plugins of this PanRT are not built; run  panrt plugins build"):
        library.find()
    assert str(library.cached_path()).startswith(str(tmp_path))


def test_without_a_home_folder_the_library_is_missed_with_the_ways_to_name_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    homes.have_none(monkeypatch)
    for use in (library.find, library.build):
        with pytest.raises(PluginLibraryError, match=r"set XDG_CACHE_HOME .* set PANRT_PLUGINS to it"):
            use()
    with pytest.raises(PluginLibraryError, match=r"^~/plugins\.so: this home folder is not known"):
        library.inspect(Path("~/plugins.so"))
    monkeypatch.setenv(library.VARIABLE, str(plugin_library("off").path))
    assert library.find().path == plugin_library("off").path


def test_the_cache_never_gives_a_library_of_other_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    path = library.cached_path()
    path.parent.mkdir(parents=True)
    path.write_bytes(plugin_library("off").path.read_bytes())
    assert library.find().path == path
    monkeypatch.setattr(library, "sources_sha256", lambda: "0" * 64)
    with pytest.raises(PluginLibraryError, match="not built"):
        library.find()


def test_the_hash_covers_every_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(library, "SOURCES", tmp_path)
    (tmp_path / "cuda" / "include").mkdir(parents=True)
    (tmp_path / "include").mkdir()
    (tmp_path / "tensorrt").mkdir()
    for name in ("CMakeLists.txt", "defaults.cmake"):
        (tmp_path / name).write_text("")
    seen = {library.sources_sha256()}
    for name in ("cuda/a.cu", "cuda/include/a.h", "include/b.h", "tensorrt/c.cpp", "tensorrt/exports.map"):
        (tmp_path / name).write_text("int x;")
        seen.add(library.sources_sha256())
    for name in ("CMakeLists.txt", "defaults.cmake"):
        (tmp_path / name).write_text("# changed")
        seen.add(library.sources_sha256())
    assert len(seen) == 8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such plugin library"),
        (b"text", "does not load as a library"),
        (Path(str(_native.__file__)).read_bytes(), "not a PanRT plugin library"),
    ],
)
def test_files_that_are_no_plugin_libraries_are_refused(
    content: bytes | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "other.so"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("PANRT_PLUGINS", str(path))
    with pytest.raises(PluginLibraryError, match=message) as error:
        library.find()
    assert str(path) in str(error.value)
    assert "panrt plugins build" in str(error.value)


def test_a_library_that_rounds_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    info = r"{\"plugin_version\": \"2\"}"
    source = f'''const char* panrt_plugins_info(void) {{ return "{info}"; }}
    const char* panrt_plugins_arithmetic_fault(void) {{ return "it was compiled with fused multiply-adds"; }}'''
    path = tmp_path / library.NAME
    subprocess.run(["cc", "-shared", "-fPIC", "-xc", "-", "-o", str(path)], input=source, text=True, check=True)
    monkeypatch.setenv("PANRT_PLUGINS", str(path))
    with pytest.raises(PluginLibraryError, match=r"fused multiply-adds; run  panrt plugins build"):
        library.find()


def test_plugins_are_registered_once() -> None:
    registry, built = Registry(), plugin_library("off")
    for _ in range(3):
        library.load(registry, built)
    assert registry.loaded == [str(built.path)]


def test_plugins_are_found_where_tensorrt_lists_no_creators() -> None:
    registry, built = UnlistedRegistry(), plugin_library("off")
    for _ in range(3):
        library.load(registry, built)
    assert registry.inner.loaded == [str(built.path)]
    other = UnlistedRegistry()
    other.inner.brings = library.OPS[:3]
    with pytest.raises(PluginLibraryError, match="TensorRT did not accept all of its plugins"):
        library.load(other, built)


def test_a_second_library_in_one_process_is_refused() -> None:
    registry, built = Registry(), plugin_library("off")
    library.load(registry, built)
    other = built._replace(path=Path("/elsewhere") / library.NAME)
    with pytest.raises(PluginLibraryError, match=rf"^/elsewhere/.*this process has loaded {built.path}"):
        library.load(registry, other)


@pytest.mark.parametrize("brings", [(), library.OPS[:3]])
def test_a_library_that_brings_too_little_is_refused(brings: tuple[str, ...]) -> None:
    with pytest.raises(PluginLibraryError, match="TensorRT did not accept all of its plugins"):
        library.load(Registry(brings=brings), plugin_library("off"))


def test_a_compiler_error_is_shown_and_leaves_no_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "CMakeLists.txt").write_text(
        'cmake_minimum_required(VERSION 3.21)\nproject(x LANGUAGES NONE)\nmessage(FATAL_ERROR "no such header")'
    )
    monkeypatch.setattr(library, "SOURCES", sources)
    with pytest.raises(PluginLibraryError, match=r"(?s)does not build; cmake -S ended with:.*no such header"):
        library.build(output=tmp_path / "out" / library.NAME)
    assert not (tmp_path / "out" / library.NAME).exists()


def test_a_missing_cmake_is_named_with_the_extra_that_has_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(library, "tool_path", lambda: str(tmp_path))
    with pytest.raises(PluginLibraryError, match=r"cmake: not found; pip install 'panrt\[plugins\]'"):
        library.build(output=tmp_path / library.NAME)


def test_the_command_builds_for_what_is_asked_and_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []
    built = plugin_library("off")

    def build(*, architectures: tuple[str, ...], progress: Callable[[str, str], None], **_: object) -> object:
        asked.append(tuple(architectures))
        progress("1/2", "overlay.cu")
        return built

    monkeypatch.setattr(library, "build", build)
    for options in ([], ["--arch", "all"], ["--arch", "86", "--arch", "89"]):
        done = CliRunner().invoke(app, ["plugins", "build", *options])
        assert done.exit_code == 0, done.output
        assert "1/2         overlay.cu" in done.stdout
    assert asked == [(), ("all",), ("86", "89")]
    as_json = CliRunner().invoke(app, ["plugins", "build", "--json"])
    assert json.loads(as_json.stdout)["path"] == str(built.path)


def test_the_command_tells_which_library_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = CliRunner().invoke(app, ["plugins", "info"])
    assert missing.exit_code == 2
    assert "run  panrt plugins build" in missing.stderr
    monkeypatch.setenv("PANRT_PLUGINS", str(plugin_library("off").path))
    found = CliRunner().invoke(app, ["plugins", "info"])
    assert found.exit_code == 0
    assert str(plugin_library("off").path) in found.stdout
    assert "none: engines can be built, not run" in found.stdout


def test_fetched_headers_are_those_of_the_committed_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin_library("off")  # fetches them where the machine has none
    original = folder("off") / "tensorrt-headers" / library._HEADERS_FOLDER
    if not original.is_dir():
        pytest.skip("this machine has TensorRT's headers, so that none were fetched")
    fetched = tmp_path / library._HEADERS_FOLDER
    runs: list[tuple[str, ...]] = []

    def fetch(*command: str) -> None:
        runs.append(command)
        shutil.copytree(original, fetched, dirs_exist_ok=True)

    monkeypatch.setattr(library, "_run", fetch)
    for _ in range(2):
        assert library.fetched_headers(tmp_path) == fetched
    assert len(runs) == 1
    assert "--require-hashes" in runs[0]
    (fetched / "NvInferRuntime.h").write_text("#error")  # changed afterwards: fetched again
    library.fetched_headers(tmp_path)
    assert len(runs) == 2
    (fetched / "NvInferExtra.h").touch()  # what pip unpacked is not what was committed
    with pytest.raises(
        PluginLibraryError, match=r"the headers of kernel-lens==2\.0\.1 have sha256 \w{12}\.\.\., expected"
    ):
        library.fetched_headers(tmp_path)
