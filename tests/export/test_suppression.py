"""Suppression over all classes and limits of deltas are in the file: every backend gives what the network gives."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import panrt
from panrt.errors import ExportError
from panrt.export import to_onnx
from panrt.export.lint import lint
from panrt.formats.metadata import FileThresholds
from panrt.model import PanopticFPN
from panrt.model.config import panoptic_fpn_lite
from support import networks


@pytest.fixture(scope="module")
def network() -> PanopticFPN:
    """The lively network's weights, with mmdetection's rules."""
    lively = networks.lively()
    config = panoptic_fpn_lite()
    assert config.instance is not None
    box = dataclasses.replace(config.instance.box, suppression="all_classes", score_threshold=0.5, min_scale=0.016)
    rpn = dataclasses.replace(config.instance.rpn, min_scale=0.016)
    instance = dataclasses.replace(config.instance, box=box, rpn=rpn)
    network = PanopticFPN(dataclasses.replace(config, instance=instance)).eval()
    network.load_state_dict(lively.state_dict())
    return network


@pytest.fixture(scope="module")
def path(network: PanopticFPN, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("suppression") / "all_classes.onnx"
    to_onnx(network, path, input_hw=(networks.HEIGHT, networks.WIDTH))
    return path


@pytest.mark.slow
def test_every_cpu_backend_gives_the_networks_map(network: PanopticFPN, path: Path) -> None:
    plain = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    categories = set()
    with panrt.load(path, backend="cpu") as session:
        for frame in networks.frames(3):
            expected = network(torch.from_numpy(frame)[None])
            count = int(expected.segment_count[0])
            rows = expected.segments[0, :count].numpy()
            categories |= set(rows[rows[:, 2] == 1, 1].tolist())
            panoptic, segments, _, found = plain.run(None, {"image": frame[None]})
            assert found.tolist() == [count]
            assert (segments[0, :count, 1:3] == rows[:, 1:3]).all()
            # rounding of the convolutions decides a few pixels
            for found_map in (panoptic[0], session(frame).panoptic):
                assert (found_map == expected.panoptic[0].numpy()).mean() >= 0.999
    assert len(categories) > 1  # so that a class that is lost would be seen


@pytest.mark.slow
def test_the_file_builds_for_tensorrt(path: Path) -> None:
    assert lint(path, flavour="rtx", release=(1, 7)).warnings == ()
    assert lint(path, flavour="tensorrt", release=(10, 13, 0)).warnings == ()


def test_what_the_file_cannot_hold_is_an_error(network: PanopticFPN, tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match="boxes suppress those of all classes, for which the input size must be known"
    ):
        to_onnx(network, tmp_path / "open.onnx", input_hw=None)
    thresholds = FileThresholds(
        detection_score=0.3, detection_nms=0.5, max_detections=32, instance_score=0.5, instance_overlap=0.5,
        stuff_area=200, mask=0.5,
    )  # fmt: skip
    with pytest.raises(ExportError, match=r"detection_score: got 0\.3, expected at least 0\.5"):
        to_onnx(network, tmp_path / "low.onnx", input_hw=(256, 320), thresholds=thresholds)
    assert list(tmp_path.iterdir()) == []


def test_limits_of_deltas_change_nothing_above_them(network: PanopticFPN) -> None:
    frame = torch.from_numpy(networks.frames(1))
    config = network.config
    assert config.instance is not None
    unlimited = dataclasses.replace(
        config.instance,
        rpn=dataclasses.replace(config.instance.rpn, min_scale=1e-6),
        box=dataclasses.replace(config.instance.box, min_scale=0.0),
    )
    other = PanopticFPN(dataclasses.replace(config, instance=unlimited)).eval()
    other.load_state_dict(network.state_dict())
    assert np.array_equal(other(frame).panoptic.numpy(), network(frame).panoptic.numpy())


def test_a_session_cannot_be_set_to_what_the_file_cannot_do(path: Path) -> None:
    with panrt.load(path, threads=1) as session:
        with pytest.raises(panrt.ThresholdsFixedError, match=r"detection_score: got 0\.3, expected at least 0\.5"):
            session.thresholds = panrt.Thresholds(detection_score=0.3)
        with pytest.raises(panrt.ThresholdsFixedError, match="suppresses detections over all classes together"):
            session.classes = [session.model.things[0].name]
        session.thresholds = panrt.Thresholds(detection_score=0.7)
        session.classes = [category.name for category in session.model.things]
