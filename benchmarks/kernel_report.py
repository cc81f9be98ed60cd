"""Static analysis of the CUDA kernels (registers, occupancy, instructions), and their simulated memory traffic.

    python -m benchmarks.kernel_report                      both parts, all architectures, all workloads
    python -m benchmarks.kernel_report --traffic tabletop   the traffic of one workload; the rest is kept
    python -m benchmarks.kernel_report --measured FILE      add the times of a GPU, measured.json of tools/gpu

Writes benchmarks/results/kernels.json, which a test compares with, and docs/kernel_report.md from it. The static part
needs nvcc, and cuobjdump of a toolkit or of the nvidia-cuda-cuobjdump and nvidia-cuda-nvdisasm wheels. The traffic
comes from running the kernels in the simulation of tools/hostcuda: requests of warps to memory, no caches. Only what is
called measured was measured on a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

from panrt.plugins import library
from tools import cuda_ops
from tools.hostcuda import SimulatedGpu, kernels
from tools.kernel_workloads import FRAME, OPS, REPORT, SECTOR, WORKLOADS, Workload

ROOT = Path(__file__).resolve().parents[1]
CUDA = ROOT / "plugins" / "cuda"
DOCUMENT = ROOT / "docs" / "kernel_report.md"
ARCHITECTURES = (75, 80, 86, 87, 89, 90, 100, 110, 120)

# Per SM: threads, blocks, bytes of shared memory that blocks can have; registers are 65536 everywhere. From the CUDA
# programming guide's table of compute capabilities, typed in by hand.
LIMITS = {
    75: (1024, 16, 64 << 10),
    80: (2048, 32, 164 << 10),
    86: (1536, 16, 100 << 10),
    87: (1536, 16, 164 << 10),
    89: (1536, 24, 100 << 10),
    90: (2048, 32, 228 << 10),
    100: (2048, 32, 228 << 10),
    110: (1536, 24, 228 << 10),
    120: (1536, 24, 100 << 10),
}
# Peak memory bandwidth, GB/s, as the makers publish it.
BANDWIDTHS = {
    "Orin Nano 8GB": 68,
    "Orin Nano Super": 102,
    "AGX Orin 64GB": 204.8,
    "AGX Thor T5000": 273,
    "T4": 320,
    "RTX 4090": 1008,
    "RTX 5090": 1792,
}

# --- Static ----------------------------------------------------------------------------------------------------------

_FUNCTION = re.compile(
    r"Function properties for (\S+)\s+(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
    r".*?Used (\d+) registers(.*?)\n",
    re.DOTALL,
)
_SASS = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.]*)", re.MULTILINE)
_BOUNDS = re.compile(r"__launch_bounds__\(([^),]+)[^)]*\)\s*(?:void\s+)?(?:__maxnreg__\(\d+\)\s*)?(?:void\s+)?(\w+)")


def compile_static(source: Path, architecture: int, *, with_sass: bool = True) -> dict[str, dict[str, Any]]:
    """Registers, spills, shared memory, occupancy and instruction mix of each kernel of a file, by readable name.

    Raises:
        RuntimeError: nvcc or cuobjdump is missing or fails; the message has its output.
    """
    threads_of = block_sizes(source)
    with tempfile.TemporaryDirectory() as scratch:
        cubin = Path(scratch) / "kernels.cubin"
        include = [f"-I{path}" for path in (CUDA, CUDA / "include", ROOT / "plugins" / "include")]
        flags = ["-std=c++17", "-O3", "--fmad=false", f"-arch=sm_{architecture}", "-cubin", "-Xptxas", "-v"]
        log = _run([_tool("nvcc"), *flags, *include, "-o", str(cubin), str(source)])
        sass = _sass_mix(cubin) if with_sass else {}
    kernels = {}
    for mangled, stack, stores, loads, registers, more in _FUNCTION.findall(log):
        name = readable(mangled)
        shared = re.search(r"(\d+) bytes smem", more)
        threads = threads_of[name.split("<")[0]]
        size = int(shared[1]) if shared else 0
        kernels[name] = {
            "threads": threads,
            "registers": int(registers),
            "stack_bytes": int(stack),
            "spill_bytes": int(stores) + int(loads),
            "shared_bytes": size,
            "occupancy": round(occupancy(architecture, threads, int(registers), size), 2),
        } | ({"instructions": sass[mangled]} if with_sass else {})
    return kernels


def block_sizes(source: Path) -> dict[str, int]:
    """Threads a block of each kernel of a file, from its launch bounds."""
    text = source.read_text()
    shared = "\n".join(path.read_text() for path in sorted(source.parent.glob("*.h")))
    constants = dict(re.findall(r"constexpr \w+ (k\w+) = (\d+)[,;]", f"{shared}\n{text}"))
    return {name: int(constants.get(bound.strip(), bound)) for bound, name in _BOUNDS.findall(text)}


def occupancy(architecture: int, threads: int, registers: int, shared: int) -> float:
    """Share of an SM's threads that can be resident, dynamic shared memory left aside."""
    most_threads, most_blocks, most_shared = LIMITS[architecture]
    warps = -(-threads // 32)
    of_warp = -(-registers * 32 // 256) * 256
    by_registers = 65536 // of_warp // warps
    by_shared = most_shared // (-(-(shared + 1024) // 128) * 128)  # every block has 1 KiB of the system's
    return min(most_threads // threads, most_blocks, by_registers, by_shared) * threads / most_threads


def readable(mangled: str) -> str:
    """A kernel's name and template arguments, without namespaces and parameters."""
    name = _run([_tool("c++filt"), mangled]).strip()
    name = re.sub(r"panrt::cuda::|\(anonymous namespace\)::|^void ", "", name)
    return name[: name.rindex("(")].strip() if "(" in name else name


def _sass_mix(cubin: Path) -> dict[str, dict[str, int]]:
    """Count the instructions of interest: loads and stores by width, double precision, local memory, all."""
    mix = {}
    for part in _run([_tool("cuobjdump"), "-sass", str(cubin)]).split("Function : ")[1:]:
        counts: Counter[str] = Counter()
        for opcode in _SASS.findall(part):
            base, *modifiers = opcode.split(".")
            counts["all"] += 1
            if base in ("LDG", "STG"):
                width = next((m for m in modifiers if m in ("64", "128", "U8", "S8", "U16")), "32")
                counts[f"{base}.{width}"] += 1
            elif base in ("LDS", "STS", "LDL", "STL", "SHFL", "BAR", "ATOMS", "ATOMG", "RED", "VOTE"):
                counts[base] += 1
            elif base.startswith("D") and base in ("DADD", "DMUL", "DFMA", "DSETP"):
                counts["double"] += 1
        mix[part.split()[0]] = dict(sorted(counts.items()))
    return mix


def _tool(name: str) -> str:
    wheels = Path(sysconfig.get_path("purelib")) / "nvidia" / "cu13" / "bin"
    found = shutil.which(name) or shutil.which(name, path=str(wheels))
    if found is None:
        raise RuntimeError(
            f"{name} is neither on PATH nor in {wheels}; install a CUDA toolkit, or: "
            "pip install nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm"
        )
    return found


def _run(command: list[str]) -> str:
    wheels = Path(sysconfig.get_path("purelib")) / "nvidia" / "cu13" / "bin"  # cuobjdump calls nvdisasm
    environment = {**os.environ, "PATH": os.pathsep.join([os.environ["PATH"], str(wheels)])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        raise RuntimeError(" ".join(command) + "\n" + done.stdout + done.stderr)
    return done.stdout + done.stderr


# --- Traffic ---------------------------------------------------------------------------------------------------------


def trace(op: str, load: Workload, gpu: SimulatedGpu) -> dict[str, Any]:
    """Sectors that an op's kernels ask for on a workload, kernel by kernel, and how they compare with the ideal.

    Args:
        op: a key of `OPS`.
        load: the workload.
        gpu: a `SimulatedGpu` of the "trace" flavour.
    """
    call = OPS[op](load)
    getattr(cuda_ops, call.function)(*call.inputs, **call.options, gpu=gpu)
    assert gpu.trace is not None
    by_kernel: dict[str, dict[str, int]] = {}
    touched = 0
    for launch in gpu.trace.launches:
        reads, writes = launch.reads.values(), launch.writes.values()
        touched += sum(buffer.block_sectors for buffer in reads)
        by_kernel[_base_name(launch.kernel)] = {  # the columns of the report
            "sectors_read": sum(buffer.sectors for buffer in reads),
            "packed_read": sum(buffer.ideal_sectors for buffer in reads),
            "sectors_written": sum(buffer.sectors for buffer in writes),
            "packed_written": sum(buffer.ideal_sectors for buffer in writes),
            "stores_apart": sum(buffer.uncoalesced for buffer in writes),
            "shared_passes": launch.shared_passes,
            "shared_passes_without_conflicts": launch.shared_ideal_passes,
        }
    assert len(by_kernel) == gpu.launches, "two launches of one kernel"
    sectors = sum(kernel["sectors_read"] + kernel["sectors_written"] for kernel in by_kernel.values())
    ideal = -(-call.ideal_bytes // SECTOR) + (touched if call.ideal_touched else 0)
    return {
        "launches": gpu.launches,
        "sectors": sectors,
        "ideal_sectors": ideal,
        "ratio": round(sectors / ideal, 3),
        "kernels": by_kernel,
    }


def _base_name(kernel: str) -> str:
    """Return the base name, such as pool, of "void panrt::cuda::(anonymous namespace)::pool<float>(...)"."""
    found = re.search(r"(\w+)(?:<.*?>)?\(", re.sub(r"\([^()]*\)(?=\d|::)", "", kernel))  # casts, anonymous namespaces
    return found.group(1) if found is not None else kernel


def traced_gpu() -> SimulatedGpu:
    """A simulated GPU that counts requests."""
    return SimulatedGpu(kernels("trace"))


# --- Measured --------------------------------------------------------------------------------------------------------


class MeasuredError(ValueError):
    """A file is not one of times that a GPU took."""


def read_measured(path: Path) -> dict[str, Any]:
    """Return what phase 6 of tools/gpu measured on a GPU.

    Raises:
        MeasuredError: it is not such a file, or was written by a run on stand-ins.
    """
    try:
        measured: dict[str, Any] = json.loads(path.read_text())
        name, sources = str(measured["device"]), str(measured["sources_sha256"])
        workloads = {
            load: {op: {"us": float(facts["us"]), "share": float(facts.get("share", 0))} for op, facts in ops.items()}
            for load, ops in measured["workloads"].items()
        }
        peers = {load: {peer: float(us) for peer, us in found.items()} for load, found in measured["peers"].items()}
        is_simulated = bool(measured["simulated"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise MeasuredError(
            f"{path}: expected measured.json of a run of tools/gpu on a GPU, got something else ({error!r})"
        ) from error
    if is_simulated:
        raise MeasuredError(f"{path}: was written by a run on stand-ins; expected one of a run on a GPU")
    return {"device": name, "sources_sha256": sources, "workloads": workloads, "peers": peers}


def measured_columns(report: dict[str, Any], workload: str) -> dict[str, dict[str, str]]:
    """Return, by the title of a column, the cell of each op that a GPU was measured with: time and share."""
    columns = {}
    for measured in report.get("measured", {}).values():
        is_older = measured["sources_sha256"] != library.sources_sha256()
        title = f"{measured['device']}, *measured*" + (", kernels of another version" if is_older else "")
        ops = measured["workloads"].get(workload, {})
        columns[title] = {op: f"**{facts['us']:.1f}** ({facts['share']:.0%})" for op, facts in ops.items()}
        columns[title] |= {peer: f"**{us:.1f}**" for peer, us in measured["peers"].get(workload, {}).items()}
    return {title: cells for title, cells in columns.items() if cells}


def bounds_table(report: dict[str, Any], workload: str) -> list[str]:
    """Lines of Markdown: microseconds that the traffic takes at each GPU's bandwidth, and those that were measured."""
    ops, columns = report["traffic"][workload], measured_columns(report, workload)
    others = dict.fromkeys(row for cells in columns.values() for row in cells if row not in ops)
    lines = ["| op | " + " | ".join([*BANDWIDTHS, *columns]) + " |", "|---|" + "---|" * len([*BANDWIDTHS, *columns])]
    for row in [*ops, *others]:
        size = ops[row]["sectors"] * SECTOR if row in ops else None
        bounds = ["" if size is None else f"{size / bandwidth / 1e3:.1f}" for bandwidth in BANDWIDTHS.values()]
        lines.append(f"| {row} | " + " | ".join([*bounds, *(cells.get(row, "") for cells in columns.values())]) + " |")
    if columns:
        lines += [
            "",
            "*Measured*: medians of runs in one graph; in brackets the share of the device's memory bandwidth that the "
            "ideal traffic takes in this time.",
        ]
    return lines


# --- Report ----------------------------------------------------------------------------------------------------------


INTRODUCTION = """\
The static analysis is the compiler's. The traffic was counted while the
kernels ran on the simulation in `tools/hostcuda`: the 32-byte sectors that warps request, without
caches.

## Traffic

*Ideal* counts each byte of an op's large inputs and outputs once (`tools/kernel_workloads.py` lists
them); for RoIAlign, each sector of features once per RoI that touches it. *Packed* is the number of
sectors that the bytes of each request would fill if they were contiguous; if *read* or *written* is
larger, the lanes of a warp access scattered addresses. The difference between packed and ideal
consists of intermediate results and of bytes that are requested more than once, which mostly hit
the L2 cache. *Apart* counts stores whose lanes write neither contiguous bytes nor whole sectors.
*Shared passes* are an upper bound for a GPU: the host compiler splits 16-byte loads, and their
parts conflict in the banks (`label_pixels`, where nvcc emits `LDS.128`).
"""


def write_document(report: dict[str, Any]) -> None:
    """Write docs/kernel_report.md from the figures."""
    is_measured = "Only what is called *measured* was measured on a GPU."
    what = is_measured if report.get("measured") else "Nothing here was measured on a GPU."
    lines = [
        "# Kernel report",
        "",
        "Written by `python -m benchmarks.kernel_report`; the figures are in `benchmarks/results/kernels.json`.",
        "",
        f"**{what}** {INTRODUCTION}",
    ]
    for workload in report["traffic"]:
        lines += _traffic_section(report, workload)
    lines += [*_occupancy_section(report), "", *_instructions_section(report)]
    DOCUMENT.write_text("\n\n".join(map(_wrapped, "\n".join(lines).split("\n\n"))) + "\n")


def _wrapped(paragraph: str) -> str:
    """Return a paragraph of prose wrapped at 100 columns; tables and titles are not changed."""
    return paragraph if paragraph.startswith(("|", "#")) else textwrap.fill(paragraph, 100, break_on_hyphens=False)


def _traffic_section(report: dict[str, Any], workload: str) -> list[str]:
    """The requests of each op and kernel on a workload, and a lower bound of their time."""
    ops, load = report["traffic"][workload], WORKLOADS[workload]
    lines = [
        f"### {workload}: {load.hw[0]} x {load.hw[1]}, {load.proposals} proposals, {load.detections} detections "
        f"({load.instances} painted), {load.channels} semantic channels",
        "",
        "| op | launches | sectors | ideal | ratio | MB per frame |",
        "|---|---|---|---|---|---|",
    ]
    for op, facts in ops.items():
        lines.append(
            f"| {op} | {facts['launches']} | {facts['sectors']} | {facts['ideal_sectors']} | "
            f"{facts['ratio']:.2f} | {facts['sectors'] * SECTOR / 1e6:.2f} |"
        )
    frame = [ops[op] for op in FRAME]
    launches = sum(facts["launches"] for facts in frame)
    megabytes = sum(facts["sectors"] for facts in frame) * SECTOR / 1e6
    lines += [
        "",
        f"A frame with float16 features: {launches} launches and {megabytes:.1f} MB for all four ops.",
        "",
        "| op | kernel | read | packed | written | packed | apart | shared passes | without conflicts |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for op, facts in ops.items():
        for kernel, counts in facts["kernels"].items():
            lines.append(f"| {op} | `{kernel}` | " + " | ".join(str(count) for count in counts.values()) + " |")
    return [
        *lines,
        "",
        "Time that the traffic takes at peak bandwidth, microseconds, *estimated from simulated traffic*: a lower "
        "bound without latency and arithmetic, which limit the small kernels.",
        "",
        *bounds_table(report, workload),
        "",
    ]


def _architectures(static: dict[str, Any]) -> list[str]:
    return [str(architecture) for architecture in ARCHITECTURES if str(architecture) in static]


def _occupancy_section(report: dict[str, Any]) -> list[str]:
    """Return the section on what each kernel takes of a multiprocessor, on every architecture."""
    static = report["static"]
    architectures = _architectures(static)
    lines = [
        "## Registers, shared memory, occupancy",
        "",
        "Registers, and in brackets the share of an SM's threads that can be resident. On no architecture does a "
        "kernel spill or use local memory."
        if not _spills(report)
        else "**These kernels spill:** " + ", ".join(_spills(report)),
        "",
        "| kernel | threads | shared bytes | " + " | ".join(f"sm_{a}" for a in architectures) + " |",
        "|---|---|---|" + "---|" * len(architectures),
    ]
    for kernel, facts in static[architectures[0]].items():
        each = (static[a][kernel] for a in architectures)
        lines.append(
            f"| `{kernel}` | {facts['threads']} | {facts['shared_bytes']} | "
            + " | ".join(f"{k['registers']} ({k['occupancy']:.0%})" for k in each)
            + " |"
        )
    return lines


def _instructions_section(report: dict[str, Any]) -> list[str]:
    """Return the section on the kernels' instructions of each kind, on the newest architecture."""
    static = report["static"]
    newest = _architectures(static)[-1]
    lines = [
        "## Instructions",
        "",
        f"For sm_{newest}, counted in the listing, however often they run; widths are bits per lane.",
        "",
        "| kernel | all | global loads | global stores | shared loads, stores | shuffles, votes | double | local |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kernel, facts in static[newest].items():
        mix = facts["instructions"]
        by_width = (
            ", ".join(f"{count} x {key.split('.')[1]}" for key, count in mix.items() if key.startswith(kind)) or "0"
            for kind in ("LDG", "STG")
        )
        lines.append(
            f"| `{kernel}` | {mix['all']} | {' | '.join(by_width)} | {mix.get('LDS', 0)}, {mix.get('STS', 0)} | "
            f"{mix.get('SHFL', 0)}, {mix.get('VOTE', 0)} | {mix.get('double', 0)} | "
            f"{mix.get('LDL', 0) + mix.get('STL', 0)} |"
        )
    return lines


def _spills(report: dict[str, Any]) -> list[str]:
    return [
        f"{kernel} on sm_{architecture}"
        for architecture, kernels in report["static"].items()
        for kernel, facts in kernels.items()
        if facts["spill_bytes"] or facts["stack_bytes"]
    ]


def main() -> None:
    """Measure what the arguments choose, keep the rest of the committed figures, and write both files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--static", action="store_true", help="only the static analysis")
    parser.add_argument("--architectures", nargs="*", type=int, default=ARCHITECTURES, help="only these, such as 87")
    parser.add_argument("--traffic", nargs="*", choices=list(WORKLOADS), help="only the traffic, of these workloads")
    parser.add_argument("--measured", type=Path, help="only add these times, measured.json of a run of tools/gpu")
    chosen = parser.parse_args()
    everything = not chosen.static and chosen.traffic is None and chosen.measured is None
    report: dict[str, Any] = json.loads(REPORT.read_text()) if REPORT.exists() else {"static": {}, "traffic": {}}
    if everything or chosen.static:
        sources = sorted(CUDA.glob("*.cu"))
        for architecture in chosen.architectures:
            compiled = [compile_static(source, architecture) for source in sources]
            report["static"][str(architecture)] = {k: v for kernels in compiled for k, v in sorted(kernels.items())}
    if everything or chosen.traffic is not None:
        gpu = traced_gpu()
        for name in chosen.traffic or WORKLOADS:
            report["traffic"][name] = {op: trace(op, WORKLOADS[name], gpu) for op in OPS}
        gpu.close()
    if chosen.measured is not None:
        try:
            measured = read_measured(chosen.measured)
        except (MeasuredError, OSError) as error:
            parser.error(str(error))
        report.setdefault("measured", {})[measured["device"]] = measured
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=1) + "\n")
    if report["static"]:
        write_document(report)
    print(f"wrote {REPORT.relative_to(ROOT)} and {DOCUMENT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
