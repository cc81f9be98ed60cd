"""The suite for a GPU, run on stand-ins: every phase comes to its end, and reports the faults planted for it."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from tools import hostcuda
from tools.gpu import checks, expected, first_day
from tools.gpu.checks import Record
from tools.gpu.phases import PHASES

SECONDS = "900"  # far more than it takes, so that no load decides


def first_day_on_stand_ins(out: Path, *arguments: str) -> tuple[int, list[Record]]:
    """Run it; the exit status and all records."""
    status = first_day.main(["--simulated", "--small", "--out", str(out), "--seconds", SECONDS, *arguments])
    return status, checks.read(out / "checks.jsonl")


def failures(records: list[Record]) -> dict[int, list[Record]]:
    """By phase."""
    failed = [record for record in records if record.status == "failed"]
    return {number: [r for r in failed if r.phase == number] for number in {r.phase for r in failed}}


def test_every_phase_runs_to_its_end(tmp_path: Path) -> None:
    expected.write(tmp_path / "expected.npz", frames=1)
    status, records = first_day_on_stand_ins(tmp_path / "out", "--expected", str(tmp_path / "expected.npz"))
    assert failures(records) == {}
    assert status == 0
    assert {record.phase for record in records if record.status == "passed"} == {phase.number for phase in PHASES}
    # What only a GPU, TensorRT or torchvision can do is said to be missing, and nothing else.
    missing = [record for record in records if record.status == "skipped"]
    words = ("GPU", "simulation only", "torchvision", "facts.py")
    assert all(any(word in record.detail for word in words) for record in missing), missing
    assert "Run on stand-ins" in (tmp_path / "out" / "summary.md").read_text()
    measured = json.loads((tmp_path / "out" / "measured.json").read_text())
    assert measured["simulated"] is True
    assert measured["workloads"]["tiny"]["panoptic_merge"]["launches"] == 5


def test_faults_in_kernels_are_reported_by_phase_1(tmp_path: Path) -> None:
    folder = tmp_path / "cuda"
    folder.mkdir()
    planted = {
        "narrow_map.cu": ("if (rest < count)", "if (rest <= count)"),  # writes an id beyond the last one
        "overlay.cu": ("blend(mine[c], color[c], args.opacity)", "blend(mine[c], color[c], args.opacity / 2)"),
    }
    sources = []
    for source in sorted((hostcuda.ROOT / "plugins" / "cuda").glob("*.c*")):
        text = source.read_text()
        if source.name in planted:
            before, after = planted[source.name]
            assert before in text
            text = text.replace(before, after)
        (folder / source.name).write_text(text)
        sources.append(folder / source.name)
    library = hostcuda.build("planted", sources, "plain")
    status, records = first_day_on_stand_ins(tmp_path / "out", "--phases", "1", "--library", str(library))
    assert status == 1
    failed = failures(records)
    assert set(failed) == {1}
    details = {record.check.split("::")[1].split("[")[0]: record.detail for record in failed[1]}
    assert set(details) == {
        "test_ids_narrow_and_saturate", "test_an_overlay_may_be_drawn_in_place",
        "test_no_two_threads_race_for_an_overlay",
    }  # fmt: skip
    assert "outside a buffer" in details["test_ids_narrow_and_saturate"]


def test_a_fault_in_the_session_is_reported_by_phase_4(tmp_path: Path) -> None:
    status, records = first_day_on_stand_ins(tmp_path / "out", "--phases", "2,4", "--plant", "session")
    assert status == 1
    failed = failures(records)
    assert set(failed) == {4}
    assert any("pixels of the map differ" in record.detail for record in failed[4])


def test_a_fault_in_a_capture_is_reported_by_phase_3(tmp_path: Path) -> None:
    status, records = first_day_on_stand_ins(tmp_path / "out", "--phases", "2,3", "--plant", "capture")
    assert status == 1
    failed = failures(records)
    assert set(failed) == {3}
    assert [record.check.split(",")[0] for record in failed[3]] == ["first launches inside a capture"] * 2
    assert "CAPTURE_INVALIDATED" in failed[3][0].detail


SANITIZER = """#!/bin/sh
case "$2" in
  memcheck) echo "========= ERROR SUMMARY: 0 errors" ;;
  racecheck) echo "========= Error: Race reported between Write access at merge"
             echo "========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)"; exit 86 ;;
  synccheck) echo "========= Error: Device not supported"; exit 1 ;;
esac
"""
NCU = """#!/bin/sh
echo '"ID","Kernel Name"'; echo '"0","label_pixels"'; echo '"1","write_map"'
"""


def test_what_nvidias_tools_say_is_read(tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in (("compute-sanitizer", SANITIZER), ("ncu", NCU)):
        (tools / name).write_text(text)
        (tools / name).chmod(stat.S_IRWXU)
    status, records = first_day_on_stand_ins(tmp_path / "out", "--phases", "7", "--tools", str(tools))
    found = {record.check.removeprefix("compute-sanitizer "): record for record in records}
    assert status == 1
    assert found["memcheck"].status == "passed"
    assert found["memcheck"].detail == "ERROR SUMMARY: 0 errors"
    assert found["racecheck"].status == "failed"
    assert "1 hazard displayed" in found["racecheck"].detail
    assert "Race reported" in found["racecheck"].detail
    assert (found["synccheck"].status, "Device not supported" in found["synccheck"].detail) == ("noted", True)
    assert found["initcheck"].status == "failed"  # it ended well, but looked at nothing
    assert (found["ncu"].status, found["ncu"].figures) == ("passed", {"kernels": 2})


def test_without_a_plugin_library_a_run_says_how_to_get_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("PANRT_PLUGINS", raising=False)
    assert first_day.main(["--out", str(tmp_path / "out")]) == 2
    assert "panrt plugins build" in capsys.readouterr().err
