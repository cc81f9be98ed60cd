"""Training on a toy: it learns, survives a kill without a trace, and says what it did."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from panrt.errors import CheckpointError, PanopticFormatError, RecipeError, TrainingError
from panrt.model import PanopticFPN, build, load
from panrt.model.config import SemanticConfig
from panrt.model.data.classes import TABLETOP
from panrt.model.losses import LossConfig
from panrt.model.schedule import ScheduleConfig, learning_rate
from panrt.model.train import TrainConfig, TrunkCache, lite_recipe, train
from panrt.model.training_data import TrainingSample
from toy_rectangles import SIDE, Rectangles


def quick(iterations: int, **changes: Any) -> TrainConfig:
    """The recipe of the lite network, cut down to the toy."""
    return dataclasses.replace(
        lite_recipe(iterations=iterations),
        **{
            "batch_size": 2,
            "losses": LossConfig(
                semantic_weight=1.0, rpn_samples=64, pre_nms_top_k=50, post_nms_top_k=30, roi_samples=16
            ),
            "schedule": ScheduleConfig(learning_rate=2e-3, kind="cosine", warmup_iterations=2, warmup_factor=0.1),
            "log_every": 1,
            "checkpoint_every": 2,
            **changes,
        },
    )


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # the tests themselves run a process a core


def network(seed: int = 0) -> PanopticFPN:
    torch.manual_seed(seed)
    return build("panoptic_fpn_lite", input_hw=(SIDE, SIDE))


def log_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


class KilledError(Exception):
    pass


class DyingRectangles(Rectangles):
    """Dies after so many reads, as a process would that is killed."""

    def __init__(self, number: int, reads: int) -> None:
        super().__init__(number)
        self.left = reads

    def __getitem__(self, index: int) -> TrainingSample:
        self.left -= 1
        if self.left < 0:
            raise KilledError
        return super().__getitem__(index)


@pytest.mark.parametrize(
    "changes",
    [{}, {"cache_trunk": False, "frozen_stages": 7, "optimizer": "sgd", "ema_decay": None, "clip_norm": None}],
    ids=["adamw, average, cached trunk", "sgd, plain"],
)
def test_a_killed_training_goes_on_as_if_nothing_had_happened(tmp_path: Path, changes: dict[str, Any]) -> None:
    config = quick(6, **changes)
    whole = train(network(), Rectangles(5), config, out=tmp_path / "whole", progress=False)
    with pytest.raises(KilledError):
        train(network(), DyingRectangles(5, 2 * 5), config, out=tmp_path / "killed", progress=False)
    assert len(log_of(tmp_path / "killed")) == 5  # the fifth was logged, but the last checkpoint is of the fourth
    resumed = train(network(seed=9), Rectangles(5), config, out=tmp_path / "killed", progress=False)
    expected, found = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    facts = [[(r["iteration"], r["losses"]) for r in log_of(tmp_path / name)] for name in ("whole", "killed")]
    assert facts[0] == facts[1]
    assert [iteration for iteration, _ in facts[0]] == [1, 2, 3, 4, 5, 6]


def test_losses_fall_and_the_result_is_saved_and_evaluated(tmp_path: Path) -> None:
    def evaluate(model: PanopticFPN) -> dict[str, float]:
        assert not model.training
        return {"PQ": 0.5}

    config = quick(40, schedule=ScheduleConfig(learning_rate=3e-3, kind="cosine", warmup_iterations=3))
    result = train(network(), Rectangles(8), config, out=tmp_path, evaluate=evaluate, progress=False)
    *steps, last = log_of(tmp_path)
    assert last == {"iteration": 40, "evaluation": {"PQ": 0.5}}
    assert result.metrics == {"PQ": 0.5}
    totals = [step["losses"]["total"] for step in steps]
    assert sum(totals[-5:]) < 0.6 * sum(totals[:5])
    assert set(steps[0]["losses"]) == {"rpn_cls", "rpn_loc", "cls", "box_reg", "mask", "semantic", "total"}
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    stored, trained = load(result.path).state_dict(), result.model.state_dict()
    assert all(torch.equal(stored[name], trained[name]) for name in trained)


def test_only_what_is_not_frozen_learns(tmp_path: Path) -> None:
    model = network()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    train(model, Rectangles(4), quick(1, cache_trunk=False, frozen_stages=7), out=tmp_path, progress=False)
    for name, parameter in model.named_parameters():
        frozen = name.startswith("backbone.trunk.") and not name.startswith("backbone.trunk.blocks.6.")
        assert torch.equal(before[name], parameter) == frozen, name


def test_mixed_precision_on_the_cpu_is_bfloat16_and_learns(tmp_path: Path) -> None:
    seen: list[torch.dtype] = []
    model = network()
    model.backbone.trunk.get_submodule("blocks.0").register_forward_hook(lambda *call: seen.append(call[2].dtype))
    train(model, Rectangles(4), quick(8, amp=True, cache_trunk=False, frozen_stages=3), out=tmp_path, progress=False)
    assert set(seen) == {torch.bfloat16}
    assert all(p.dtype == torch.float32 for p in model.parameters())
    lines = [json.loads(line)["losses"]["total"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[-1] < 0.8 * lines[0]


def test_alternating_trains_one_branch_at_a_time(tmp_path: Path) -> None:
    train(network(), Rectangles(4), quick(2, alternate=True), out=tmp_path, progress=False)
    first, second = log_of(tmp_path)
    assert set(first["losses"]) == {"rpn_cls", "rpn_loc", "cls", "box_reg", "mask", "total"}
    assert set(second["losses"]) == {"semantic", "total"}


def test_single_branch_networks_train(tmp_path: Path) -> None:
    torch.manual_seed(0)
    train(build("panoptic_fpn_lite", instance=None), Rectangles(4), quick(1), out=tmp_path / "stuff", progress=False)
    train(build("panoptic_fpn_lite", semantic=None), Rectangles(4), quick(1), out=tmp_path / "things", progress=False)
    assert set(log_of(tmp_path / "stuff")[0]["losses"]) == {"semantic", "total"}
    assert "semantic" not in log_of(tmp_path / "things")[0]["losses"]


@pytest.mark.parametrize(
    "semantic",
    [
        SemanticConfig(width=64, norm="batch"),
        SemanticConfig(width=128),
        SemanticConfig(width=64, aggregation="concat", separable=True),
    ],
    ids=["width 64", "width 128", "concat"],
)
def test_the_papers_semantic_branches_train(tmp_path: Path, semantic: SemanticConfig) -> None:
    torch.manual_seed(0)
    model = build("panoptic_fpn_lite", semantic=semantic)
    train(model, Rectangles(4), quick(2), out=tmp_path, progress=False)
    assert all(math.isfinite(line["losses"]["semantic"]) for line in log_of(tmp_path))


@pytest.mark.parametrize("name", ["semantic_dilated_r50", "semantic_fpn_r50", "instance_fpn_r50"])
def test_the_papers_other_networks_train(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    model = build(name, classes=TABLETOP)
    before = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
    config = quick(1, optimizer="sgd", ema_decay=None, cache_trunk=False, frozen_stages=2)
    train(model, Rectangles(2), config, out=tmp_path, progress=False)
    assert all(math.isfinite(loss) for loss in log_of(tmp_path)[0]["losses"].values())
    assert any(not torch.equal(before[key], parameter) for key, parameter in model.named_parameters())


def test_the_cache_keeps_what_the_trunk_computes() -> None:
    model = network().eval().requires_grad_(False)
    cache = TrunkCache(model)
    images = torch.randn(2, 3, SIDE, SIDE)
    keys = ((0, False), (3, True))
    for _ in range(2):
        found = cache.maps(keys, images)
        for level, expected in zip(found, model.backbone.trunk(images), strict=True):
            torch.testing.assert_close(level, expected, atol=2e-3 * float(expected.abs().max()), rtol=0)
    swapped = cache.maps(keys[::-1], images)  # by key, whatever the pixels
    assert torch.equal(swapped[0][0], found[0][1])


def test_the_cache_is_right_in_batches_of_other_sizes() -> None:
    model = network().eval().requires_grad_(False)
    cache = TrunkCache(model)
    small, large = torch.randn(1, 3, SIDE, SIDE), torch.randn(1, 3, 2 * SIDE, SIDE)
    padded = torch.cat([small, torch.zeros_like(small)], dim=2)  # as in a batch with the large one
    for keys, images in [([(0, False)], small), ([(0, False), (1, False)], torch.cat([padded, large]))] * 2:
        found = cache.maps(tuple(keys), images)
        for level, expected in zip(found, model.backbone.trunk(images), strict=True):
            torch.testing.assert_close(level, expected, atol=2e-3 * float(expected.abs().max()), rtol=0)
    assert len(cache.kept) == 2


def test_the_average_follows_the_weights(tmp_path: Path) -> None:
    averaged = train(network(), Rectangles(4), quick(3), out=tmp_path / "a", progress=False).model.state_dict()
    plain_config = quick(3, ema_decay=None)
    plain = train(network(), Rectangles(4), plain_config, out=tmp_path / "b", progress=False).model.state_dict()
    start, name = network().state_dict(), "semantic.predictor.weight"
    to_average = (averaged[name] - start[name]).norm()
    assert 0 < to_average < (plain[name] - start[name]).norm()


def test_workers_read_the_same_samples(tmp_path: Path) -> None:
    logs = []
    for workers in (0, 1):
        out = tmp_path / str(workers)
        train(network(), Rectangles(4), quick(2, workers=workers), out=out, progress=False)
        logs.append([record["losses"] for record in log_of(out)])
    assert logs[0] == logs[1]


class Unreadable(Rectangles):
    """A data set whose pictures are damaged."""

    def __getitem__(self, index: int) -> TrainingSample:
        raise PanopticFormatError("images/1.jpg: the file is empty.")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_cannot_be_read_ends_a_training_with_one_line(workers: int, tmp_path: Path) -> None:
    with pytest.raises(PanopticFormatError, match=r"^images/1\.jpg: the file is empty\.$"):
        train(network(), Unreadable(4), quick(2, workers=workers), out=tmp_path, progress=False)


def test_a_directory_of_another_training_is_refused(tmp_path: Path) -> None:
    train(network(), Rectangles(4), quick(2), out=tmp_path, progress=False)
    with pytest.raises(CheckpointError, match=r"another batch_size, seed; continue with the same configuration"):
        train(network(), Rectangles(4), quick(3, seed=5, batch_size=1), out=tmp_path, progress=False)
    with pytest.raises(RecipeError, match=r"iterations: .*training\.pt is of a training of 2 iterations, of which 2"):
        train(network(), Rectangles(4), quick(1), out=tmp_path, progress=False)
    with pytest.raises(CheckpointError, match=r"training\.pt: from a training of another network, or damaged"):
        train(build("panoptic_fpn_lite", semantic=None), Rectangles(4), quick(2), out=tmp_path, progress=False)
    (tmp_path / "training.pt").write_bytes((tmp_path / "training.pt").read_bytes()[:-99])
    with pytest.raises(CheckpointError, match=r"training\.pt: its zip archive is damaged"):
        train(network(), Rectangles(4), quick(2), out=tmp_path, progress=False)


def test_a_finished_training_is_made_longer(tmp_path: Path) -> None:
    first = train(network(), Rectangles(4), quick(2), out=tmp_path, progress=False)
    before = {name: tensor.clone() for name, tensor in first.model.state_dict().items()}
    config = quick(4)
    longer = train(network(seed=9), Rectangles(4), config, out=tmp_path, progress=False)
    assert [line["iteration"] for line in log_of(tmp_path)] == [1, 2, 3, 4]
    rates = [line["learning_rate"] for line in log_of(tmp_path)[2:]]
    assert rates == [learning_rate(config.schedule, i, 4) for i in (2, 3)]
    assert not torch.equal(before["semantic.predictor.weight"], longer.model.state_dict()["semantic.predictor.weight"])
    assert torch.equal(before["backbone.trunk.stem.weight"], longer.model.state_dict()["backbone.trunk.stem.weight"])


@pytest.mark.parametrize("content", [5, [], {}, {"config": 5}, {"config": {}, "iteration": 1}])
def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "training.pt")
    with pytest.raises(CheckpointError, match=r"training\.pt: from a training of another network, or damaged"):
        train(network(), Rectangles(4), quick(2), out=tmp_path, progress=False)


def test_a_log_with_damaged_lines_keeps_the_others(tmp_path: Path) -> None:
    train(network(), Rectangles(4), quick(2), out=tmp_path, progress=False)
    with (tmp_path / "log.jsonl").open("ab") as file:
        file.write(b'5\n{"iterat\n\xff\n[]\n{"iteration": "x"}\n' + b"[" * 100_000 + b"\n")
    train(network(), Rectangles(4), quick(2), out=tmp_path, progress=False)
    assert [line["iteration"] for line in log_of(tmp_path)] == [1, 2]


def test_a_loss_that_is_not_finite_stops_with_its_samples(tmp_path: Path) -> None:
    model = network()
    with torch.no_grad():
        model.get_parameter("semantic.predictor.bias").fill_(math.nan)
    with pytest.raises(TrainingError, match=r"iteration 0: a loss is not finite: .*'semantic': nan.*samples \d, \d"):
        train(model, Rectangles(4), quick(2), out=tmp_path, progress=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frozen_stages": 9}, "frozen_stages: got 9, panoptic_fpn_lite has 0 to 8"),
        ({"frozen_stages": 3}, "cache_trunk: only 3 of 8 stages are frozen"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(network(), Rectangles(4), quick(2, **changes), out=tmp_path, progress=False)
    with pytest.raises(ValueError, match="no samples"):
        train(network(), Rectangles(0), quick(2), out=tmp_path, progress=False)


def test_impossible_values_are_refused_at_once() -> None:
    with pytest.raises(ValueError, match="batch_size: got 0, expected at least 1"):
        TrainConfig(batch_size=0)
    with pytest.raises(ValueError, match=r"set short_sides=\(\)"):
        TrainConfig(cache_trunk=True)


def test_detectron2s_schedule_by_hand() -> None:
    config = ScheduleConfig()
    rates = {i: learning_rate(config, i, 90_000) for i in (0, 500, 1000, 59_999, 60_000, 80_000)}
    expected = {0: 2e-5, 500: 0.02 * (0.001 + 1) / 2, 1000: 0.02, 59_999: 0.02, 60_000: 0.002, 80_000: 0.0002}
    assert rates == pytest.approx(expected)


def test_a_cosine_ends_near_zero_and_is_half_in_the_middle() -> None:
    config = ScheduleConfig(learning_rate=1.0, kind="cosine", warmup_iterations=0)
    assert learning_rate(config, 0, 100) == 1
    assert learning_rate(config, 50, 100) == pytest.approx(0.5)
    assert 0 < learning_rate(config, 99, 100) < 1e-3


def test_a_cool_down_falls_to_zero_from_wherever_the_cosine_is() -> None:
    config = ScheduleConfig(learning_rate=1.0, kind="cosine", warmup_iterations=0, horizon=200, cooldown=50)
    uncooled = ScheduleConfig(learning_rate=1.0, kind="cosine", warmup_iterations=0)
    assert learning_rate(config, 50, 100) == learning_rate(uncooled, 50, 200)
    assert learning_rate(config, 75, 100) == pytest.approx(learning_rate(uncooled, 75, 200) / 2)
    assert learning_rate(config, 99, 100) == pytest.approx(learning_rate(uncooled, 99, 200) / 50)
