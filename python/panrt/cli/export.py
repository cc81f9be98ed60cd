"""`panrt export`: export a network to one portable ONNX file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from panrt.cli.frames import network_frames
from panrt.cli.support import JsonOption, Report, megabytes, named_config, one_of, progress_bar
from panrt.formats.records import argument

if TYPE_CHECKING:
    from panrt.export.frames import Frame
    from panrt.export.onnx import Exported
    from panrt.formats.metadata import FileThresholds
    from panrt.model.panoptic_fpn import PanopticFPN


ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A .safetensors file, or a name of 'panrt models'; with --untrained a configuration."
    ),
]
OutputOption = Annotated[Path, typer.Option("--output", "-o", help="The .onnx file to write.")]
HeightOption = Annotated[
    int | None, typer.Option(help="Height of the input, a multiple of 32; default: the network's.")
]
WidthOption = Annotated[int | None, typer.Option(help="Width of the input, likewise.")]
CameraOption = Annotated[
    str | None,
    typer.Option(
        metavar="WxH", help="Instead of --width: the camera's size. The input gets its aspect ratio at --height."
    ),
]
DynamicOption = Annotated[
    bool,
    typer.Option(
        "--dynamic",
        help="Leave height and width open: one file for cameras of several aspect ratios. The size is chosen when the "
        "file is run or built, with --height and --width there, at no cost in speed. Not with int8.",
    ),
]
BatchOption = Annotated[int, typer.Option(help="Images per inference.")]
OutputSizeOption = Annotated[
    str | None, typer.Option(metavar="WxH", help="Size of the panoptic map; default: that of the valid input.")
]
MaxDetectionsOption = Annotated[int | None, typer.Option(help="Default, here and below: the network's.")]
DetectionScoreOption = Annotated[float | None, typer.Option(help="Detections below it are dropped before NMS.")]
DetectionNmsOption = Annotated[
    float | None, typer.Option(help="IoU with a better detection of its class above which a detection is dropped.")
]
InstanceScoreOption = Annotated[float | None, typer.Option(help="Detections below it are not in the map.")]
InstanceOverlapOption = Annotated[float | None, typer.Option(help="Share of a mask that may be hidden.")]
StuffAreaOption = Annotated[int | None, typer.Option(help="Smallest stuff region, in output pixels.")]
MaskThresholdOption = Annotated[
    float | None, typer.Option(help="Smallest mask probability of a pixel that belongs to an instance.")
]
TargetOption = Annotated[
    str, typer.Option(help="portable, or tensorrt-10.3 for JetPack 6: an older opset, and no ONNX functions.")
]
PrecisionOption = Annotated[str, typer.Option(help="fp32, fp16 or int8; boxes and scores are fp32 in every file.")]
SamplesOption = Annotated[
    Path | None,
    typer.Option(help="Images or a clip like the network's later input: int8 is calibrated, fp16 checked on them."),
]
MaxSamplesOption = Annotated[int, typer.Option(min=1, help="Number of frames taken from --samples, evenly.")]
Int8HeadsOption = Annotated[
    bool, typer.Option("--int8-heads", help="With int8, quantize the RPN, box and mask heads too; they lose more.")
]
UntrainedOption = Annotated[
    bool, typer.Option("--untrained", help="Random weights, to measure speed before a network is trained.")
]


def export(
    model: ModelArgument,
    output: OutputOption,
    height: HeightOption = None,
    width: WidthOption = None,
    camera: CameraOption = None,
    dynamic: DynamicOption = False,
    batch: BatchOption = 1,
    output_size: OutputSizeOption = None,
    max_detections: MaxDetectionsOption = None,
    detection_score: DetectionScoreOption = None,
    detection_nms: DetectionNmsOption = None,
    instance_score: InstanceScoreOption = None,
    instance_overlap: InstanceOverlapOption = None,
    stuff_area: StuffAreaOption = None,
    mask_threshold: MaskThresholdOption = None,
    target: TargetOption = "portable",
    precision: PrecisionOption = "fp32",
    samples: SamplesOption = None,
    max_samples: MaxSamplesOption = 64,
    int8_heads: Int8HeadsOption = False,
    untrained: UntrainedOption = False,
    as_json: JsonOption = False,
) -> None:
    """Export a network to one ONNX file: pixels in, panoptic ids out.

    The file runs in plain ONNX Runtime and in PanRT on a CPU, and TensorRT engines are built from it.
    """
    from panrt.export.onnx import to_onnx
    from panrt.formats.metadata import PRECISIONS, TARGETS

    chosen_target = one_of("--target", target, TARGETS)
    chosen_precision = one_of("--precision", precision, PRECISIONS)
    if dynamic:
        _check_dynamic(chosen_precision, height=height, width=width, camera=camera, output_size=output_size)
    if chosen_precision == "int8" and samples is None:
        raise ValueError("--precision int8 needs --samples, images or a clip to calibrate on.")
    network, provenance = _network(model, untrained=untrained)
    input_hw, valid_hw = _input_size(network, camera, height, width)
    frames: list[Frame] = []
    if samples is not None and chosen_precision != "fp32":
        free = network.config.pixel_mean
        frames = network_frames(samples, limit=max_samples, input_hw=input_hw, valid_hw=valid_hw, free=free)
    thresholds = _thresholds(
        network, max_detections=max_detections, detection_score=detection_score, detection_nms=detection_nms,
        instance_score=instance_score, instance_overlap=instance_overlap, stuff_area=stuff_area, mask=mask_threshold,
    )  # fmt: skip
    with progress_bar("calibrate" if chosen_precision == "int8" else "check") as show:
        exported = to_onnx(
            network, output, input_hw=None if dynamic else input_hw, batch=batch, valid_hw=valid_hw,
            output_hw=_size("--output-size", output_size) if output_size is not None else None,
            thresholds=thresholds, precision=chosen_precision, target=chosen_target, samples=frames,
            int8_heads=int8_heads, provenance=provenance, progress=show,
        )  # fmt: skip
    _report(exported, output, model=None if untrained else model, as_json=as_json)


def _input_size(
    network: PanopticFPN, camera: str | None, height: int | None, width: int | None
) -> tuple[tuple[int, int], tuple[int, int] | None]:
    """Return the size of the input, and the part of it that a camera's frame fills."""
    from panrt.export.onnx import fit_camera

    default = network.config.input_hw
    if camera is None:
        return (height or default[0], width or default[1]), None
    if width is not None:
        raise ValueError("give one of --camera and --width; the camera's aspect ratio decides the width.")
    return fit_camera(_size("--camera", camera), height=height or default[0])


def _network(model: str, *, untrained: bool) -> tuple[PanopticFPN, str]:
    """Return the network and the origin of its weights."""
    import torch

    from panrt.model.checkpoints import load, locate, read_header
    from panrt.model.panoptic_fpn import PanopticFPN

    if untrained:
        torch.manual_seed(0)
        return PanopticFPN(named_config(model)).eval(), "not trained, seed 0"
    path = locate(model)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; to export a configuration with random weights add --untrained.")
    return load(path), read_header(path).provenance


def _check_dynamic(precision: str, **sizes: object) -> None:
    """Reject options that contradict an open size: other sizes, and int8, which is calibrated at one."""
    for name, value in sizes.items():
        if value is not None:
            raise ValueError(
                f"--dynamic leaves the input size open, so --{name.replace('_', '-')} has no meaning; omit one of them."
            )
    if precision == "int8":
        raise ValueError(
            "--dynamic: int8 is calibrated at one input size; export a file for each size, with --height and --width "
            "or --camera, or take --precision fp16."
        )


def _size(option: str, text: str) -> tuple[int, int]:
    """Parse `1920x1080` to (1080, 1920)."""
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None:
        raise ValueError(f"{option}: got {text!r}, expected width x height, such as 1920x1080.")
    return int(match[2]), int(match[1])


def _thresholds(network: PanopticFPN, **chosen: float | None) -> FileThresholds:
    from panrt.export.onnx import default_thresholds

    given: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
    return default_thresholds(network)._replace(**given)


def _report(exported: Exported, output: Path, *, model: str | None, as_json: bool) -> None:
    from panrt.export.precision import LARGEST_HALF
    from panrt.formats import metadata

    file = exported.file
    report = Report(as_json=as_json)
    size, maps = "of dynamic height and width", "the input's size"
    if file.input_hw is not None:
        input_hw, valid_hw, output_hw = file.sizes
        padded = "" if valid_hw == input_hw else f", the frame in its upper left {_text(valid_hw)}"
        size, maps = f"{_text(input_hw)} (height x width){padded}", _text(output_hw)
    report.line("traced", f"{file.name} {size}, {exported.nodes} nodes")
    report.line("outputs", f"panoptic maps of {maps}, {len(file.things)} things, {len(file.stuff)} stuff")
    report.line("weights", file.provenance or "provenance not recorded")
    if exported.peak is not None:
        share = 100 * exported.peak.value / LARGEST_HALF
        report.line("checked", f"features reach {exported.peak.value:.3g}, {share:.2g} % of float16's range")
    elif file.precision == "fp16":
        report.line("checked", "the weights fit float16; give --samples to check the features too")
    report.line("wrote", f"{output}  {megabytes(exported.bytes)}  {file.precision}  opset {file.opset}  {file.target}")
    described = metadata.to_json(file)
    facts = {
        "output": str(output),
        "bytes": exported.bytes,
        "nodes": exported.nodes,
        "name": file.name,
        "batch": file.batch,
        "height": described["input_hw"][0],
        "width": described["input_hw"][1],
        "valid_hw": described["valid_hw"],
        "output_hw": described["output_hw"],
        "thresholds": file.thresholds._asdict(),
        "precision": file.precision,
        "largest_feature": exported.peak._asdict() if exported.peak is not None else None,
        "target": file.target,
        "opset": file.opset,
        "provenance": file.provenance,
    }
    chosen = " --height H --width W" if file.input_hw is None else ""
    written, plan = argument(output), argument(output.with_suffix(".plan"))
    verify = [f"panrt verify {argument(model)} {written} --frames DIR{chosen}"] if model is not None else []
    report.end(facts, next_commands=[*verify, f"panrt build {written} -o {plan}{chosen}"])


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
