"""Samples: mirrored, resized and batched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from panrt.model import build
from panrt.model.data.classes import COCO, TABLETOP
from panrt.model.data.coco_panoptic import read_coco_panoptic
from panrt.model.training_data import CocoPanopticSamples, Steps, TrainingSample, collate, flip, resize
from toy_rectangles import Rectangles, tight_boxes


def small_sample() -> TrainingSample:
    """One object of 3 x 2 pixels on a 6 x 8 image."""
    mask = np.zeros((1, 6, 8), np.bool_)
    mask[0, 1:3, 4:7] = True
    semantic = np.full((6, 8), 255, np.uint8)
    semantic[:, :3], semantic[mask[0]] = 40, 0
    image = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    return TrainingSample(image, np.array([[4, 1, 7, 3]], np.float32), np.array([0]), mask, semantic)


def test_mirroring_moves_boxes_with_masks_and_twice_is_nothing() -> None:
    sample = small_sample()
    mirrored = flip(sample)
    assert mirrored.boxes.tolist() == tight_boxes(mirrored.masks).tolist() == [[1, 1, 4, 3]]
    for before, after in zip(sample, flip(mirrored), strict=True):
        assert np.array_equal(np.asarray(before), np.asarray(after))


def test_resizing_moves_boxes_with_masks() -> None:
    sample = resize(Rectangles(1)[0], short_side=128, max_side=1333)
    assert sample.image_bgr.shape == (128, 128, 3)
    assert sample.boxes.tolist() == tight_boxes(sample.masks).tolist()
    assert sample.semantic.shape == (128, 128)


def test_the_longer_side_has_a_limit_and_vanished_objects_go() -> None:
    sample = small_sample()
    small = resize(sample, short_side=600, max_side=4)
    assert small.image_bgr.shape == (3, 4, 3)
    one_pixel = np.zeros((1, 6, 8), np.bool_)
    one_pixel[0, 0, 0] = True
    both = sample._replace(
        masks=np.concatenate([one_pixel, sample.masks]),
        boxes=np.concatenate([np.array([[0, 0, 1, 1]], np.float32), sample.boxes]),
        classes=np.array([5, 0]),
    )
    assert resize(both, short_side=3, max_side=99).classes.tolist() == [0]


def test_every_epoch_sees_every_sample_once() -> None:
    steps = Steps(Rectangles(6), steps=4, batch_size=3, seed=1, mirror=False, short_sides=(), max_side=99)
    epochs = [[index for step in (steps[a], steps[b]) for index, _ in step.keys] for a, b in ((0, 1), (2, 3))]
    assert [sorted(epoch) for epoch in epochs] == [list(range(6))] * 2
    assert epochs[0] != epochs[1]


def test_a_step_is_a_function_of_seed_and_number() -> None:
    def make(seed: int) -> Steps:
        return Steps(Rectangles(9), steps=9, batch_size=4, seed=seed, mirror=True, short_sides=(64, 96), max_side=99)

    first, again, other = make(0), make(0), make(1)
    assert first[7].keys == again[7].keys
    assert all(
        np.array_equal(a.image_bgr, b.image_bgr) for a, b in zip(first[7].samples, again[7].samples, strict=True)
    )
    assert [first[i].keys for i in range(9)] != [other[i].keys for i in range(9)]
    mirrored = [mirror for i in range(9) for _, mirror in first[i].keys]
    assert 5 < sum(mirrored) < 31


def test_a_batch_is_normalised_then_padded_with_zeros_and_ignored_labels() -> None:
    model = build("panoptic_fpn_lite")
    small, large = Rectangles(1)[0], resize(Rectangles(1)[0], short_side=80, max_side=99)
    images, targets = collate([small, large], model, torch.device("cpu"))
    assert images.shape == (2, 3, 96, 96)
    assert (images[0, :, 64:] == 0).all()
    assert (images[0, :, :, 64:] == 0).all()
    expected = (torch.from_numpy(small.image_bgr).permute(2, 0, 1).float() - 127) / 128
    torch.testing.assert_close(images[0, :, :64, :64], expected)
    assert [target.size for target in targets] == [(64, 64), (80, 80)]
    assert (targets[0].semantic[64:] == 255).all()
    assert (targets[1].semantic[:80, :80] != 255).all()


def test_a_data_set_gives_samples_and_must_have_the_networks_classes() -> None:
    folder = Path(__file__).parents[1] / "data" / "tabletop" / "eval"
    dataset = read_coco_panoptic(folder / "panoptic.json", images=folder / "images")
    samples = CocoPanopticSamples(dataset, TABLETOP)
    assert len(samples) == len(dataset.records) == 64
    sample = samples[0]
    assert sample.image_bgr.shape == (*sample.semantic.shape, 3)
    assert sample.boxes.tolist() == tight_boxes(sample.masks).tolist()
    assert (sample.semantic[sample.masks.any(axis=0)] == 0).all()
    differs = r"has 8 things, .* built for 80; .* number 0, is \(1, 'mug'\) .* \(1, 'person'\) in the network"
    with pytest.raises(ValueError, match=differs):
        CocoPanopticSamples(dataset, COCO)
