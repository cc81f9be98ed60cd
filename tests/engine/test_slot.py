"""The slot between two threads: order, drops and closing."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panrt.engine.slot import POLICIES, Policy, Slot


def test_latest_keeps_the_newest_and_counts_what_gave_way() -> None:
    slot: Slot[int] = Slot("latest", depth=2)
    assert all(slot.put(number) for number in range(5))
    assert [slot.take(), slot.take(), slot.take()] == [3, 4, None]
    assert slot.counts == (5, 2, 3, 0)


def test_block_waits_for_room_and_then_goes_on() -> None:
    slot: Slot[int] = Slot("block")
    assert slot.put(1)
    assert not slot.put(2, timeout=0.02)
    late = threading.Timer(0.05, slot.take)
    late.start()
    assert slot.put(3, timeout=60)
    late.join()
    assert slot.take() == 3
    assert slot.counts == (2, 2, 0, 0)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_closed_slot_gives_what_is_inside_and_takes_nothing(policy: Policy) -> None:
    slot: Slot[int] = Slot(policy)
    slot.put(1)
    slot.close()
    assert (slot.put(2, timeout=1), slot.exhausted) == (False, False)
    assert slot.take(None) == 1
    assert slot.exhausted
    assert slot.take(None) is None


def test_closing_frees_a_writer_and_a_reader_that_wait() -> None:
    full: Slot[int] = Slot("block")
    full.put(1)
    empty: Slot[int] = Slot("block")
    outcomes: list[object] = []
    threads = [
        threading.Thread(target=lambda: outcomes.append(full.put(2))),
        threading.Thread(target=lambda: outcomes.append(empty.take(None))),
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.02)
    full.close()
    empty.close()
    for thread in threads:
        thread.join(60)
    assert sorted(map(repr, outcomes)) == ["False", "None"]


@given(policy=st.sampled_from(POLICIES), depth=st.integers(1, 4), steps=st.lists(st.booleans(), max_size=40))
def test_nothing_is_lost_or_doubled_uncounted(policy: Policy, depth: int, steps: list[bool]) -> None:
    slot: Slot[int] = Slot(policy, depth=depth)
    accepted, taken = [], []
    for number, puts in enumerate(steps):
        if puts:
            accepted += [number] if slot.put(number, timeout=0.0) else []
        elif (item := slot.take()) is not None:
            taken.append(item)
    counts = slot.counts
    assert counts.put == len(accepted) == counts.taken + counts.dropped + counts.waiting
    assert counts.taken == len(taken)
    assert taken == sorted(set(taken) & set(accepted))
    assert counts.waiting <= depth
    assert policy == "latest" or counts.dropped == 0
