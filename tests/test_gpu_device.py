"""Look-up of the GPU through its driver, on a stand-in driver."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from panrt.errors import GpuError
from panrt.gpu import device as gpu
from panrt.gpu.device import Gpu

GIB = 2**30

DRIVER = """
#include <stddef.h>
#include <string.h>
int pushed;
int cuInit(unsigned flags) { return NO_DEVICE ? 100 : 0; }
int cuDeviceGetCount(int* count) { *count = 1; return 0; }
int cuDriverGetVersion(int* version) { *version = 12060; return 0; }
int cuDeviceGet(int* device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetName(char* name, int size, int device) { strcpy(name, "Orin (nvgpu)"); return 0; }
int cuDeviceGetPCIBusId(char* address, int size, int device) { strcpy(address, "0000:65:00.0"); return 0; }
int cuDeviceGetAttribute(int* value, int attribute, int device) {
  *value = attribute == 75 ? 8 : attribute == 76 ? 7 : attribute == 18 ? INTEGRATED : -1;
  return 0;
}
int cuDevicePrimaryCtxRetain(void** context, int device) { *context = &pushed; return 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { return pushed ? 201 : 0; }
int cuCtxPushCurrent_v2(void* context) { pushed += context == &pushed; return 0; }
int cuCtxPopCurrent_v2(void** context) { --pushed; return 0; }
int cuMemGetInfo_v2(size_t* free, size_t* total) {
  *free = (size_t)5 << 29;
  *total = (size_t)8 << 30;
  return pushed && !BROKEN ? 0 : 700;
}
"""


def driver(folder: Path, **traits: int) -> str:
    folder.mkdir(exist_ok=True)
    library = folder / "libcuda.so"
    source = folder / "driver.c"
    source.write_text(DRIVER)
    defines = [f"-D{name}={traits.get(name, 0)}" for name in ("NO_DEVICE", "BROKEN", "INTEGRATED")]
    subprocess.run(["cc", "-shared", "-fPIC", *defines, "-o", library, source], check=True)
    return str(library)


def test_a_gpu_is_what_its_driver_says(tmp_path: Path) -> None:
    assert gpu.find(library=driver(tmp_path)) == Gpu("Orin (nvgpu)", "8.7", "12.6", False, 8 * GIB, 5 * 2**29)
    assert gpu.driver_version(library=driver(tmp_path)) == (12, 6)


@pytest.mark.parametrize(
    ("said", "free"),
    [
        ("MemTotal: 7772616 kB\nMemFree:  131072 kB\nMemAvailable:    6291456 kB\nCached: 1 kB\n", 6 * GIB),
        ("MemAvailable:   67108864 kB\n", 8 * GIB),  # never more than the GPU has
        ("MemFree:  131072 kB\n", 5 * 2**29),
        (None, 5 * 2**29),
    ],
)
def test_the_files_that_linux_caches_count_as_free_where_memory_is_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str | None, free: int
) -> None:
    memory = tmp_path / "meminfo"
    monkeypatch.setattr(gpu, "MEMORY", memory)
    if said is not None:
        memory.write_text(said)
    found = gpu.find(library=driver(tmp_path, INTEGRATED=1))
    assert found is not None
    assert (found.is_integrated, found.free_bytes) == (True, free)
    apart = gpu.find(library=driver(tmp_path / "apart"))
    assert apart is not None
    assert apart.free_bytes == 5 * 2**29


def test_a_machine_without_driver_or_gpu_has_none(tmp_path: Path) -> None:
    assert gpu.find(library="libno-such-driver.so") is None
    assert gpu.driver_version(library="libno-such-driver.so") is None
    assert gpu.find(library=driver(tmp_path, NO_DEVICE=1)) is None


@pytest.mark.parametrize(
    ("release", "extra"),
    [
        ("# R36 (release), REVISION: 4.3, GCID: 38968081", "jetpack6"),
        ("# R38 (release), REVISION: 2.1", "cuda"),
        ("not what NVIDIA writes", "cuda"),
        (None, "cuda"),
    ],
)
def test_jetpack_6_needs_an_extra_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: str | None, extra: str
) -> None:
    monkeypatch.setattr(gpu, "JETSON_RELEASE", tmp_path / "nv_tegra_release")
    if release is not None:
        gpu.JETSON_RELEASE.write_text(release)
    assert gpu.cuda_extra() == extra
    assert gpu.is_jetson() is (release is not None)


def test_a_gpu_has_a_place_on_the_bus(tmp_path: Path) -> None:
    assert gpu.bus_address(library=driver(tmp_path)) == "0000:65:00.0"
    assert gpu.bus_address(library="libno-such-driver.so") is None


def test_a_driver_that_fails_is_named_by_the_call(tmp_path: Path) -> None:
    with pytest.raises(GpuError, match="cuMemGetInfo_v2: CUDA error 700"):
        gpu.find(library=driver(tmp_path, BROKEN=1))


def test_a_library_that_is_no_driver_is_said_to_be_none(tmp_path: Path) -> None:
    library = tmp_path / "libcuda.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-o", library, "/dev/null"], check=True)
    with pytest.raises(GpuError, match="has no cuDriverGetVersion; it is not an NVIDIA driver"):
        gpu.driver_version(library=str(library))
