"""The cache returns an engine exactly if everything that determines it is the same."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from panrt.cli import app
from panrt.errors import NoCacheFolderError
from panrt.export import cache
from panrt.export.cache import Key
from panrt.formats import plan_file as plans
from panrt.formats.plan_file import BuildOptions
from support import homes
from support.plans import ENGINE, plan_file

KEY = Key(
    onnx_sha256="c" * 64,
    flavour="tensorrt",
    tensorrt="10.3.0",
    gpu="Orin (nvgpu)",
    compute_capability="8.7",
    driver="12.6",
    plugins_sha256="a" * 64,
    panrt="0.1.0",
    options=BuildOptions(),
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "panrt" / "engines"


def put(key: Key) -> Path:
    with cache.locked(key) as plan:
        plan.write_bytes(ENGINE)
        plans.sidecar(plan).write_text(plans.dumps(plan_file()))
    return plan


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Key)])
def test_any_other_field_is_another_engine(field: str) -> None:
    put(KEY)
    other: Any = BuildOptions(optimization_level=4) if field == "options" else f"{getattr(KEY, field)}x"
    with cache.locked(dataclasses.replace(KEY, **{field: other})) as plan:
        assert cache.get(plan) is None


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(BuildOptions)])
def test_any_other_option_is_another_engine(field: str) -> None:
    value = getattr(BuildOptions(), field)
    others: dict[Any, Any] = {(): (9,), None: (64, 96), "none": "ampere_plus"}
    other = others[value] if value in others else value + 2
    changed = dataclasses.replace(KEY, options=dataclasses.replace(KEY.options, **{field: other}))
    assert changed.digest() != KEY.digest()


def test_the_same_key_finds_the_engine() -> None:
    put(KEY)
    with cache.locked(dataclasses.replace(KEY)) as plan:
        assert cache.get(plan) == plan_file()
        assert plan.read_bytes() == ENGINE


@pytest.mark.parametrize("damage", [b"", ENGINE[:-1], b"otherwise"])
def test_a_damaged_engine_is_removed_and_not_given(damage: bytes) -> None:
    plan = put(KEY)
    plan.write_bytes(damage)
    assert cache.get(plan) is None
    assert not plan.exists()
    assert not plans.sidecar(plan).exists()


def test_an_engine_without_sidecar_is_not_given() -> None:
    plan = put(KEY)
    plans.sidecar(plan).unlink()
    assert cache.get(plan) is None


def test_entries_are_listed_by_their_last_use() -> None:
    first, second = put(KEY), put(dataclasses.replace(KEY, driver="13.0"))
    for plan, hours in ((first, 5), (second, 50)):
        os.utime(plan, (time.time() - hours * 3600,) * 2)
    assert [entry.plan for entry in cache.entries()] == [first, second]
    cache.get(second)  # is a use
    assert [entry.plan for entry in cache.entries()] == [second, first]
    assert cache.entries()[0].bytes == len(ENGINE)


def test_pruning_removes_what_was_not_used_for_so_long(folder: Path) -> None:
    old, new = put(KEY), put(dataclasses.replace(KEY, driver="13.0"))
    os.utime(old, (time.time() - 40 * 86400,) * 2)
    (folder / "cut-off").mkdir()  # a build that never ended
    assert cache.prune(unused_days=30) == (1, len(ENGINE))
    assert [entry.plan for entry in cache.entries()] == [new]
    assert [path.name for path in folder.iterdir()] == [new.parent.name]


def test_pruning_leaves_alone_what_is_being_built() -> None:
    with cache.locked(KEY) as plan:
        plan.write_bytes(ENGINE)  # its sidecar comes next
        assert cache.prune(unused_days=0) == (0, 0)
        assert plan.exists()


def _wait_for_it(found: multiprocessing.Queue[bool]) -> None:
    with cache.locked(KEY) as plan:
        found.put(cache.get(plan) is not None)


def test_a_second_build_of_an_engine_waits_and_finds_it() -> None:
    context = multiprocessing.get_context("fork")
    found: multiprocessing.Queue[bool] = context.Queue()
    with cache.locked(KEY) as plan:
        other = context.Process(target=_wait_for_it, args=(found,))
        other.start()
        other.join(0.3)
        assert other.is_alive()
        plan.write_bytes(ENGINE)
        plans.sidecar(plan).write_text(plans.dumps(plan_file()))
    other.join(60)
    assert found.get(timeout=60)


# No cache


def test_without_a_home_folder_a_build_keeps_nothing_and_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    homes.have_none(monkeypatch)
    assert not cache.is_usable()
    (said,) = caplog.messages
    assert "set XDG_CACHE_HOME" in said
    assert said.endswith("The engine is not kept for the next build.")
    path = cache.timings_path("10.3.0", None)
    assert path is None
    assert cache.timings(path) == b""
    cache.keep_timings(path, b"measured")


def test_without_a_home_folder_there_is_no_cache_to_look_into(monkeypatch: pytest.MonkeyPatch) -> None:
    homes.have_none(monkeypatch)
    with pytest.raises(NoCacheFolderError):
        cache.entries()
    with pytest.raises(NoCacheFolderError):
        cache.prune(unused_days=0)
    for command in ("ls", "prune"):
        ended = CliRunner().invoke(app, ["cache", command], catch_exceptions=False)
        assert ended.exit_code == 2
        assert "set XDG_CACHE_HOME to a folder" in ended.output
        assert ended.output.count("\n") == 1


def test_a_cache_that_can_be_written_to_is_usable(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert cache.is_usable()
    assert folder.is_dir()
    assert not caplog.messages


def test_a_cache_that_cannot_be_written_to_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert not cache.is_usable()
    path = cache.timings_path("10.3.0", None)
    assert path is not None
    cache.keep_timings(path, b"measured")
    unusable, unwritten = caplog.messages
    assert unusable.startswith(str(blocked))
    assert "Set XDG_CACHE_HOME to a folder that can be written to." in unusable
    assert unwritten.startswith(str(path))


def test_a_folder_without_the_permission_to_write_is_no_cache(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    assert not cache.is_usable()
    assert caplog.messages[0].startswith(f"{folder}: Permission denied; ")


def test_measured_kernels_are_kept_for_the_next_build() -> None:
    path = cache.timings_path("10.3.0", None)
    assert cache.timings(path) == b""
    cache.keep_timings(path, b"measured")
    assert cache.timings(path) == b"measured"
