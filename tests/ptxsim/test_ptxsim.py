"""The machine: lanes and warps in any order, memory to the byte; what is a fault, a race, or what weak memory may do.

Kernels are PTX that is written here; the ones that nvcc writes are in test_planted.py and tests/plugins/cuda.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tools.ptxsim import Machine, PtxError, kernel

Array = NDArray[Any]
RANDOM = [("random", seed) for seed in range(8)]
ORDERS = [("forward", 0), ("reverse", 0), *RANDOM]
LANES = np.arange(32)
GARBAGE = 0xCDCDCDCD

# %r0 thread, %r1 block, %r2 threads, %r3 number of the thread in the grid.
WHO = """mov.u32 %r0, %tid.x; mov.u32 %r1, %ctaid.x; mov.u32 %r2, %ntid.x; mad.lo.u32 %r3, %r1, %r2, %r0;
mul.wide.u32 %l0, %r3, 4; add.s64 %l1, %a0, %l0; add.s64 %l2, %a1, %l0;
"""
SHARED = ".shared .align 16 .b8 s[128];"


@pytest.fixture(scope="module")
def machine() -> Machine:
    """The interpreter."""
    return Machine()


def words(count: int = 32, value: int = 0) -> Array:
    return np.full(count, value, np.uint32)


# --- Control ----------------------------------------------------------------------------------------------------------

COLLATZ = kernel(
    2,
    WHO
    + """ld.global.u32 %r4, [%l1]; mov.u32 %r5, 0;
$again: setp.le.u32 %p0, %r4, 1; @%p0 bra $done;
and.b32 %r6, %r4, 1; setp.eq.u32 %p1, %r6, 0; @%p1 bra $even;
mad.lo.u32 %r4, %r4, 3, 1; bra.uni $next;
$even: shr.u32 %r4, %r4, 1;
$next: add.u32 %r5, %r5, 1; bra.uni $again;
$done: st.global.u32 [%l2], %r5;""",
)


@pytest.mark.parametrize("order", ORDERS)
def test_each_lane_goes_its_own_way(machine: Machine, order: tuple[str, int]) -> None:
    def steps(n: int) -> int:
        return 0 if n <= 1 else 1 + steps(3 * n + 1 if n % 2 else n // 2)

    starts = np.arange(3 * 70, dtype=np.uint32) % 97
    _, got = machine.run(COLLATZ, starts, words(210), blocks=3, threads=70, order=order)
    assert got.tolist() == [steps(int(n)) for n in starts]


def test_special_registers_say_where_a_thread_is(machine: Machine) -> None:
    names = ["tid.x", "ctaid.x", "ntid.x", "nctaid.x", "laneid", "warpid", "lanemask_lt", "lanemask_ge"]
    stores = "\n".join(f"mov.u32 %r9, %{name}; st.global.u32 [%l3+{4 * i}], %r9;" for i, name in enumerate(names))
    (got,) = machine.run(
        kernel(1, WHO + "mad.wide.u32 %l3, %r3, 32, %a0;" + stores), words(2 * 48 * 8), blocks=2, threads=48
    )
    rows = got.reshape(2, 48, 8)
    for block in range(2):
        for thread in range(48):
            lane = thread % 32
            below = (1 << lane) - 1
            wanted = [thread, block, 48, 2, lane, thread // 32, below, 0xFFFFFFFF & ~below]
            assert rows[block, thread].tolist() == wanted


def test_warp_instructions_are_counted_by_line(machine: Machine) -> None:
    body = """.loc 1 10 1
mov.u32 %r0, 0;
$loop:
.loc 1 11 1
add.u32 %r0, %r0, 1; setp.lt.u32 %p0, %r0, 5; @%p0 bra $loop;
.loc 1 12 1, function_name $L__x, inlined_at 1 20 3
st.global.u32 [%a0], %r0;"""
    text = kernel(1, body) + '.file 1 "/usr/include/folder/source.cu"'
    machine.reset_counts()
    machine.run(text, words(1), threads=1)
    (counts,) = machine.counts().values()
    lines = counts["lines"]
    assert lines["source.cu:11"] == 15
    assert lines["source.cu:10"] == 1
    # What was inlined from CUDA's and the system's headers counts where it was called; kernel and `ret` follow it.
    assert lines["source.cu:20"] == 2
    assert counts["warp_instructions"] == sum(lines.values())
    assert counts["launches"] == 1


# --- Warp operations --------------------------------------------------------------------------------------------------


def shuffled(mode: str, b: int, c: int) -> tuple[list[int], list[bool]]:
    """The pseudocode of the PTX manual."""
    segment, clamp, values, valid = c >> 8 & 31, c & 31, [], []
    for lane in range(32):
        low = lane & segment
        high = low | clamp & ~segment & 31
        source = {"up": lane - b, "down": lane + b, "bfly": lane ^ b, "idx": low | b & ~segment & 31}[mode]
        inside = source >= high if mode == "up" else source <= high
        values.append(100 + (source if inside else lane))
        valid.append(inside)
    return values, valid


@pytest.mark.parametrize("order", [("forward", 0), *RANDOM[:3]])
@pytest.mark.parametrize("c", [0x1F, 0x0, 0x181F, 0x1800, 0x1007])
@pytest.mark.parametrize("b", [0, 1, 3, 16, 31])
@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
def test_shuffles_are_the_manuals(machine: Machine, mode: str, b: int, c: int, order: tuple[str, int]) -> None:
    body = f"""add.u32 %r4, %r0, 100; shfl.sync.{mode}.b32 %r5|%p0, %r4, {b}, {c}, -1;
st.global.u32 [%l1], %r5; selp.b32 %r6, 1, 0, %p0; st.global.u32 [%l2], %r6;"""
    got, valid = machine.run(kernel(2, WHO + body), words(), words(), order=order)
    wanted, inside = shuffled(mode, b, c)
    assert got.tolist() == wanted
    assert valid.tolist() == inside


@pytest.mark.parametrize("order", ORDERS)
def test_votes_matches_and_reductions_are_of_the_lanes_in_the_mask(machine: Machine, order: tuple[str, int]) -> None:
    # Even lanes go one way, odd ones another; both do the same with a mask of their own.
    part = """vote.sync.ballot.b32 %r5, %p1, {mask}; st.global.u32 [%l3], %r5;
vote.sync.all.pred %p2, %p1, {mask}; selp.b32 %r5, 1, 0, %p2; st.global.u32 [%l3+4], %r5;
vote.sync.any.pred %p2, !%p1, {mask}; selp.b32 %r5, 1, 0, %p2; st.global.u32 [%l3+8], %r5;
match.any.sync.b32 %r5, %r6, {mask}; st.global.u32 [%l3+12], %r5;
match.all.sync.b32 %r5|%p2, %r7, {mask}; st.global.u32 [%l3+16], %r5;
redux.sync.add.u32 %r5, %r0, {mask}; st.global.u32 [%l3+20], %r5;
redux.sync.max.s32 %r5, %r0, {mask}; st.global.u32 [%l3+24], %r5;
redux.sync.xor.b32 %r5, %r0, {mask}; st.global.u32 [%l3+28], %r5;"""
    body = f"""mad.wide.u32 %l3, %r0, 32, %a0; setp.lt.u32 %p1, %r0, 20; shr.u32 %r6, %r0, 3; and.b32 %r7, %r0, 1;
setp.eq.u32 %p0, %r7, 0; @%p0 bra $even;
{part.format(mask=0xAAAAAAAA)} bra.uni $end;
$even: {part.format(mask=0x55555555)}
$end:"""
    (got,) = machine.run(kernel(1, WHO + body), words(256), order=order)
    for lane, row in enumerate(got.reshape(32, 8).tolist()):
        mine = LANES[lane % 2 :: 2]
        ballot = sum(1 << int(i) for i in mine if i < 20)
        equal = sum(1 << int(i) for i in mine if i // 8 == lane // 8)
        all_mine = sum(1 << int(i) for i in mine)
        xor = int(np.bitwise_xor.reduce(mine))
        assert row == [ballot, 0, 1, equal, all_mine, int(mine.sum()), int(mine.max()), xor]


@pytest.mark.parametrize("order", ORDERS)
def test_copies_of_one_operation_meet(machine: Machine, order: tuple[str, int]) -> None:
    body = """setp.lt.u32 %p0, %r0, 16; @%p0 bra $low;
shfl.sync.bfly.b32 %r5, %r0, 16, 31, -1; bra.uni $end;
$low: shfl.sync.bfly.b32 %r5, %r0, 16, 31, -1;
$end: st.global.u32 [%l1], %r5;"""
    (got,) = machine.run(kernel(1, WHO + body), words(), order=order)
    assert (got == LANES ^ 16).all()


@pytest.mark.parametrize("order", ORDERS)
def test_a_block_reduces_a_predicate_at_its_barrier(machine: Machine, order: tuple[str, int]) -> None:
    body = """setp.eq.u32 %p0, %r0, 40; bar.red.or.pred %p1, 0, %p0; selp.b32 %r5, 1, 0, %p1;
bar.red.and.pred %p1, 0, !%p0; @%p1 add.u32 %r5, %r5, 2; bar.red.popc.u32 %r6, 0, !%p0; mad.lo.u32 %r5, %r6, 4, %r5;
st.global.u32 [%l1], %r5;"""
    (got,) = machine.run(kernel(1, WHO + body), words(64), threads=64, order=order)
    assert (got == 1 + 63 * 4).all()


@pytest.mark.parametrize(
    ("body", "report"),
    [
        (
            "setp.lt.u32 %p0, %r0, 9; @%p0 bra $x; shfl.sync.idx.b32 %r5, %r0, 2, 31, 0xFFFFFE00; $x:",
            "shuffle from lane 2",
        ),
        ("shfl.sync.idx.b32 %r5, %r0, 0, 31, 0xFFFFFFFE;", "lacks the lane itself"),
        (
            "shl.b32 %r4, 1, %r0; or.b32 %r4, %r4, 1; vote.sync.ballot.b32 %r5, 1, %r4; bar.sync 0;",
            "deadlock.*vote.sync",
        ),
        (
            "setp.eq.u32 %p0, %r0, 5; @%p0 bra $x; bar.warp.sync -1; $x: bar.sync 0;",
            "deadlock.*bar.warp.sync.*bar.sync",
        ),
        ("setp.eq.u32 %p0, %r0, 5; @%p0 bra $x; bar.sync 0; ret; $x: bar.sync 0;", "divergent barrier"),
        ("setp.eq.u32 %p0, %r0, 5; $x: @%p0 bra $x; bar.sync 0;", "livelock.*thread .5,0,0."),
    ],
)
@pytest.mark.parametrize("order", ORDERS)
def test_who_cannot_go_on_is_reported(machine: Machine, order: tuple[str, int], body: str, report: str) -> None:
    with pytest.raises(PtxError, match=report):
        machine.run(kernel(1, WHO + body), words(), order=order)


@pytest.mark.parametrize("order", ORDERS)
def test_lanes_that_have_left_are_not_waited_for(machine: Machine, order: tuple[str, int]) -> None:
    body = """setp.lt.u32 %p0, %r0, 9; @%p0 ret; vote.sync.ballot.b32 %r5, 1, -1; bar.warp.sync -1; bar.sync 0;
st.global.u32 [%l1], %r5;"""
    (got,) = machine.run(kernel(1, WHO + body), words(), order=order)
    assert got.tolist() == [0] * 9 + [0xFFFFFE00] * 23


# --- Blocks -----------------------------------------------------------------------------------------------------------

WAIT_FOR_THE_LAST = kernel(
    1,
    WHO
    + """setp.eq.u32 %p0, %r1, 2; @%p0 bra $set;
$wait: ld.acquire.gpu.b32 %r4, [%a0]; setp.eq.u32 %p1, %r4, 0; @%p1 bra $wait; bra.uni $end;
$set: st.release.gpu.b32 [%a0], 1;
$end:""",
)


def test_a_block_that_waits_for_one_that_is_not_resident_is_reported(machine: Machine) -> None:
    (got,) = machine.run(WAIT_FOR_THE_LAST, words(1), blocks=3, threads=1, resident=3)
    assert got.tolist() == [1]
    with pytest.raises(PtxError, match=r"livelock.*1 blocks have not started"):
        machine.run(WAIT_FOR_THE_LAST, words(1), blocks=3, threads=1, resident=2)


@pytest.mark.parametrize(("blocks", "threads", "shared"), [(0, 32, 0), (1, 0, 0), (1, 1025, 0), (1, 32, 48 * 1024 + 1)])
def test_a_launch_that_no_gpu_takes_is_refused(machine: Machine, blocks: int, threads: int, shared: int) -> None:
    with pytest.raises(PtxError, match=r"bad launch: grid \(\d+,1,1\)"):
        machine.run(COLLATZ, words(), words(), blocks=blocks, threads=threads, shared=shared)


# --- Memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", ["global", "shared", "local", "generic"])
def test_values_of_every_size_go_through_every_space(machine: Machine, space: str) -> None:
    base = {
        "global": "mov.u64 %l4, %a1;",
        "shared": "mov.u64 %l4, s;",
        "local": "mov.u64 %l4, t;",
        "generic": "mov.u64 %l4, s; cvta.shared.u64 %l4, %l4;",
    }[space]
    dot = "" if space == "generic" else "." + space
    body = f"""{base}
ld.global.u64 %l5, [%a0]; st{dot}.b64 [%l4], %l5; ld.global.u64 %l5, [%a0+8]; st{dot}.u64 [%l4+8], %l5;
ld{dot}.u8 %r4, [%l4+3]; ld{dot}.s8 %r5, [%l4+3]; ld{dot}.u16 %r6, [%l4+2]; ld{dot}.s16 %r7, [%l4+2];
ld{dot}.v2.u16 {{%h0, %h1}}, [%l4+4]; mov.b32 %r8, {{%h1, %h0}}; ld{dot}.v4.s8 {{%h0, %h1, %h2, %h3}}, [%l4+8];
cvt.s32.s16 %r9, %h3; ld{dot}.s8 %l6, [%l4+3]; shr.u64 %l6, %l6, 32; cvt.u32.u64 %r10, %l6;
st{dot}.v2.b8 [%l4+12], {{%r4, %r5}}; ld{dot}.v2.u32 {{%r11, %r12}}, [%l4+8];
st.global.v4.u32 [%a2], {{%r4, %r5, %r6, %r7}}; st.global.v4.u32 [%a2+16], {{%r8, %r9, %r10, %r12}};"""
    text = kernel(3, SHARED + ".local .align 16 .b8 t[16];" + body)
    given = np.array([0x91, 2, 3, 0xF4, 5, 6, 7, 8, 9, 10, 11, 0x8C, 13, 14, 15, 16], np.uint8)
    got = machine.run(text, given, np.zeros(16, np.uint8), words(8), threads=1)[2].view(np.int32).tolist()
    assert got == [0xF4, 0xF4 - 256, 0xF403, 0xF403 - 65536, 0x06050807, 0x8C - 256, -1, 0x100FF4F4]


def test_parameters_may_be_structs(machine: Machine) -> None:
    text = kernel(
        1,
        "mov.b64 %l4, q; ld.param.v2.u32 {%r4, %r5}, [%l4+8]; ld.param.u8 %r6, [q+3]; add.u32 %r4, %r4, %r6;"
        "st.global.v2.u32 [%a0], {%r4, %r5};",
    ).replace("(.param .u64 p0)", "(.param .u64 p0, .param .align 8 .b8 q[16])")
    struct = np.array((0x07000000, 0, 5, 6), "u4,u4,u4,u4")
    assert machine.run(text, words(2), struct[()], threads=1)[0].tolist() == [12, 6]


def test_constants_of_a_module_are_read(machine: Machine) -> None:
    declarations = ".const .align 4 .b32 table[3] = {7, 8, 9}; .global .align 4 .u32 count = 5;"
    body = "ld.const.u32 %r4, [table+4]; atom.global.add.u32 %r5, [count], 1; st.global.v2.u32 [%a0], {%r4, %r5};"
    assert machine.run(kernel(1, body, declarations), words(2), threads=1)[0].tolist() == [8, 5]


def test_what_nobody_wrote_is_garbage(machine: Machine) -> None:
    body = (
        SHARED
        + "mul.lo.u32 %r4, %r0, 4; mov.u32 %r5, s; add.u32 %r5, %r5, %r4; ld.shared.u32 %r6, [%r5];"
        + "st.global.u32 [%l1], %r6;"
    )
    text = kernel(1, WHO + body)
    (first,) = machine.run(text, words(64), blocks=2, order=("random", 1))
    (second,) = machine.run(text, words(64), blocks=2, order=("random", 2))
    assert len({*first[:32]} | {*first[32:]}) > 60
    assert (first != second).mean() > 0.9


@pytest.mark.parametrize(
    ("body", "report"),
    [
        ("ld.global.u32 %r4, [%l1+4];", r"out of bounds: 4 bytes at 0x\w+; byte 128 of buffer \d+, which has 128"),
        ("st.global.u8 [%a0+128], %r0;", "byte 128 of buffer"),
        ("ld.global.v2.u32 {%r4, %r5}, [%a0+124];", "misaligned: 8 bytes"),
        ("ld.global.v4.u32 {%r4, %r5, %r6, %r7}, [%a0+128];", "out of bounds: 16 bytes"),
        ("ld.global.u32 %r4, [%a0+2];", "misaligned: 4 bytes"),
        ("ld.global.u32 %r4, [%a0+-4];", "out of bounds"),
        ("mov.u64 %l4, 0; ld.global.u32 %r4, [%l4];", "out of bounds: 4 bytes at 0x0"),
        ("ld.shared.u32 %r4, [s+128];", "4 bytes at byte 128 of shared memory, which has 128"),
        ("ld.shared.u8 %r4, [s+-1];", "of shared memory"),
        ("mov.u64 %l4, s; cvta.shared.u64 %l4, %l4; st.u32 [%l4+128], %r0;", "of shared memory"),
        ("ld.param.u32 %r4, [p0+8];", "4 bytes at byte 8 of the parameters, which has 8"),
        ("atom.global.add.u32 %r4, [%a0+126], 1;", "misaligned"),
    ],
)
def test_accesses_are_checked_to_the_byte(machine: Machine, body: str, report: str) -> None:
    with pytest.raises(PtxError, match=report):
        machine.run(kernel(1, SHARED + WHO + body), words())


ATOMICS: dict[str, Callable[[NDArray[np.uint32]], Any]] = {
    "add.u32": lambda x: x.sum(),
    "min.s32": lambda x: x.view(np.int32).min(),
    "min.u32": np.min,
    "max.s32": lambda x: x.view(np.int32).max(),
    "max.u32": np.max,
    "and.b32": np.bitwise_and.reduce,
    "or.b32": np.bitwise_or.reduce,
    "xor.b32": np.bitwise_xor.reduce,
}


@pytest.mark.parametrize("order", [("forward", 0), *RANDOM[:2]])
@pytest.mark.parametrize("space", ["global", "shared", "generic"])
@pytest.mark.parametrize("operation", list(ATOMICS))
def test_atomics_of_all_lanes_count(machine: Machine, operation: str, space: str, order: tuple[str, int]) -> None:
    numbers = np.random.default_rng(0).integers(0, 2**32, 64, np.uint32)
    place = {
        "global": "mov.u64 %l4, %a1;",
        "shared": "mov.u64 %l4, s;",
        "generic": "mov.u64 %l4, s; cvta.shared.u64 %l4, %l4;",
    }[space]
    dot = "" if space == "generic" else "." + space
    body = f"""{SHARED} {place} ld.global.u32 %r4, [%l1]; setp.ne.u32 %p0, %r0, 0;
@!%p0 st{dot}.u32 [%l4], %r4; bar.sync 0;
@%p0 atom{dot}.{operation} %r5, [%l4], %r4; bar.sync 0; @!%p0 ld{dot}.u32 %r5, [%l4]; @!%p0 st.global.u32 [%a1], %r5;"""
    _, got = machine.run(kernel(2, WHO + body), numbers, words(1), threads=64, order=order)
    assert got[0] == np.asarray(ATOMICS[operation](numbers)).astype(np.uint32)


@pytest.mark.parametrize("order", ORDERS)
def test_atomics_give_what_was_there(machine: Machine, order: tuple[str, int]) -> None:
    text = kernel(
        2, WHO + "atom.global.inc.u32 %r4, [%a0], 20; st.global.u32 [%l2], %r4; red.global.add.f32 [%a0+4], 0f3F000000;"
    )
    memory, tickets = machine.run(text, words(2), words(64), threads=32, blocks=2, order=order)
    assert sorted(tickets.tolist()) == sorted([*range(21), *range(21), *range(21), 0])
    assert memory[1].view(np.float32) == 32
    text = kernel(2, WHO + "atom.global.cas.b32 %r4, [%a0], 7, %r3; st.global.u32 [%l2], %r4;")
    memory, before = machine.run(text, words(1, 7), words(64), threads=32, blocks=2, order=order)
    (winner,) = np.flatnonzero(before == 7)
    assert memory[0] == winner
    assert (np.delete(before, winner) == winner).all()


# --- Refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "report"),
    [
        (kernel(0, "add.s32 %r0, %r1, %r2; wgmma.fence.sync.aligned;"), "wgmma.fence.sync.aligned: unknown opcode"),
        (kernel(0, "add.cc.s32 %r0, %r1, %r2;"), "add.cc.s32: unknown opcode"),
        (kernel(0, "add.s64 %l0, %r1, %l2;"), "%r1 has 32 bits, not 64"),
        (kernel(0, "add.s32 %r0, %r1;"), "too few operands"),
        (kernel(0, "bar.sync 1;"), "a barrier other than number 0"),
        (kernel(0, "bar.sync 0, 64;"), "too many operands"),
        (kernel(0, "bra $nowhere;"), "there is no label"),
        (kernel(0, "mov.u32 %r0, nothing;"), "there is no nothing"),
        (kernel(0, "mov.u32 %r0, %pm0;"), "unknown special register %pm0"),
        (".func f() { ret; }", "functions .* are not supported"),
    ],
)
def test_what_the_machine_does_not_know_is_named(machine: Machine, text: str, report: str) -> None:
    with pytest.raises(PtxError, match=report):
        machine.run(text)


# --- Races ------------------------------------------------------------------------------------------------------------

# Even lanes meet, and odd ones.
HALVES = """and.b32 %r8, %r0, 1; setp.eq.u32 %p0, %r8, 0; selp.b32 %r8, 0x55555555, 0xAAAAAAAA, %p0;
bar.warp.sync %r8;"""
# A lane writes its word of shared memory, then reads that of lane `other`.
STAGED = (
    SHARED.replace("128", "256")
    + WHO
    + """mov.u32 %r5, s; mad.lo.u32 %r4, %r0, 4, %r5; st.shared.u32 [%r4], %r0; {between}
xor.b32 %r6, %r0, {other}; mad.lo.u32 %r6, %r6, 4, %r5; ld.shared.u32 %r7, [%r6]; st.global.u32 [%l1], %r7;"""
)


@pytest.mark.parametrize("order", [("forward", 0), ("reverse", 0), *RANDOM[:3]])
@pytest.mark.parametrize(
    ("between", "other", "races"),
    [
        ("", 0, False),  # its own
        ("", 1, True),
        ("", 32, True),
        ("bar.warp.sync -1;", 1, False),
        ("bar.warp.sync -1;", 32, True),
        ("bar.sync 0;", 32, False),
        ("shfl.sync.idx.b32 %r8, %r0, 0, 31, -1;", 1, True),  # orders no memory
        (HALVES, 2, False),
        (HALVES, 1, True),
    ],
)
def test_only_what_orders_memory_prevents_a_race(
    machine: Machine, between: str, other: int, races: bool, order: tuple[str, int]
) -> None:
    text = kernel(1, STAGED.format(between=between, other=other))
    if races:
        with pytest.raises(PtxError, match=r"race: it (?:reads|writes) what was"):
            machine.run(text, words(64), threads=64, order=order)
    else:
        (got,) = machine.run(text, words(64), threads=64, order=order)
        assert (got == np.arange(64) ^ other).all()


def test_bytes_of_one_word_do_not_race_but_the_word_and_a_byte_do(machine: Machine) -> None:
    body = "cvt.u64.u32 %l4, %r0; add.s64 %l4, %a0, %l4; "
    (got,) = machine.run(kernel(1, WHO + body + "st.global.u8 [%l4], %r0;"), words(8))
    assert (got.view(np.uint8) == LANES).all()
    with pytest.raises(PtxError, match="race"):
        machine.run(kernel(1, WHO + body + "st.global.u8 [%l4], %r0; ld.global.u32 %r4, [%a0];"), words(8))
    with pytest.raises(PtxError, match="race: it writes what was read"):
        machine.run(
            kernel(1, WHO + "ld.global.u32 %r4, [%a0]; setp.eq.u32 %p0, %r0, 3; @%p0 st.global.u8 [%a0+1], %r0;"),
            words(8),
        )


def test_a_non_coherent_load_of_what_the_launch_writes_is_a_fault(machine: Machine) -> None:
    text = kernel(1, WHO + "st.global.u32 [%l1], %r0; ld.global.nc.u32 %r4, [%l1];")
    with pytest.raises(PtxError, match=r"ld\.global\.nc of what thread"):
        machine.run(text, words())


@pytest.mark.parametrize("order", RANDOM)
def test_launches_are_ordered(machine: Machine, order: tuple[str, int]) -> None:
    text = kernel(
        2,
        WHO + "ld.global.u32 %r4, [%l1]; xor.b32 %r5, %r3, 1; mad.wide.u32 %l4, %r5, 4, %a1; st.global.u32 [%l4], %r4;",
    )
    first = machine.run(text, np.arange(64, dtype=np.uint32), words(64), blocks=2, order=order)[1]
    assert (first == np.arange(64) ^ 1).all()


# Block 0 writes a datum and raises a flag, block 1 waits for the flag and reads the datum; threads=1.
PASSING = (
    WHO
    + """setp.eq.u32 %p0, %r1, 0; @%p0 bra $first;
$wait: {take} setp.eq.u32 %p1, %r4, 0; @%p1 bra $wait;
{then} ld.{read} %r5, [%a0]; st.global.u32 [%a1+4], %r5; bra.uni $end;
$first: st.{write} [%a0], 42; {before} {give}
$end:"""
)
ACQUIRE, RELAXED = "ld.acquire.gpu.global.u32 %r4, [%a1];", "ld.relaxed.gpu.global.u32 %r4, [%a1];"
VOLATILE, UPDATE = "ld.volatile.global.u32 %r4, [%a1];", "atom.acq_rel.gpu.global.or.b32 %r4, [%a1], 0;"
RELEASE, RAISE = "red.release.gpu.global.add.u32 [%a1], 1;", "red.relaxed.gpu.global.add.u32 [%a1], 1;"
COUNT = "atom.global.add.u32 %r6, [%a1], 1;"
PAIRS = [
    # take, then, before, give, whether that orders the two
    (ACQUIRE, "", "", RELEASE, True),
    (ACQUIRE, "", "", "st.release.gpu.global.u32 [%a1], 1;", True),
    ("ld.acquire.sys.global.u32 %r4, [%a1];", "", "", "st.release.sys.global.u32 [%a1], 1;", True),
    (VOLATILE, "membar.gl;", "membar.gl;", COUNT, True),
    (VOLATILE, "membar.gl;", "membar.gl;", "st.volatile.global.u32 [%a1], 1;", True),
    (RELAXED, "fence.acq_rel.gpu;", "", RELEASE, True),
    (UPDATE, "", "fence.acq_rel.gpu;", RAISE, True),
    (ACQUIRE, "", "", RAISE, False),
    (RELAXED, "", "", RELEASE, False),
    (VOLATILE, "", "membar.gl;", COUNT, False),
    (VOLATILE, "membar.gl;", "", COUNT, False),
    (VOLATILE, "membar.cta;", "membar.gl;", COUNT, False),
    (VOLATILE, "membar.gl;", "membar.cta;", COUNT, False),
]


def passing(pair: tuple[Any, ...], write: str, read: str) -> str:
    take, then, before, give, _ = pair
    return kernel(2, PASSING.format(take=take, then=then, before=before, give=give, write=write, read=read))


@pytest.mark.parametrize("pair", PAIRS)
def test_a_release_and_an_acquire_order_plain_accesses_and_less_does_not(
    machine: Machine, pair: tuple[Any, ...]
) -> None:
    text = passing(pair, "global.u32", "global.u32")
    for order in ORDERS:
        if pair[-1]:
            assert machine.run(text, words(1), words(2), blocks=2, threads=1, resident=2, order=order)[1][1] == 42
        else:
            with pytest.raises(PtxError, match="race: it reads what was written"):
                machine.run(text, words(1), words(2), blocks=2, threads=1, resident=2, order=order)


def test_the_scope_of_a_flag_must_reach(machine: Machine) -> None:
    pair = ("ld.acquire.cta.global.u32 %r4, [%a1];", "", "", "st.release.cta.global.u32 [%a1], 1;", False)
    with pytest.raises(PtxError, match="race"):
        machine.run(passing(pair, "global.u32", "global.u32"), words(1), words(2), blocks=2, threads=1, resident=2)


# --- Weak memory: relaxed accesses never race, so only values tell --------------------------------------------------

SEEDS = [("random", seed) for seed in range(60)]
STRONG = "relaxed.gpu.global.u32"


@pytest.mark.parametrize("pair", PAIRS)
def test_relaxed_accesses_pass_one_another_unless_ordered(machine: Machine, pair: tuple[Any, ...]) -> None:
    text = passing(pair, STRONG, STRONG)
    run: dict[str, Any] = {"blocks": 2, "threads": 1, "resident": 2}
    stale = sum(machine.run(text, words(1), words(2), order=order, **run)[1][1] == 0 for order in SEEDS)
    assert (stale == 0) if pair[-1] else (stale > 3)
    assert all(machine.run(text, words(1), words(2), order=order, weak=0, **run)[1][1] == 42 for order in SEEDS[:5])


def both_miss(machine: Machine, between: str) -> int:
    """Each of two threads stores its word and loads the other's: how often neither sees the other."""
    body = f"""mad.wide.u32 %l4, %r1, 4, %a0; xor.b32 %r4, %r1, 1; mad.wide.u32 %l5, %r4, 4, %a0;
st.{STRONG} [%l4], 1; {between} ld.{STRONG} %r5, [%l5]; mad.wide.u32 %l6, %r1, 4, %a1; st.global.u32 [%l6], %r5;"""
    text = kernel(2, WHO + body)
    seen = [machine.run(text, words(2), words(2), blocks=2, threads=1, resident=2, order=order)[1] for order in SEEDS]
    return sum(not row.any() for row in seen)


def test_a_store_is_held_back_behind_a_load_unless_a_sequential_fence_lies_between(machine: Machine) -> None:
    assert both_miss(machine, "") > 3
    assert both_miss(machine, "fence.acq_rel.gpu;") > 3
    assert both_miss(machine, "fence.sc.gpu;") == 0
    assert both_miss(machine, "membar.gl;") == 0


def test_loads_of_one_location_never_go_back(machine: Machine) -> None:
    writer = "".join(f"st.{STRONG} [%a0], {i};" for i in range(1, 9))
    reader = "".join(f"ld.{STRONG} %r{10 + i}, [%a0]; st.global.u32 [%a1+{4 * i}], %r{10 + i};" for i in range(8))
    text = kernel(2, WHO + f"setp.eq.u32 %p0, %r1, 0; @%p0 bra $w; {reader} bra.uni $e; $w: {writer} $e:")
    rows = [machine.run(text, words(1), words(8), blocks=2, threads=1, resident=2, order=order)[1] for order in SEEDS]
    assert all((np.diff(row.astype(int)) >= 0).all() for row in rows)
    assert any(0 < row[3] < row[7] for row in rows)


def test_an_update_takes_the_latest_value_whatever_its_order(machine: Machine) -> None:
    text = kernel(1, WHO + "red.relaxed.gpu.global.add.u32 [%a0], 1;")
    for order in SEEDS[:10]:
        assert machine.run(text, words(1), blocks=4, order=order)[0][0] == 128
