"""Hostile inputs of every format, the same ones each time, do no harm; and the fuzzers find what they look for."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuzz import targets
from fuzz.campaign import REPOSITORY, Campaign, Limits
from fuzz.targets.planted import FAULTS

# One process for each of these; together they import what takes long once.
GROUPS = {
    "weights and data sets": ("pickle", "torch", "safetensors", "coco", "classes"),
    "models": ("onnx", "metadata", "plan", "benchmark", "uris"),
    "media": ("pictures", "clips", "live", "rtsp", "http", "memory"),
    "kernels": ("kernels", "bindings"),
}


def test_every_target_is_in_a_group() -> None:
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(targets.NAMES)


@pytest.mark.parametrize("group", GROUPS)
def test_hostile_inputs_are_refused_in_order(group: str) -> None:
    saved = REPOSITORY / "build" / "fuzz"
    saved.mkdir(parents=True, exist_ok=True)
    counts = {name: targets.load(name).short for name in GROUPS[group]}
    campaign = Campaign(GROUPS[group], seed=0, saved=saved)
    campaign.run_counts(counts)
    assert not campaign.findings, f"\n{campaign.table()}\n\n{campaign.report()}"
    assert {name: tally.inputs for name, tally in campaign.tallies.items()} == counts


def test_the_fuzzers_find_every_planted_fault(tmp_path: Path) -> None:
    folders = [tmp_path / f"planted-{number}" for number in range(len(FAULTS))]
    for number, folder in enumerate(folders):
        folder.mkdir()
        (folder / "input").write_bytes(str(number).encode())
    campaign = Campaign(("planted",), seed=0, saved=tmp_path, limits=Limits(seconds=1.0, memory=256 << 20))
    events = campaign.replay("planted", folders)
    found = [{finding.kind for finding in event.findings} for event in events]
    assert len(found) == len(FAULTS)
    for (_, kind), kinds in zip(FAULTS, found, strict=True):
        assert (kind in kinds) if kind else not kinds
