"""Losses are smoothed without a bias towards the first."""

from __future__ import annotations

import pytest

from panrt.model.curves import SMOOTHING, smooth


def test_equal_values_stay_as_they_are() -> None:
    assert smooth([3.0] * 50) == pytest.approx([3.0] * 50)


def test_the_first_value_weighs_no_more_than_its_age_gives_it() -> None:
    found = smooth([1.0, 0.0, 0.0])
    weights = [1.0, SMOOTHING, SMOOTHING**2]
    assert found == pytest.approx([1.0, SMOOTHING / sum(weights[:2]), SMOOTHING**2 / sum(weights)])


def test_nothing_is_smoothed_to_nothing() -> None:
    assert smooth([]) == []
