"""Matching and sampling by hand-made overlaps; box deltas against the ops' decoding."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from panrt.model.matching import IGNORED, NEGATIVE, POSITIVE, box_iou, encode_boxes, match, sample
from panrt.plugins.box_reference import decode


def test_iou_by_hand() -> None:
    a = torch.tensor([[0.0, 0, 4, 4]])
    b = torch.tensor([[0.0, 0, 4, 4], [2, 0, 6, 4], [4, 4, 8, 8], [1, 1, 3, 3], [5, 5, 5, 5]])
    torch.testing.assert_close(box_iou(a, b), torch.tensor([[1, 8 / 24, 0, 0.25, 0]]))
    assert box_iou(b[4:], b[4:]).item() == 0


def test_labels_by_hand() -> None:
    iou = torch.tensor([[0.9, 0.5, 0.1, 0.2, 0.3], [0.0, 0.7, 0.1, 0.65, 0.0]])
    matches = match(iou, low=0.3, high=0.7, keep_best=False)
    assert matches.objects.tolist() == [0, 1, 0, 1, 0]
    assert matches.labels.tolist() == [POSITIVE, POSITIVE, NEGATIVE, IGNORED, IGNORED]


def test_the_best_of_an_object_is_kept_with_its_ties_and_its_own_object() -> None:
    iou = torch.tensor([[0.2, 0.2, 0.1], [0.6, 0.0, 0.5]])
    matches = match(iou, low=0.3, high=0.7, keep_best=True)
    assert matches.labels.tolist() == [POSITIVE, POSITIVE, IGNORED]
    assert matches.objects.tolist() == [1, 0, 1]


def test_an_object_that_nothing_overlaps_makes_nothing_positive() -> None:
    matches = match(torch.zeros(1, 3), low=0.3, high=0.7, keep_best=True)
    assert matches.labels.tolist() == [NEGATIVE] * 3


def test_without_objects_everything_is_negative() -> None:
    matches = match(torch.zeros(0, 3), low=0.3, high=0.7, keep_best=True)
    assert matches.labels.tolist() == [NEGATIVE] * 3
    assert matches.objects.tolist() == [0, 0, 0]


@given(
    positives=st.integers(0, 40),
    negatives=st.integers(0, 40),
    number=st.integers(1, 50),
    fraction=st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    seed=st.integers(0, 99),
)
def test_a_sample_is_as_large_as_allowed_and_reproducible(
    positives: int, negatives: int, number: int, fraction: float, seed: int
) -> None:
    labels = torch.tensor([POSITIVE] * positives + [NEGATIVE] * negatives + [IGNORED] * 5)
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]

    def draw() -> tuple[list[int], list[int]]:
        drawn = sample(labels, number=number, positive_fraction=fraction, generator=torch.Generator().manual_seed(seed))
        return drawn.positive.tolist(), drawn.negative.tolist()

    chosen = draw()
    assert chosen == draw()
    assert len(chosen[0]) == min(positives, int(number * fraction))
    assert len(chosen[1]) == min(negatives, number - len(chosen[0]))
    assert len({*chosen[0], *chosen[1]}) == len(chosen[0]) + len(chosen[1])
    assert all(labels[i] == POSITIVE for i in chosen[0])
    assert all(labels[i] == NEGATIVE for i in chosen[1])


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), weights=st.sampled_from([(1, 1, 1, 1), (10, 10, 5, 5)]))
def test_decoding_undoes_encoding(seed: int, weights: tuple[int, int, int, int]) -> None:
    random = torch.Generator().manual_seed(seed)
    corner = torch.rand(2, 20, 2, generator=random) * 100
    source, target = torch.cat([corner, corner + 1 + torch.rand(2, 20, 2, generator=random) * 50], dim=-1)
    decoded = decode(encode_boxes(source, target, weights).numpy(), source.numpy(), weights)
    np.testing.assert_allclose(decoded, target.numpy(), atol=1e-3)
