"""Each class of instructions against NumPy, to the bit, on numbers that include every edge."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tools.ptxsim import Machine, evaluate

Array = NDArray[Any]
Make = Callable[..., Any]


@pytest.fixture(scope="module")
def machine() -> Machine:
    """The interpreter."""
    return Machine()


@pytest.fixture(autouse=True)
def _edges_are_meant() -> Iterator[None]:
    """Overflow and NaN are the point here."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of casts out of range
        yield


def numbers(dtype: str, seed: int) -> Array:
    """Edges against edges, then anything."""
    rng, kind = np.random.default_rng(seed), np.dtype(dtype)
    if kind.kind == "f":
        info = np.finfo(kind)
        edges = [
            0,
            -0.0,
            1,
            -1,
            0.5,
            1.5,
            2.5,
            -2.5,
            np.inf,
            -np.inf,
            np.nan,
            info.max,
            info.tiny,
            info.tiny / 4,
            1 / 3,
        ]
        bits = rng.integers(0, 2 ** (8 * kind.itemsize), 100, np.uint64).astype(f"u{kind.itemsize}").view(kind)
        return np.concatenate([np.array(edges, kind), bits, rng.normal(0, 100, 141).astype(kind)])
    info = np.iinfo(kind)
    edges = [0, 1, 2, 3, 31, 32, 33, info.max, info.max - 1, info.max // 2, info.min, info.min + 1]
    return np.concatenate([np.array(edges, kind), rng.integers(info.min, info.max, 244, kind, endpoint=True)])


def crossed(dtype: str) -> tuple[Array, Array]:
    """Each of 16 edges with each, and more."""
    x, y = numbers(dtype, 1), numbers(dtype, 2)
    return np.concatenate([np.repeat(x[:16], 16), x]), np.concatenate([np.tile(x[:16], 16), y])


def assert_bits(got: Array, wanted: Array) -> None:
    """Equal to the bit; one NaN is as good as another."""
    assert got.dtype == wanted.dtype
    if got.dtype.kind == "f":
        assert (np.isnan(got) == np.isnan(wanted)).all()
        got, wanted = (np.where(np.isnan(x), x.dtype.type(0), x) for x in (got, wanted))
    unsigned = f"u{got.itemsize}"
    assert (got.view(unsigned) == wanted.view(unsigned)).all()


def check(machine: Machine, instruction: str, make: Make, *sources: Array, result: str | None = None) -> None:
    wanted = np.asarray(make(*sources))
    dtype = np.dtype(result) if result is not None else sources[0].dtype
    assert_bits(evaluate(machine, instruction, dtype, *sources), wanted.astype(dtype))


# --- Integers ---------------------------------------------------------------------------------------------------------

INTEGERS = {"u2": "u16", "i2": "s16", "u4": "u32", "i4": "s32", "u8": "u64", "i8": "s64"}


def divided(a: Array, b: Array) -> Array:
    """Towards 0; by 0 gives ones in all bits."""
    result = [
        ~0 if y == 0 else abs(int(x)) // abs(int(y)) * (-1 if (x < 0) != (y < 0) else 1)
        for x, y in zip(a, b, strict=True)
    ]
    return wrapped(result, a.dtype)


def remaining(a: Array, b: Array) -> Array:
    """With the sign of the dividend."""
    result = [int(x) if y == 0 else abs(int(x)) % abs(int(y)) * (-1 if x < 0 else 1) for x, y in zip(a, b, strict=True)]
    return wrapped(result, a.dtype)


def wrapped(values: list[int], dtype: Any) -> Array:
    """Python's integers modulo the type's range."""
    bits = 8 * np.dtype(dtype).itemsize
    return np.array([v % 2**bits for v in values], f"u{bits // 8}").view(dtype)


def exact(operation: Callable[..., int]) -> Make:
    """An operation on Python's integers, wrapped to the first argument's type."""
    return lambda *a: wrapped([operation(*map(int, row)) for row in zip(*a, strict=True)], a[0].dtype)


@pytest.mark.parametrize("dtype", list(INTEGERS))
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("add", exact(lambda x, y: x + y)),
        ("sub", exact(lambda x, y: x - y)),
        ("mul.lo", exact(lambda x, y: x * y)),
        ("div", divided),
        ("rem", remaining),
        ("min", np.minimum),
        ("max", np.maximum),
    ],
)
def test_integer_arithmetic_wraps_and_divides_towards_zero(machine: Machine, name: str, dtype: str, make: Make) -> None:
    check(machine, f"{name}.{INTEGERS[dtype]} {{d}}, {{a}}, {{b}}", make, *crossed(dtype))


@pytest.mark.parametrize("dtype", list(INTEGERS))
def test_products_have_upper_halves_and_wide_results(machine: Machine, dtype: str) -> None:
    a, b = crossed(dtype)
    bits, name = 8 * a.itemsize, INTEGERS[dtype]
    check(machine, f"mul.hi.{name} {{d}}, {{a}}, {{b}}", exact(lambda x, y: x * y >> bits), a, b)
    check(machine, f"mad.lo.{name} {{d}}, {{a}}, {{b}}, {{c}}", exact(lambda x, y, z: x * y + z), a, b, b[::-1].copy())
    if bits < 64:
        wide = f"{dtype[0]}{2 * a.itemsize}"
        product: Make = lambda x, y: x.astype(wide) * y.astype(wide)  # noqa: E731
        check(machine, f"mul.wide.{name} {{d}}, {{a}}, {{b}}", product, a, b, result=wide)
        c = numbers(wide, 3).repeat(2)[: len(a)]
        c = np.resize(c, len(a))
        check(
            machine,
            f"mad.wide.{name} {{d}}, {{a}}, {{b}}, {{c}}",
            lambda x, y, z: product(x, y) + z,
            a,
            b,
            c,
            result=wide,
        )


@pytest.mark.parametrize("dtype", ["i2", "i4", "i8"])
def test_signs_are_changed_and_dropped(machine: Machine, dtype: str) -> None:
    a = numbers(dtype, 0)
    check(machine, f"neg.{INTEGERS[dtype]} {{d}}, {{a}}", exact(lambda x: -x), a)
    check(machine, f"abs.{INTEGERS[dtype]} {{d}}, {{a}}", exact(abs), a)


@pytest.mark.parametrize("dtype", ["u2", "u4", "u8"])
def test_bits_are_combined(machine: Machine, dtype: str) -> None:
    a, b = crossed(dtype)
    name = f"b{8 * a.itemsize}"
    check(machine, f"and.{name} {{d}}, {{a}}, {{b}}", np.bitwise_and, a, b)
    check(machine, f"or.{name} {{d}}, {{a}}, {{b}}", np.bitwise_or, a, b)
    check(machine, f"xor.{name} {{d}}, {{a}}, {{b}}", np.bitwise_xor, a, b)
    check(machine, f"not.{name} {{d}}, {{a}}", np.invert, a)


@pytest.mark.parametrize("dtype", list(INTEGERS))
def test_shifts_are_clamped(machine: Machine, dtype: str) -> None:
    a = np.repeat(numbers(dtype, 0)[:40], 8)
    bits = 8 * a.itemsize
    n = np.tile(np.array([0, 1, 7, bits - 1, bits, bits + 1, 255, 2**32 - 1], np.uint32), 40)
    check(machine, f"shl.b{bits} {{d}}, {{a}}, {{b}}", exact(lambda x, y: x << min(y, bits)), a, n)
    check(machine, f"shr.{INTEGERS[dtype]} {{d}}, {{a}}, {{b}}", exact(lambda x, y: x >> min(y, bits)), a, n)


@pytest.mark.parametrize("dtype", ["u4", "u8"])
def test_bits_are_counted_found_and_reversed(machine: Machine, dtype: str) -> None:
    a = numbers(dtype, 0) >> (np.arange(256) % (8 * np.dtype(dtype).itemsize)).astype(dtype)
    bits = 8 * a.itemsize
    check(machine, f"popc.b{bits} {{d}}, {{a}}", lambda x: [int(v).bit_count() for v in x], a, result="u4")
    check(machine, f"clz.b{bits} {{d}}, {{a}}", lambda x: [bits - int(v).bit_length() for v in x], a, result="u4")
    check(machine, f"brev.b{bits} {{d}}, {{a}}", exact(lambda v: int(f"{v:0{bits}b}"[::-1], 2)), a)
    for signed, name in ((False, "u"), (True, "s")):
        values = [int(v) for v in (a.view(f"i{bits // 8}") if signed else a)]
        top = [(v if v >= 0 else ~v).bit_length() - 1 for v in values]
        from_top = [-1 if t < 0 else bits - 1 - t for t in top]
        check(machine, f"bfind.{name}{bits} {{d}}, {{a}}", lambda _, t=top: np.array(t), a, result="i4")
        check(machine, f"bfind.shiftamt.{name}{bits} {{d}}, {{a}}", lambda _, t=from_top: np.array(t), a, result="i4")


@pytest.mark.parametrize("dtype", ["u4", "u8"])
@pytest.mark.parametrize(("start", "length"), [(0, 0), (0, 5), (7, 9), (20, 31), (31, 1), (0, 64), (40, 3)])
def test_fields_are_taken_and_put(machine: Machine, dtype: str, start: int, length: int) -> None:
    a, b = numbers(dtype, 0), numbers(dtype, 1)
    bits = 8 * a.itemsize
    field = ((1 << min(length, bits)) - 1) << start & (1 << bits) - 1
    put = exact(lambda x, y: y & ~field | x << start & field)
    check(machine, f"bfi.b{bits} {{d}}, {{a}}, {{b}}, {start}, {length}", put, a, b)
    taken = exact(lambda x: (x >> start) & ((1 << length) - 1))
    check(machine, f"bfe.u{bits} {{d}}, {{a}}, {start}, {length}", taken, a)

    def signed(x: int) -> int:
        if length == 0:
            return 0
        value = x >> start & ((1 << length) - 1)
        # From the top of a field that ends beyond the word on, the word's own sign.
        sign = x >> min(start + length - 1, bits - 1) & 1
        reach = min(length, max(bits - start, 0))
        return value - (1 << reach) if sign else value

    check(
        machine,
        f"bfe.s{bits} {{d}}, {{a}}, {start}, {length}",
        exact(lambda x: signed(x % 2**bits)),
        a.view(f"i{bits // 8}"),
    )


def test_bytes_are_permuted(machine: Machine) -> None:
    a, b, c = (numbers("u4", seed) for seed in range(3))

    def permuted(x: int, y: int, selectors: int) -> int:
        source = (y << 32 | x).to_bytes(8, "little")
        result = 0
        for i in range(4):
            selector = selectors >> 4 * i & 15
            byte = source[selector & 7]
            result |= (byte if selector < 8 else 255 * (byte >> 7)) << 8 * i
        return result

    check(machine, "prmt.b32 {d}, {a}, {b}, {c}", exact(permuted), a, b, c)


def test_words_are_shifted_together_and_combined_by_a_table(machine: Machine) -> None:
    a, b, c = (numbers("u4", seed) for seed in range(3))
    check(machine, "shf.l.wrap.b32 {d}, {a}, {b}, {c}", exact(lambda x, y, n: (y << 32 | x) << n % 32 >> 32), a, b, c)
    check(machine, "shf.r.clamp.b32 {d}, {a}, {b}, {c}", exact(lambda x, y, n: (y << 32 | x) >> min(n, 32)), a, b, c)
    check(machine, "lop3.b32 {d}, {a}, {b}, {c}, 0x96", exact(lambda x, y, z: x ^ y ^ z), a, b, c)
    check(machine, "lop3.b32 {d}, {a}, {b}, {c}, 0xCA", exact(lambda x, y, z: x & y | ~x & z), a, b, c)


# --- Floats -----------------------------------------------------------------------------------------------------------

FLOATS = {"f2": "f16", "f4": "f32", "f8": "f64"}


def smaller(a: Array, b: Array) -> Array:
    """One NaN loses, -0 is less than 0."""
    return np.where((a == 0) & (b == 0), np.where(np.signbit(a), a, b), np.fmin(a, b))


def larger(a: Array, b: Array) -> Array:
    return np.where((a == 0) & (b == 0), np.where(np.signbit(a), b, a), np.fmax(a, b))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("add.rn", np.add),
        ("sub.rn", np.subtract),
        ("mul.rn", np.multiply),
        ("div.rn", np.divide),
        ("min", smaller),
        ("max", larger),
    ],
)
def test_float_arithmetic_is_ieee(machine: Machine, name: str, dtype: str, make: Make) -> None:
    check(machine, f"{name}.{FLOATS[dtype]} {{d}}, {{a}}, {{b}}", make, *crossed(dtype))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_roots_reciprocals_and_signs_are_ieee(machine: Machine, dtype: str) -> None:
    a, name = numbers(dtype, 0), FLOATS[dtype]
    check(machine, f"sqrt.rn.{name} {{d}}, {{a}}", np.sqrt, a)
    check(machine, f"rcp.rn.{name} {{d}}, {{a}}", lambda x: x.dtype.type(1) / x, a)
    check(machine, f"neg.{name} {{d}}, {{a}}", np.negative, a)
    check(machine, f"abs.{name} {{d}}, {{a}}", np.abs, a)


def nearest(value: Fraction) -> np.float32:
    """Rounded once, ties to even."""
    near = np.float32(float(value))
    around = [near, np.nextafter(near, np.float32(-np.inf)), np.nextafter(near, np.float32(np.inf))]
    finite = [x for x in around if np.isfinite(x)]
    return min(finite, key=lambda x: (abs(Fraction(float(x)) - value), int(x.view("u4")) % 2))


def test_fused_products_round_once(machine: Machine) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=1024).astype(np.float32) for _ in range(2))
    c = (-(a.astype("f8") * b) * (1 + rng.choice([0, 1e-9, 1e-3, 1], 1024))).astype(np.float32)

    def fused(*rows: Array) -> list[np.float32]:
        return [nearest(x * y + z) for x, y, z in zip(*([Fraction(float(v)) for v in r] for r in rows), strict=True)]

    check(machine, "fma.rn.f32 {d}, {a}, {b}, {c}", fused, a, b, c)
    x = np.full(32, 1 + 2.0**-30)
    check(machine, "fma.rn.f64 {d}, {a}, {b}, {c}", lambda x, *_: np.full(32, 2.0**-60), x, x, -(x * x))


def test_nan_of_arithmetic_is_canonical(machine: Machine) -> None:
    a = np.array([0x7FC12345, 0xFFC00000, 0x7F800000], np.uint32).view("f4").repeat(32)
    b = np.zeros(96, np.float32)
    got = evaluate(machine, "mul.rn.f32 {d}, {a}, {b}", "f4", a, b)
    assert (got.view("u4") == 0x7FFFFFFF).all()


@pytest.mark.parametrize(("mode", "pick"), [("rm", np.minimum), ("rp", np.maximum), ("rz", None)])
def test_directed_rounding_brackets_the_exact_sum(machine: Machine, mode: str, pick: Make | None) -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=256).astype(np.float32) for _ in range(2))

    def rounded(x: Array, y: Array) -> Array:
        exact_sum = x.astype("f8") + y.astype("f8")
        near = exact_sum.astype("f4")
        other = np.where(
            near.astype("f8") > exact_sum,
            np.nextafter(near, np.float32(-np.inf)),
            np.nextafter(near, np.float32(np.inf)),
        )
        other = np.where(near.astype("f8") == exact_sum, near, other)
        found: Array = np.where(np.abs(near) < np.abs(other), near, other) if pick is None else pick(near, other)
        return found

    check(machine, f"add.{mode}.f32 {{d}}, {{a}}, {{b}}", rounded, a, b)


def test_results_are_saturated_and_subnormals_flushed(machine: Machine) -> None:
    a, b = crossed("f4")
    check(
        machine,
        "add.sat.f32 {d}, {a}, {b}",
        lambda x, y: np.nan_to_num(np.clip(x + y, 0, 1), nan=0) + np.float32(0),
        a,
        b,
    )
    tiny = np.array([1e-40, -1e-40, 1e-38, 2e-38], np.float32).repeat(8)
    check(
        machine,
        "add.ftz.f32 {d}, {a}, {b}",
        lambda x, y: np.where(np.abs(x) < 1.1754944e-38, np.copysign(np.float32(0), x), x),
        tiny,
        tiny * 0,
    )


@pytest.mark.parametrize(
    ("name", "make", "error"),
    [("ex2", np.exp2, 2e-7), ("lg2", np.log2, 2e-6), ("rsqrt", lambda x: 1 / np.sqrt(x), 2e-7), ("sin", np.sin, 1e-6)],
)
def test_approximate_functions_are_near(machine: Machine, name: str, make: Make, error: float) -> None:
    a = np.random.default_rng(0).uniform(0.1, 3, 256).astype(np.float32)
    got = evaluate(machine, f"{name}.approx.f32 {{d}}, {{a}}", "f4", a)
    assert np.abs(got - make(a.astype("f8"))).max() <= error * 8


def test_half_precision_rounds_once(machine: Machine) -> None:
    a, b = crossed("f2")
    check(machine, "add.f16 {d}, {a}, {b}", np.add, a, b)
    check(machine, "mul.f16 {d}, {a}, {b}", np.multiply, a, b)
    pairs = [np.stack([x, x[::-1]], 1).copy().view("u4").ravel() for x in (a, b)]
    wanted: Make = lambda x, y: (x.view("f2") + y.view("f2")).view("u4")  # noqa: E731
    keep = ~np.isnan((pairs[0].view("f2") + pairs[1].view("f2")).reshape(-1, 2)).any(1)
    check(machine, "add.f16x2 {d}, {a}, {b}", wanted, pairs[0][keep], pairs[1][keep])


# --- Conversions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", list(INTEGERS))
@pytest.mark.parametrize("source", list(INTEGERS))
def test_integers_are_cut_and_extended(machine: Machine, source: str, to: str) -> None:
    a = numbers(source, 0)
    check(machine, f"cvt.{INTEGERS[to]}.{INTEGERS[source]} {{d}}, {{a}}", lambda x: x.astype(to), a, result=to)


@pytest.mark.parametrize("source", ["f2", "f4", "f8"])
@pytest.mark.parametrize("to", ["i4", "u4", "i8", "u8", "i2"])
@pytest.mark.parametrize(
    ("mode", "rounded"), [("rzi", np.trunc), ("rni", np.rint), ("rmi", np.floor), ("rpi", np.ceil)]
)
def test_floats_become_integers_by_their_rounding_and_saturate(
    machine: Machine, source: str, to: str, mode: str, rounded: Make
) -> None:
    a, info = numbers(source, 0), np.iinfo(to)
    odd = 2 ** (8 * info.dtype.itemsize - 1) if "8" in source + to else 0  # what a NaN becomes

    def converted(x: Array) -> Array:
        whole = [float(v) for v in rounded(x.astype("f8"))]
        clipped = [odd if v != v else max(info.min, min(info.max, v)) for v in whole]
        return wrapped([int(v) for v in clipped], to)

    check(machine, f"cvt.{mode}.{INTEGERS[to]}.{FLOATS[source]} {{d}}, {{a}}", converted, a, result=to)


@pytest.mark.parametrize("source", list(INTEGERS))
@pytest.mark.parametrize("to", ["f4", "f8"])
def test_integers_become_the_nearest_float(machine: Machine, source: str, to: str) -> None:
    a = numbers(source, 0)
    check(machine, f"cvt.rn.{FLOATS[to]}.{INTEGERS[source]} {{d}}, {{a}}", lambda x: x.astype(to), a, result=to)


def test_floats_become_other_floats(machine: Machine) -> None:
    every = np.arange(65536, dtype=np.uint16).view("f2")
    check(machine, "cvt.f32.f16 {d}, {a}", lambda x: x.astype("f4"), every, result="f4")
    between = np.concatenate([every.astype("f4"), np.nextafter(every.astype("f4"), np.float32(9)), numbers("f4", 0)])
    ties = (every[:-1].astype("f4") + every[1:].astype("f4")) / 2
    for a in (between, ties):
        check(machine, "cvt.rn.f16.f32 {d}, {a}", lambda x: x.astype("f2"), a, result="f2")
    check(machine, "cvt.rn.f32.f64 {d}, {a}", lambda x: x.astype("f4"), numbers("f8", 0), result="f4")
    check(machine, "cvt.f64.f32 {d}, {a}", lambda x: x.astype("f8"), numbers("f4", 0), result="f8")
    check(machine, "cvt.rmi.f32.f32 {d}, {a}", np.floor, numbers("f4", 0))
    check(
        machine,
        "cvt.sat.f32.f32 {d}, {a}",
        lambda x: np.nan_to_num(np.clip(x, 0, 1), nan=0) + np.float32(0),
        numbers("f4", 0),
    )
    a, b = numbers("f4", 0), numbers("f4", 1)
    keep = ~(np.isnan(a) | np.isnan(b))
    halves: Make = lambda x, y: np.stack([y, x], 1).astype("f2").view("u4").ravel()  # noqa: E731
    check(machine, "cvt.rn.f16x2.f32 {d}, {a}, {b}", halves, a[keep], b[keep], result="u4")


def test_words_are_packed_and_unpacked(machine: Machine) -> None:
    a, b = numbers("u4", 0), numbers("u4", 1)
    check(
        machine,
        "mov.b64 {d}, {{{a}, {b}}}",
        lambda x, y: x.astype("u8") | y.astype("u8") << np.uint64(32),
        a,
        b,
        result="u8",
    )
    check(machine, "mov.b64 {{_, {d}}}, {a}", lambda x: x >> np.uint64(32), numbers("u8", 0), result="u4")
    check(machine, "mov.b32 {{{d}, _}}, {a}", lambda x: x & 0xFFFF, a, result="u2")
    check(machine, "mov.b32 {d}, {a}", lambda x: x.view("u4"), numbers("f4", 0), result="u4")


# --- Comparisons ------------------------------------------------------------------------------------------------------

COMPARES = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}


@pytest.mark.parametrize("dtype", [*INTEGERS, "f4", "f8"])
@pytest.mark.parametrize("name", list(COMPARES))
def test_comparisons_choose(machine: Machine, name: str, dtype: str) -> None:
    a, b = crossed(dtype)
    b = np.where(np.arange(len(b)) % 3 == 0, a, b)
    kind = (INTEGERS | FLOATS)[dtype]
    choose = "selp.b32 {{d}}, 1, 0, %p1"
    holds = COMPARES[name](a, b)
    if dtype[0] == "f":
        holds &= ~(np.isnan(a) | np.isnan(b))
        unordered = holds | np.isnan(a) | np.isnan(b)
        text = f"setp.{name}u.{kind} %p1, {{a}}, {{b}}; {choose}".replace("{{d}}", "{d}")
        check(machine, text, lambda *_: unordered, a, b, result="u4")
    text = f"setp.{name}.{kind} %p1, {{a}}, {{b}}; {choose}".replace("{{d}}", "{d}")
    check(machine, text, lambda *_: holds, a, b, result="u4")


def test_predicates_are_combined(machine: Machine) -> None:
    a, b = crossed("i4")
    text = """setp.lt.s32 %p1, {a}, 0; setp.gt.and.s32 %p2|%p3, {b}, 5, !%p1; not.pred %p4, %p2; xor.pred %p5, %p3, %p4;
      or.pred %p5, %p5, %p1; mov.pred %p6, -1; and.pred %p6, %p6, %p5; selp.b32 {d}, 1, 0, %p6
      ; @!%p2 add.s32 {d}, {d}, 2"""
    first, second = (b > 5) & (a >= 0), ~(b > 5) & (a >= 0)
    wanted = ((second ^ ~first) | (a < 0)).astype(np.uint32) + 2 * ~first
    check(machine, text, lambda *_: wanted, a, b, result="u4")
