"""Who waits for a download hears of it, on a terminal and elsewhere."""

from __future__ import annotations

import io
import sys

import pytest

from panrt.hub.watch import StandardError


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_log_has_a_line_for_each_quarter(capsys: pytest.CaptureFixture[str]) -> None:
    watch = StandardError(clock=lambda: 0.0)
    for done in range(1, 201):
        watch.received(done * 10**6, 200 * 10**6)
    watch.finished()
    assert lines(capsys) == [f"  downloaded  {mb} of 200 MB, {share} %" for mb, share in
                             ((51, 26), (101, 50), (151, 76), (200, 100))]  # fmt: skip


def test_slow_download_has_a_line_every_so_many_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    watch = StandardError(clock=lambda: now)
    for now in range(60):
        watch.received(now * 1000, 10**9)
    assert len(lines(capsys)) == 3


def test_file_of_unknown_size_has_lines_too(capsys: pytest.CaptureFixture[str]) -> None:
    watch = StandardError(clock=lambda: 0.0)
    for done in range(0, 100 << 20, 1 << 20):
        watch.received(done, None)
    assert lines(capsys) == [f"  downloaded  {mib * 1.048576:.0f} MB" for mib in (32, 64, 96)]


def test_terminal_has_a_bar_that_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    watch = StandardError()
    watch.received(50, 100)
    bar = watch._bar
    assert bar is not None
    assert (bar.tasks[0].completed, bar.tasks[0].total) == (50, 100)
    watch.finished()
    assert watch._bar is None


def test_closed_stderr_is_nobody_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    watch = StandardError()
    watch.line("text")
    watch.received(1, 2)
    watch.finished()
