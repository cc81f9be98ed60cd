"""The CPU's passes run in one order, can be switched off by name, and say when they do not apply."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import panrt
from panrt.engine.backends.cpu import passes
from panrt.engine.backends.cpu.partition import partition
from panrt.engine.backends.cpu.passes import PASSES, VARIABLE, switched_off
from panrt.engine.backends.cpu.steps import Convolution, Op, Subgraph
from panrt.engine.bundled import MODELS
from panrt.errors import BackendError
from support.networks import frames

NAMES = [each.name for each in PASSES]
MODEL = MODELS["tabletop"]


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], NDArray[np.int32]]:
    """The map of the bundled model with a value of PANRT_CPU_PASSES."""

    def run(value: str) -> NDArray[np.int32]:
        monkeypatch.setenv(VARIABLE, value)
        with panrt.load(MODEL, backend="cpu", threads=1) as session:
            return session(frames(1)[0]).panoptic

    return run


def test_each_pass_is_a_module_of_its_name() -> None:
    folder = Path(passes.__file__).parent
    assert {path.stem for path in folder.glob("*.py")} == {*NAMES, "__init__", "graph_index"}


@pytest.mark.parametrize("name", [*NAMES, "all"])
def test_the_map_does_not_depend_on_a_pass(without: Callable[[str], NDArray[np.int32]], name: str) -> None:
    assert np.mean(without(f"-{name}") == without("")) > 0.99  # sums in another order decide a few near-ties


def test_a_pass_that_is_off_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "-winograd, -look_up_table,-free_rows,")
    plan = partition(MODEL)
    assert plan.table is None
    assert not plan.free_rows
    assert not any(isinstance(step, Convolution) for step in plan.steps)
    assert any(isinstance(step, Op) and step.nhwc for step in plan.steps)
    monkeypatch.setenv(VARIABLE, "-all")
    assert not any(isinstance(step, Op) and step.nhwc for step in partition(MODEL).steps)
    assert all(isinstance(step, Op | Subgraph) for step in partition(MODEL).steps)


def test_what_is_off_and_what_does_not_apply_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(VARIABLE, "-float32")
    with caplog.at_level(logging.DEBUG, logger="panrt"):
        partition(MODEL)
    assert f"{VARIABLE} switches off the passes float32" in caplog.text
    assert "the pass winograd does not apply: no 3 x 3 convolution in float32 of 1000 cells" in caplog.text
    assert "nhwc_pooling" not in caplog.text


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("-winogradd", "PANRT_CPU_PASSES: 'winogradd' is not a pass; did you mean winograd?"),
        ("-", "PANRT_CPU_PASSES: '' is not a pass; "),
        ("winograd", "PANRT_CPU_PASSES: got 'winograd', expected -NAME for each pass to switch off: -float32"),
    ],
)
def test_an_unknown_name_is_an_error(monkeypatch: pytest.MonkeyPatch, value: str, message: str) -> None:
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(BackendError) as caught:
        panrt.load(MODEL, backend="cpu")
    assert str(caught.value).startswith(message)


def test_nothing_is_off_by_default() -> None:
    assert switched_off("") == frozenset()
    assert switched_off("-all") == frozenset(NAMES)
