"""The assembled network: what it accepts, what its variants mean, and that it can be taken apart for export."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from panrt.model import PanopticFPN, build
from panrt.model.backbones.efficientnet_lite import SameConv2d
from panrt.model.backbones.resnet import ResNet
from panrt.model.config import MergeConfig, ResNetConfig, SemanticConfig
from panrt.model.custom_ops import KERNELS, CustomOps
from panrt.model.panoptic_fpn import SeparateNetworks
from panrt.plugins.schema import Op

EVERYTHING = MergeConfig(score_threshold=0.0, stuff_area_limit=1)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def network(**overrides: Any) -> PanopticFPN:
    """A lite network that finds something: all thresholds are open."""
    torch.manual_seed(0)
    return build("panoptic_fpn_lite", **({"merge": EVERYTHING} | overrides)).eval()


def frames(number: int, height: int = 70, width: int = 90) -> Tensor:
    random = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (number, height, width, 3), dtype=torch.uint8, generator=random)


@pytest.fixture(scope="module")
def lite() -> PanopticFPN:
    return network()


def test_a_batch_gives_what_its_images_give_alone(lite: PanopticFPN) -> None:
    images = frames(2)
    both = lite(images)
    assert both.panoptic.shape == (2, 70, 90)
    assert both.panoptic.dtype == torch.int32
    K = lite.config.instance.box.max_detections  # type: ignore[union-attr]
    assert both.segments.shape == (2, K + lite.config.classes.semantic_channels, 8)
    assert (both.segment_count > 0).all()
    for n in range(2):
        alone = lite(images[n : n + 1])
        agreement = (alone.panoptic[0] == both.panoptic[n]).float().mean()
        assert agreement > 0.99  # batching may round a logit the other way


def test_areas_in_the_table_are_those_of_the_map(lite: PanopticFPN) -> None:
    found = lite(frames(1))
    count = int(found.segment_count[0])
    for identity, _, _, area, x0, y0, x1, y1 in found.segments[0, :count].tolist():
        mask = found.panoptic[0] == identity
        assert int(mask.sum()) == area
        assert int(mask[y0:y1, x0:x1].sum()) == area


def test_the_map_has_the_size_that_is_asked_for(lite: PanopticFPN) -> None:
    assert lite(frames(1), output_hw=(35, 45)).panoptic.shape == (1, 35, 45)


@pytest.mark.parametrize(
    "image", [torch.zeros(1, 3, 64, 64, dtype=torch.uint8), torch.zeros(1, 64, 64, 3), torch.zeros(64, 64, 3)]
)
def test_anything_but_a_batch_of_frames_is_refused(lite: PanopticFPN, image: Tensor) -> None:
    with pytest.raises(ValueError, match=r"image: got .* expected \(N, H, W, 3\) torch\.uint8 in BGR order"):
        lite(image)


def test_normalisation_comes_before_padding(lite: PanopticFPN) -> None:
    prepared = lite.prepare(torch.zeros(1, 33, 40, 3, dtype=torch.uint8))
    assert prepared.shape == (1, 3, 64, 64)
    assert (prepared[:, :, :33, :40] == -127 / 128).all()
    assert (prepared[:, :, 33:] == 0).all()
    assert (prepared[:, :, :, 40:] == 0).all()


def test_a_network_of_one_branch_finds_things_or_stuff_alone() -> None:
    stuff = network(instance=None)(frames(1))
    things = network(semantic=None)(frames(1))
    for found, is_thing in ((stuff, 0), (things, 1)):
        count = int(found.segment_count[0])
        assert count > 0
        assert found.segments[0, :count, 2].eq(is_thing).all()


def test_separate_networks_find_both() -> None:
    both = SeparateNetworks(network(semantic=None), network(instance=None)).eval()(frames(1))
    kinds = both.segments[0, : int(both.segment_count[0]), 2].tolist()
    assert set(kinds) == {0, 1}
    with pytest.raises(ValueError, match="the first needs an instance branch"):
        SeparateNetworks(network(instance=None), network(semantic=None))


@pytest.mark.parametrize("semantic", [SemanticConfig(width=64), SemanticConfig(width=256, aggregation="concat")])
def test_the_papers_semantic_branches_give_logits_at_a_quarter(semantic: SemanticConfig) -> None:
    logits = network(semantic=semantic, instance=None).branches(frames(1)).semantic_logits
    assert logits is not None
    assert logits.shape == (1, 5, 24, 24)


@pytest.mark.parametrize("stride", [8, 16])
def test_the_dilated_baseline_gives_logits_at_a_quarter(stride: Literal[8, 16]) -> None:
    model = build("semantic_dilated_r50", trunk=ResNetConfig(output_stride=stride)).eval()
    with torch.no_grad():
        (c5,), logits, instances = model.branches(frames(1, 64, 96))
    assert c5.shape == (1, 2048, 64 // stride, 96 // stride)
    assert logits is not None
    assert logits.shape == (1, 54, 16, 24)
    assert instances is None


@torch.no_grad()
def test_dilation_computes_the_strided_trunk_densely() -> None:
    strided, dilated = ResNet(ResNetConfig()), ResNet(ResNetConfig(output_stride=8))
    dilated.load_state_dict(strided.state_dict())
    image = torch.randn(1, 3, 64, 96)
    expected, found = strided(image)[3], dilated(image)[3]
    torch.testing.assert_close(found[:, :, ::4, ::4], expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2), (1, 1)])
def test_constant_padding_is_tensorflows_same_for_even_sizes(kernel: int, stride: int) -> None:
    convolution = SameConv2d(2, 4, kernel, stride=stride)
    image = torch.randn(1, 2, 32, 64)
    pads = []
    for size in (64, 32):
        missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads += [missing // 2, missing - missing // 2]
    padded = nn.functional.pad(image, pads)
    expected = nn.functional.conv2d(padded, convolution.weight, stride=stride)
    torch.testing.assert_close(convolution(image), expected)


class Recorded(CustomOps):
    """The CPU ops, noting who was called."""

    def __init__(self) -> None:
        super().__init__()
        self.called: list[str] = []

    def run(self, op: Op, inputs: Any, attributes: Any) -> Any:
        self.called.append(op.function)
        return KERNELS.run(op, inputs, attributes)


@torch.no_grad()
def test_the_network_calls_each_custom_op_in_order(lite: PanopticFPN) -> None:
    ops = Recorded()
    found = lite.infer(frames(1), ops=ops)
    assert ops.called == [
        "rpn_proposals",
        "pyramid_roi_align",
        "box_detections",
        "pyramid_roi_align",
        "panoptic_merge",
    ]
    assert torch.equal(found.panoptic, lite(frames(1)).panoptic)


@pytest.mark.parametrize(
    "part", ["backbone", "instance.rpn_head", "instance.box_head", "instance.mask_head", "semantic"]
)
def test_every_dense_part_is_traced_whole(lite: PanopticFPN, part: str) -> None:
    pyramid = tuple(torch.randn(1, 80, 64 // 2**i, 64 // 2**i) for i in range(5))
    inputs: dict[str, tuple[Any, ...]] = {
        "backbone": (torch.randn(1, 3, 64, 64),),
        "instance.rpn_head": (pyramid,),
        "instance.box_head": (torch.randn(4, 80, 7, 7),),
        "instance.mask_head": (torch.randn(4, 80, 14, 14), torch.tensor([0, 3, 7, 1])),
        "semantic": (pyramid[:4],),
    }
    module = lite.get_submodule(part)
    with torch.no_grad():
        traced = torch.export.export(module, inputs[part]).module()
        expected, found = module(*inputs[part]), traced(*inputs[part])
    torch.testing.assert_close(found, expected)
