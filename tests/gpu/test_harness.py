"""The harness of tools/gpu: whatever a phase does, it is reported, and the next phase runs."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from panrt.plugins import reference
from tools.gpu import absent, checks, phases, summary
from tools.gpu.checks import Checks, DeviceLostError, MissingError, Record
from tools.gpu.machine import Machine
from tools.gpu.phases import PHASES, SECONDS, Phase

PHASE = Phase(1, "tools.gpu.misbehaving", "one that misbehaves", 1)
NEXT = Phase(2, "tools.gpu.misbehaving", "the next", 1)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """No device: the phases of these tests use none."""
    described = Machine(out=str(tmp_path), simulated=False, kernels="", plugins="", plugin_calls="", expected="")
    described.write()
    return described


def misbehave(machine: Machine, how: str, clock: Callable[[], float] = lambda: 0.0) -> list[Record]:
    """Run a phase that does so, and what was shown of it on the way."""
    dataclasses.replace(machine, expected=how).write()
    shown: list[Record] = []
    phases.run_phase(machine, PHASE, seconds=1.0, progress=shown.append, clock=clock)
    assert checks.read(machine.folder / "checks.jsonl") == shown
    return shown


def test_a_phase_that_ends_well_adds_nothing(machine: Machine) -> None:
    assert [(r.check, r.status) for r in misbehave(machine, "")] == [("first", "passed"), ("last", "passed")]


def test_a_phase_that_hangs_is_ended_and_says_where(machine: Machine) -> None:
    def clock() -> float:
        """The time is up when the phase hangs, however long it took to come there."""
        running = machine.folder / "checks.running"
        return 2.0 if running.exists() and running.read_text() == "hangs" else 0.0

    *_, last = misbehave(machine, "hang", clock)
    assert (last.phase, last.status) == (1, "failed")
    assert last.detail.startswith("ran past its 1 s in 'hangs'")


def test_a_phase_that_crashes_says_how_and_where(machine: Machine) -> None:
    *_, last = misbehave(machine, "crash")
    assert last.status == "failed"
    assert last.detail.startswith("was ended by SIGSEGV in 'crashes'")


def test_a_phase_that_fails_outside_its_checks_shows_the_error(machine: Machine) -> None:
    *_, last = misbehave(machine, "raise")
    assert last.detail.startswith("ended with status 1: ")
    assert "RuntimeError: outside any check" in last.detail


def test_a_check_that_fails_stops_no_other(machine: Machine) -> None:
    first, failed, last = misbehave(machine, "fail")
    assert (first.status, failed.status, last.status) == ("passed", "failed", "passed")
    assert failed.detail.startswith("ValueError: one | two three (misbehaving.py:")


def test_a_sticky_error_ends_its_phase_and_is_named(machine: Machine) -> None:
    first, failed, last = misbehave(machine, "lose")
    assert (first.status, failed.status, last.check) == ("passed", "failed", "the device survives")
    assert "after 'fails' every CUDA call fails with CUDA_ERROR_ILLEGAL_ADDRESS" in last.detail


@pytest.mark.parametrize("how", ["crash", "lose", "raise"])
def test_the_next_phase_runs_whatever_one_did(machine: Machine, how: str) -> None:
    machine = dataclasses.replace(machine, expected=how)
    machine.write()
    records = phases.run_all(machine, [PHASE, NEXT], seconds=600, progress=lambda record: None)
    assert {record.phase for record in records if record.status == "failed"} == {1, 2}
    assert next(record.check for record in records if record.phase == 2) == "first"


def test_time_that_a_phase_leaves_goes_to_the_next(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []
    monkeypatch.setattr(phases, "run_phase", lambda machine, phase, *, seconds, progress: given.append(seconds))
    phases.run_all(machine, PHASES, seconds=2.0 * SECONDS, progress=lambda record: None)
    shares = [2.0 * sum(phase.seconds for phase in PHASES[: count + 1]) for count in range(len(PHASES))]
    assert given == pytest.approx(shares, abs=60)  # nothing was used, so each has all that came before it


def test_phases_have_the_numbers_and_modules_that_exist() -> None:
    assert [phase.number for phase in PHASES] == list(range(8))
    for phase in PHASES:
        assert (Path(phases.__file__).parent / f"{phase.module.removeprefix('tools.gpu.')}.py").is_file()


# --- Checks and their report ------------------------------------------------------------------------------------------


def end(error: Exception) -> None:
    raise error


def test_checks_report_what_they_found(tmp_path: Path) -> None:
    report = tmp_path / "checks.jsonl"
    running = Checks(4, report, seconds=1.0)
    with running.check("measures") as check:
        check.figures["us"] = 3.5
        assert (tmp_path / "checks.running").read_text() == "measures"
    with running.check("lacks something"):
        end(MissingError("ncu is missing"))
    with running.check("notes") as check:
        check.note("stopped early")
    with running.check("fails"):
        end(AssertionError("differs"))
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert [(line["check"], line["status"]) for line in lines] == [
        ("measures", "passed"), ("lacks something", "skipped"), ("notes", "noted"), ("fails", "failed"),
    ]  # fmt: skip
    assert lines[0]["figures"] == {"us": 3.5}
    assert lines[1]["detail"] == "ncu is missing"
    assert {line["phase"] for line in lines} == {4}


def test_no_check_runs_on_a_lost_device(tmp_path: Path) -> None:
    running = Checks(4, tmp_path / "checks.jsonl", seconds=1.0, lost=lambda: "CUDA_ERROR_LAUNCH_FAILED")
    with running.check("is well"):
        pass
    with pytest.raises(DeviceLostError, match="CUDA_ERROR_LAUNCH_FAILED"), running.check("fails"):
        raise AssertionError("differs")


def test_a_line_that_was_cut_off_is_no_record(tmp_path: Path) -> None:
    report = tmp_path / "checks.jsonl"
    checks.append(report, Record(0, "whole"))
    whole = report.read_text()
    report.write_text(whole + whole[:20])
    assert checks.read(report) == [Record(0, "whole")]
    assert checks.read(tmp_path / "none.jsonl") == []


def test_the_summary_shows_failures_figures_and_silent_phases() -> None:
    records = [
        Record(1, "a | b", "failed", 1.0, "was wrong"),
        Record(1, "slow", "passed", 2.0, "", {"us": 7.5, "GB/s": {"upload": 2}}),
        Record(1, "peer", "skipped", 0.0, "torchvision is missing"),
    ]
    text = summary.markdown(records, [PHASE, NEXT], simulated=False)
    assert "FAILED: 1 passed, 1 failed, 1 skipped, 0 noted; phase 2 reported nothing" in text
    assert "| 1 | one that misbehaves | 1 | 1 | 1 | 0 | 3.0 |" in text
    assert r"* phase 1, a \| b: was wrong" in text
    assert "| 1 | slow | us 7.5, GB/s upload 2 |" in text
    assert "torchvision is missing" in text
    assert "stand-ins" not in text
    assert "stand-ins" in summary.markdown(records, [PHASE], simulated=True)


def test_a_run_fails_where_a_check_failed_or_a_phase_is_silent() -> None:
    passed, skipped = Record(1, "one"), Record(1, "two", "skipped")
    assert not summary.has_failed([passed, skipped], [PHASE])
    assert summary.has_failed([passed, skipped], [PHASE, NEXT])
    assert summary.has_failed([passed, Record(1, "three", "failed")], [PHASE])


def test_what_is_absent_is_missed_when_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert absent.stand_in("torch") == ["torch"]
    torch = sys.modules["torch"]
    chosen = torch.cuda.float16 | torch.uint8
    with pytest.raises(MissingError, match=r"torch\.nn\.functional\.pad is missing: torch"):
        torch.nn.functional.pad(chosen)


def test_the_reference_stands_in_for_the_cpu_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "panrt.plugins.native", None)
    monkeypatch.setattr("panrt.plugins.native", None, raising=False)
    assert absent.stand_in() == ["panrt.plugins.native"]
    native = sys.modules["panrt.plugins.native"]
    frame, panoptic = np.zeros((2, 2, 3), np.uint8), np.ones((2, 2), np.int32)
    colors = np.full((2, 3), 200, np.uint8)
    drawn = native.overlay(frame, panoptic, colors, opacity=0.5, border=0, threads=2)
    assert np.array_equal(drawn, reference.overlay(frame, panoptic, colors, opacity=0.5, border=0))
