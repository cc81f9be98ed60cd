"""Thresholds of a GPU session change between frames: uploaded once, in order, with the same graphs."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import panrt
from panrt import PanopticResult, Thresholds
from panrt.engine import bundled
from panrt.engine.frame import Frame
from panrt.formats.thresholds import DETECTION, INSTANCE, NAMES, STUFF
from panrt.plugins.schema import OPS
from tools.random_thresholds import random_classes, random_thresholds
from tools.simcuda.sessions import MODEL, check, open_session, picture, tensors

FULL = os.environ.get("PANRT_TEST_PROFILE") == "full"
STRICT = Thresholds(instance_score=0.9)  # the pattern's things score 0.75


def thing_pixels(result: PanopticResult) -> int:
    return sum(segment.area for segment in result.segments if segment.is_thing)


def frame(seed: int) -> Frame:
    return Frame(picture(seed), captured_at=0.0)


@pytest.mark.parametrize("facts", ["rtx4090", "orin_jetpack6"])
def test_thresholds_hold_from_the_next_frame_on(tmp_path: Path, gpu: ModuleType, facts: str) -> None:
    gpu.use_facts(facts)
    with open_session(tmp_path) as session:
        assert session.thresholds == MODEL.thresholds
        assert session.graph_error is None
        for _ in range(3):  # all slots, each more than once
            check(session(picture(0)), picture(0))
        session.thresholds = STRICT
        assert session.thresholds == MODEL.thresholds._replace(instance_score=0.9)
        assert [thing_pixels(session(picture(seed))) for seed in range(4)] == [0] * 4
        session.thresholds = None
        for _ in range(3):
            check(session(picture(0)), picture(0))


def test_a_frame_in_flight_keeps_the_thresholds_of_its_submit(tmp_path: Path, gpu: ModuleType) -> None:
    """The simulated device runs as late as it may, so a value that is overwritten too early is read too late."""
    del gpu
    with open_session(tmp_path) as session:
        for _ in range(3):
            session.thresholds = None
            session.submit([frame(0)])
            session.thresholds = STRICT
            session.submit([frame(1)])
            session.thresholds = None
            (first,), (second,) = session.collect(), session.collect()
            check(first, picture(0))
            assert thing_pixels(second) == 0


def test_nothing_is_allocated_or_uploaded_while_thresholds_stay(
    tmp_path: Path, gpu: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_session(tmp_path) as session:
        session.thresholds = STRICT
        for seed in range(4):
            session(picture(seed))
        alive = gpu.alive()
        uploads: list[int] = []
        upload = session.stream.upload

        def counted(target: int, source: int, size: int) -> None:
            uploads.append(size)
            upload(target, source, size)

        monkeypatch.setattr(session.stream, "upload", counted)
        for seed in range(6):
            session(picture(seed))
        assert gpu.alive() == alive
        assert uploads == []
        session.thresholds = None
        for seed in range(6):
            session(picture(seed))
        assert len(uploads) == session.capacity, "one for each slot"
        assert gpu.alive() == alive


def test_an_engine_with_fixed_thresholds_says_so(tmp_path: Path) -> None:
    fixed = [row for row in tensors(MODEL) if row[0] not in NAMES]
    with open_session(tmp_path, tensors=fixed) as session:
        check(session(picture(0)), picture(0))
        session.thresholds = None
        session.thresholds = MODEL.thresholds
        for setting in ({"thresholds": STRICT}, {"classes": ["mug"]}):
            for name, value in setting.items():
                with pytest.raises(panrt.ThresholdsFixedError, match="built with fixed thresholds; build it again"):
                    setattr(session, name, value)
        check(session(picture(0)), picture(0))


@pytest.mark.slow
def test_a_gpu_session_gives_what_a_cpu_session_gives_with_the_same_thresholds(tmp_path: Path, gpu: ModuleType) -> None:
    """On a file of an older version, whose thresholds are attributes: both change it when they read it."""
    del gpu
    path = bundled.locate("tabletop")
    images = [picture(seed, (120, 160)) for seed in range(20 if FULL else 2)]
    with (
        panrt.load(path, backend="cpu", threads=1) as cpu,
        open_session(tmp_path, cpu.model, tensors=tensors(cpu.model), network=str(path)) as session,
    ):
        assert session.graph_error is None
        for seed in range(200 if FULL else 3):
            cpu.thresholds = session.thresholds = random_thresholds(seed)
            cpu.classes = session.classes = random_classes(cpu.model, seed)
            for image in images:
                found, wanted = session(image), cpu(image)
                np.testing.assert_array_equal(found.panoptic, wanted.panoptic)
                assert found.segments == wanted.segments


def test_engines_have_the_inputs_that_the_ops_declare() -> None:
    declared = {row[0]: list(row[1]) for row in tensors(MODEL) if row[0] in NAMES}
    assert declared == {DETECTION: [len(MODEL.things) + 1], INSTANCE: [3], STUFF: [len(MODEL.stuff) + 1]}
    assert sum(len(op.settings) for op in OPS.values()) == len(declared)
    assert np.prod(declared[INSTANCE]) == len(OPS["PanopticMerge"].settings[0].attributes)
