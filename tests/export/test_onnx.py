"""One ONNX file that says what it is, is static, and gives in plain ONNX Runtime what the network gives in PyTorch."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from panrt.errors import ExportError
from panrt.export import to_onnx
from panrt.export.folding import fold_batch_norms
from panrt.export.onnx import default_thresholds, describe
from panrt.formats import metadata
from panrt.formats.input_size import specialise
from panrt.formats.metadata import ModelFile, sized
from panrt.formats.thresholds import DETECTION, INSTANCE, NAMES, STUFF, Thresholds
from panrt.model import PanopticFPN, build
from panrt.model.config import make_config
from panrt.model.custom_ops import PanopticSegments
from panrt.plugins.nodes import op_of, versions
from panrt.plugins.onnx_functions import ATTRIBUTES, OUTPUTS
from support.networks import frames, lively

OPEN = {"input_hw": None}
SAMPLES = [np.zeros((*size, 3), np.uint8) for size in ((64, 64), (64, 96), (64, 50))]
OPS = ["RpnProposals", "PyramidRoiAlign", "BoxDetections", "PyramidRoiAlign", "PanopticMerge"]


def run(path: Path, image: NDArray[np.uint8]) -> PanopticSegments:
    """By ONNX Runtime as it comes, which knows nothing of PanRT."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return PanopticSegments(*map(torch.from_numpy, session.run(None, {"image": image})))


class Export(NamedTuple):
    network: PanopticFPN
    path: Path
    file: ModelFile


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Export:
    network, path = lively(), tmp_path_factory.mktemp("lite") / "lite.onnx"
    return Export(network, path, to_onnx(network, path, input_hw=(256, 320), provenance="seed 0").file)


def equal_share(found: PanopticSegments, expected: PanopticSegments) -> float:
    return float((found.panoptic == expected.panoptic).float().mean())


def test_plain_onnxruntime_gives_what_pytorch_gives(lite: Export) -> None:
    for image in frames(3):
        found, expected = run(lite.path, image[None]), lite.network(torch.from_numpy(image[None]))
        count = int(expected.segment_count[0])
        assert expected.segments[0, :count, 2].sum() >= 2, "the network finds no things, so this shows little"
        assert int(found.segment_count[0]) == count
        assert torch.equal(found.segments[0, :, :3], expected.segments[0, :, :3])
        torch.testing.assert_close(found.segment_scores, expected.segment_scores, atol=1e-4, rtol=0)
        assert equal_share(found, expected) >= 0.999


def test_the_graph_is_the_network_and_nothing_else(lite: Export) -> None:
    graph = onnx.load(lite.path).graph
    assert [node.op_type for node in graph.node if node.domain == "panrt"] == OPS
    assert [node.name for node in graph.input] == ["image", *NAMES]
    assert [node.name for node in graph.output] == list(OUTPUTS["PanopticMerge"])
    kinds = {node.op_type for node in graph.node}
    assert kinds.isdisjoint({"Shape", "If", "Loop", "NonZero", "NonMaxSuppression", "BatchNormalization", "Identity"})
    assert len(graph.node) <= 220


def test_every_node_of_ours_has_all_its_attributes_and_names_the_plugin(lite: Export) -> None:
    for node in onnx.load(lite.path).graph.node:
        if node.domain == "panrt":
            found = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            op = op_of(node.op_type, node.input)
            assert op == versions(op.name)[-1], "the newest"
            assert list(found) == [*ATTRIBUTES[op.key], "plugin_namespace", "plugin_version"]
            assert (found["plugin_namespace"], found["plugin_version"]) == (b"panrt", b"%d" % op.version)
            types = {a.name: a.type for a in node.attribute}
            assert {name: types[name] for name in ATTRIBUTES[op.key]} == ATTRIBUTES[op.key]


def test_edges_are_named_after_what_they_carry(lite: Export) -> None:
    graph = onnx.load(lite.path).graph
    made = {name: node.name for node in graph.node for name in node.output}
    assert made["p2"] == "backbone.fpn.output.0.pointwise/Conv"
    assert made["p5"] == "backbone.fpn.output.3.pointwise/Conv"
    assert made["rpn_logits_p6"].startswith("instance.rpn_head.objectness_logits/Conv")
    assert made["box_pooled"] == "instance/BoxRoiAlign"
    assert made["mask_pooled"] == "instance/MaskRoiAlign"
    assert made["semantic_logits"] == "semantic.predictor/Conv"
    assert {"rois", "class_logits", "box_deltas", "boxes", "scores", "classes", "mask_probs"} <= made.keys()
    assert len({node.name for node in graph.node}) == len(graph.node)


def test_the_file_says_what_it_is(lite: Export) -> None:
    props = {entry.key: entry.value for entry in onnx.load(lite.path).metadata_props}
    file = metadata.loads(props["panrt"], source="lite.onnx")
    assert file == lite.file
    assert file.input_hw == file.valid_hw == file.output_hw == (256, 320)
    assert (file.precision, file.opset, file.batch, file.provenance) == ("fp32", 21, 1, "seed 0")
    assert file.category(0, is_thing=True).name == lite.network.config.classes.things[0].name
    assert file.thresholds == default_thresholds(lite.network)


def test_the_same_network_gives_the_same_bytes_that_name_no_path(lite: Export, tmp_path: Path) -> None:
    again = tmp_path / "again.onnx"
    to_onnx(lite.network, again, input_hw=(256, 320), provenance="seed 0")
    content = again.read_bytes()
    assert content == lite.path.read_bytes()
    assert str(Path.cwd()).encode() not in content


def test_the_network_that_was_exported_is_as_it_was(tmp_path: Path) -> None:
    network = lively().train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    to_onnx(network, tmp_path / "lite.onnx", input_hw=(64, 64))
    assert network.training
    assert before.keys() == network.state_dict().keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_folding_batch_norms_changes_nothing_but_rounding() -> None:
    network = lively().double()
    generator = torch.Generator().manual_seed(1)
    for name, value in network.state_dict().items():
        if "norm." in name and value.is_floating_point():
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
    image = torch.from_numpy(frames(1))
    with torch.inference_mode():
        before = network.backbone(network.prepare(image))
        fold_batch_norms(network)
        after = network.backbone(network.prepare(image))
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12 * float(a.abs().max()))


def test_padding_is_never_looked_at(tmp_path: Path) -> None:
    network, path = lively(), tmp_path / "padded.onnx"
    file = to_onnx(network, path, input_hw=(192, 256), valid_hw=(180, 250), output_hw=(90, 125)).file
    assert (file.input_hw, file.valid_hw, file.output_hw) == ((192, 256), (180, 250), (90, 125))
    image = np.full((1, 192, 256, 3), 255, np.uint8)
    image[:, :180, :250] = frames(1)[:, :180, :250]
    expected = network(torch.from_numpy(image[:, :180, :250].copy()), output_hw=(90, 125))
    assert equal_share(run(path, image), expected) >= 0.999


def test_thresholds_reach_the_ops(tmp_path: Path) -> None:
    network, path = lively(), tmp_path / "strict.onnx"
    thresholds = default_thresholds(network)._replace(max_detections=5, instance_score=0.25, stuff_area=7, mask=0.4)
    file = to_onnx(network, path, input_hw=(64, 96), thresholds=thresholds).file
    assert file.thresholds == thresholds
    graph = onnx.load(path).graph
    (detections,) = (node for node in graph.node if node.op_type == "BoxDetections")
    assert next(a.i for a in detections.attribute if a.name == "max_detections") == 5
    defaults = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer if tensor.name in NAMES}
    things, stuff = len(file.things), len(file.stuff)
    by_class = [thresholds.detection_score] * things
    np.testing.assert_array_equal(defaults[DETECTION], np.array([*by_class, thresholds.detection_nms], np.float32))
    np.testing.assert_array_equal(defaults[INSTANCE], np.array([0.25, thresholds.instance_overlap, 0.4], np.float32))
    np.testing.assert_array_equal(defaults[STUFF], [7] * (stuff + 1))


def test_thresholds_may_be_some_that_replace_the_networks(tmp_path: Path) -> None:
    network, path = lively(), tmp_path / "strict.onnx"
    file = to_onnx(network, path, input_hw=(64, 64), thresholds=Thresholds(instance_score=0.25)).file
    assert file.thresholds == default_thresholds(network)._replace(instance_score=0.25)


def test_a_batch_is_its_images(tmp_path: Path) -> None:
    network, path = lively(), tmp_path / "two.onnx"
    to_onnx(network, path, input_hw=(256, 320), batch=2)
    images = frames(2)
    found, expected = run(path, images), network(torch.from_numpy(images))
    assert equal_share(found, expected) >= 0.999


def test_old_tensorrt_gets_an_older_opset_and_no_functions(tmp_path: Path) -> None:
    path = tmp_path / "jetpack.onnx"
    file = to_onnx(lively(), path, input_hw=(64, 64), target="tensorrt-10.3").file
    proto = onnx.load(path)
    assert {entry.domain: entry.version for entry in proto.opset_import} == {"": 20, "panrt": 2}
    assert not proto.functions
    assert (file.target, file.opset) == ("tensorrt-10.3", 20)
    assert [node.op_type for node in proto.graph.node if node.domain == "panrt"] == OPS


def test_shapes_that_old_opsets_have_as_constants_are_opened_too(tmp_path: Path) -> None:
    """Group norms of opset 20 flatten the map and bring it back to its shape."""
    torch.manual_seed(0)
    network, size = build("semantic_fpn_r50").eval(), (96, 160)
    paths = tmp_path / "open.onnx", tmp_path / "static.onnx"
    exported = [
        to_onnx(network, path, input_hw=input_hw, target="tensorrt-10.3")
        for path, input_hw in zip(paths, (None, size), strict=True)
    ]
    assert exported[0].file.input_hw is exported[0].file.valid_hw is exported[0].file.output_hw is None
    proto = onnx.load(paths[0])
    assert sum(node.op_type == "Concat" for node in proto.graph.node) == 4  # a shape for each level's group norms
    specialise(proto, sized(exported[0].file, size, source="open.onnx"), source="open.onnx")
    assert proto.SerializeToString(deterministic=True) == paths[1].read_bytes()


@pytest.mark.parametrize("name", ["instance_fpn_r50", "semantic_fpn_r50"])
def test_half_a_network_is_exported_too(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, path = build(name).eval(), tmp_path / "half.onnx"
    to_onnx(network, path, input_hw=(64, 96))
    image = frames(1)[:, :64, :96].copy()
    assert equal_share(run(path, image), network(torch.from_numpy(image))) >= 0.98


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"input_hw": (500, 320)},
            "height: got 500, expected a multiple of 32 from 32 to 32768; near it are 480 and 512.",
        ),
        ({"input_hw": (256, 0)}, "width: got 0, expected a multiple of 32"),
        ({"batch": 0}, "batch: got 0, expected at least 1."),
        ({"valid_hw": (257, 320)}, "valid_hw: got (257, 320)"),
        ({"output_hw": (0, 4)}, "output_hw: got (0, 4)"),
        ({"input_hw": (0, 320)}, "height: got 0, expected a multiple of 32"),
        ({**OPEN, "valid_hw": (90, 120)}, "valid_hw: got (90, 120) for an input whose size is open; give input_hw"),
        ({**OPEN, "output_hw": (90, 120)}, "output_hw: got (90, 120) for an input whose size is open"),
        ({**OPEN, "precision": "int8", "samples": SAMPLES}, "int8 is calibrated at one input size"),
        ({**OPEN, "precision": "fp16", "samples": SAMPLES}, "samples[1]: got (64, 96, 3) uint8, expected (64, 64, 3)"),
        ({**OPEN, "precision": "fp16", "samples": SAMPLES[2:]}, "width: got 50, expected a multiple of 32"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_written(
    options: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ExportError) as caught:
        to_onnx(lively(), tmp_path / "no.onnx", **{"input_hw": (256, 320), **options})  # type: ignore[arg-type]
    assert message in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_destination_that_cannot_be_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"suffix '\.pt', expected '\.onnx'"):
        to_onnx(lively(), tmp_path / "model.pt", input_hw=(64, 64))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        to_onnx(lively(), tmp_path / "nowhere" / "model.onnx", input_hw=(64, 64))


def test_a_share_beyond_one_is_refused(tmp_path: Path) -> None:
    network = lively()
    thresholds = default_thresholds(network)._replace(instance_overlap=1.5)
    with pytest.raises(ExportError, match=r"instance_overlap: got 1\.5, expected a share from 0 to 1\."):
        to_onnx(network, tmp_path / "no.onnx", input_hw=(64, 64), thresholds=thresholds)


@pytest.mark.parametrize("name", ["mug", ""])  # a configuration has no names that cannot be printed
def test_classes_that_no_reader_would_take_are_rejected_before_the_network_is_traced(name: str) -> None:
    config = make_config("panoptic_fpn_lite")
    first, second, *others = config.classes.things
    things = (first._replace(name="mug"), second._replace(name=name), *others)
    network: Any = SimpleNamespace(config=dataclasses.replace(config, classes=config.classes._replace(things=things)))
    with pytest.raises(ExportError, match=r"the file would not be readable: panoptic_fpn_lite: .*things\[1\]"):
        describe(network, input_hw=(64, 96))


def test_the_sizes_are_accepted_under_their_former_names(tmp_path: Path) -> None:
    network = lively()
    to_onnx(network, tmp_path / "new.onnx", input_hw=(64, 96), output_hw=(32, 48))
    former: Any = {"height": 64, "width": 96, "output_size": (32, 48)}
    with pytest.warns(DeprecationWarning, match=r"height, output_size, width is deprecated; use input_hw=\(height"):
        to_onnx(network, tmp_path / "old.onnx", **former)
    assert (tmp_path / "new.onnx").read_bytes() == (tmp_path / "old.onnx").read_bytes()
