"""Procedural textures.

Shapes: H rows, W columns. A texture is (H, W, 3) float32 RGB in 0..1, row 0 at the top. `surface` textures repeat
    without a
seam; labels and covers do not. All randomness comes from the generator that is passed in.
"""

import itertools
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Texture = NDArray[np.float32]  # (H, W, 3) RGB, 0..1
Plane = NDArray[np.float32]  # (H, W)
Color = tuple[float, float, float]
Rng = np.random.Generator


def rgb(code: str) -> Color:
    """A colour written as six hexadecimal digits."""
    return int(code[0:2], 16) / 255, int(code[2:4], 16) / 255, int(code[4:6], 16) / 255


def palette(codes: str) -> tuple[Color, ...]:
    """Colours from their codes, separated by spaces."""
    return tuple(rgb(code) for code in codes.split())


GLAZES = palette(
    "f2efe6 e8dcc8 2f4858 3f6c73 7a9e9f c8553d d98e73 8a9a5b e0a458 4a4e69 9a8c98 f4f1de 5f0f40 264653 b5c9c3 1d1f21"
)
COVERS = palette(
    "1f3a5f 7b2d26 2d4739 c9a227 4b3f72 d9d0c1 b7472a 3c6e71 8d99ae 14213d 6b705c a44a3f e5e1d8 355070 b56576 222222"
)
LABELS = palette(
    "c1121f 003049 2a9d8f e9c46a f4a261 e76f51 386641 6a4c93 1982c4 f1faee ff8c42 5a189a 0f4c5c d62828 f7b801 99582a"
)
WALLS = palette("efeae0 e4dfd3 d6d9d2 c9d3d4 dcd0c0 b9c4b4 c7b8a8 a9b7c0 e9ddd0 cfc6d0 8fa3ad d8b89a f3f1ec b5aa9a")
WOODS = palette("b98d5f a4754a 8a5a36 c9a578 6b4226 d8bd95 9c7a54 54352a")
RUGS = palette("7d2e2e 27405f c8b694 40584a b5653a 6f5b7b d7cbb0 2e2e38 a3504b 5b7f8c 8f8a5a c9974e e6dfd0")
CARTONS = palette("b98e60 c79f72 a87c50")
PAPERS = palette("f4efe2 efe6d0 f7f5ef")


def noise(rng: Rng, shape: tuple[int, int], cells: tuple[int, int]) -> Plane:
    """Smooth value noise in -1..1 that repeats without a seam; `cells` are the random values down and across."""
    height, width = shape
    down, across = min(cells[0], height), min(cells[1], width)
    values = rng.uniform(-1, 1, (down, across)).astype(np.float32)
    padded = np.pad(values, 3, mode="wrap")
    scale_y, scale_x = height / down, width / across
    y = (np.arange(height, dtype=np.float32) + 0.5) / scale_y + 2.5
    x = (np.arange(width, dtype=np.float32) + 0.5) / scale_x + 2.5
    map_x, map_y = np.meshgrid(x, y)
    return np.asarray(cv2.remap(padded, map_x, map_y, cv2.INTER_CUBIC), np.float32)


def fractal(rng: Rng, shape: tuple[int, int], cells: tuple[int, int], octaves: int = 4) -> Plane:
    """Octaves of `noise`, each twice as fine and half as strong, in about -1..1."""
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        total += noise(rng, shape, (cells[0] << octave, cells[1] << octave)) * np.float32(0.5**octave)
    total *= np.float32(0.6)
    return total


def plain(color: Color, shape: tuple[int, int] = (64, 64)) -> Texture:
    """Return a texture of one colour."""
    return np.full((*shape, 3), color, np.float32)


def shade(color: Color, amount: Plane) -> Texture:
    """`color` made lighter or darker by `amount`, where 0.1 is 10 %."""
    return np.asarray(np.clip(np.asarray(color, np.float32) * (1 + amount[..., None]), 0, 1), np.float32)


def mix(a: Texture, b: Texture | Color, weight: Plane) -> Texture:
    """`a` where `weight` is 0, `b` where it is 1."""
    other = np.asarray(b, np.float32)
    return (a + (other - a) * weight[..., None]).astype(np.float32)


def pick(rng: Rng, colors: Sequence[Color]) -> Color:
    """Return one of `colors`, a little lighter or darker."""
    red, green, blue = colors[int(rng.integers(len(colors)))]
    gain = float(rng.uniform(0.9, 1.08))
    return min(1.0, red * gain), min(1.0, green * gain), min(1.0, blue * gain)


def pick_two(rng: Rng, colors: Sequence[Color]) -> tuple[Color, Color]:
    """Two colours that differ visibly."""
    first = pick(rng, colors)
    ranked = sorted(colors, key=lambda c: abs(_luma(c) - _luma(first)))
    return first, pick(rng, ranked[len(ranked) // 2 :])


# Surfaces


def wood(rng: Rng, color: Color, size: int = 256) -> Texture:
    """Grain along the columns (u)."""
    grain = fractal(rng, (size, size), (20, 1), 4)
    turns = np.linspace(0, 2 * np.pi, size, dtype=np.float32)[:, None]
    rings = np.sin((fractal(rng, (size, size), (3, 1), 3) * 5 + turns) * 6)
    pores = noise(rng, (size, size), (size // 2, 6))
    return shade(color, np.asarray(0.12 * grain + 0.05 * rings - 0.05 * np.maximum(pores, 0), np.float32))


def planks(rng: Rng, color: Color, size: int = 512, rows: int = 6) -> Texture:
    """A boarded floor: `rows` boards down, their joints staggered."""
    out = np.empty((size, size, 3), np.float32)
    boards = [wood(rng, color, 256) for _ in range(3)]
    edges = np.linspace(0, size, rows + 1).astype(int)
    for top, bottom in itertools.pairwise(edges):
        joint = int(rng.integers(size))
        for start, stop in ((0, size // 2), (size // 2, size)):
            board = boards[int(rng.integers(3))]
            row = int(rng.integers(256 - (bottom - top)))
            piece = board[row : row + bottom - top, : stop - start] * np.float32(rng.uniform(0.86, 1.1))
            columns = (np.arange(start, stop) + joint) % size
            out[top:bottom, columns] = piece
            out[top:bottom, columns[:2]] *= 0.6
        out[top : top + 2] *= 0.62
    return np.clip(out, 0, 1)


def tiles(rng: Rng, color: Color, grout: Color, size: int = 512, count: int = 4) -> Texture:
    """Square tiles, each a little different, with soft edges."""
    step = size // count
    tint = np.kron(rng.uniform(-0.06, 0.06, (count, count)), np.ones((step, step))).astype(np.float32)
    out = shade(color, tint + 0.05 * fractal(rng, (size, size), (8, 8), 4))
    axis = np.abs((np.arange(size) % step) - (step - 1) / 2) / (step / 2)
    edge = np.maximum(axis[:, None], axis[None])
    line = np.clip((edge - 0.962) / 0.015, 0, 1).astype(np.float32)
    bevel = np.clip((edge - 0.9) / 0.06, 0, 1).astype(np.float32)
    return mix(out * (1 - 0.08 * bevel[..., None]), grout, line)


def checker(rng: Rng, first: Color, second: Color, size: int = 512, count: int = 4) -> Texture:
    """Tiles of two colours in turn."""
    a, b = tiles(rng, first, rgb("6f6a62"), size, count), tiles(rng, second, rgb("6f6a62"), size, count)
    step = size // count
    odd = (np.arange(size)[:, None] // step + np.arange(size)[None] // step) % 2
    return mix(a, b, odd.astype(np.float32))


def bricks(rng: Rng, color: Color, mortar: Color, size: int = 512, rows: int = 8) -> Texture:
    """Running bond."""
    height, width = size // rows, size // (rows // 2)
    y, x = np.indices((size, size))
    row = y // height
    shifted = (x + (row % 2) * (width // 2)) % size
    column = shifted // width
    tint = rng.uniform(-0.18, 0.14, (rows, size // width)).astype(np.float32)[row, column]
    out = shade(color, tint + 0.14 * fractal(rng, (size, size), (24, 16), 4))
    gap = np.minimum(
        np.minimum(y % height, height - 1 - y % height), np.minimum(shifted % width, width - 1 - shifted % width)
    )
    ragged = gap + 1.2 * noise(rng, (size, size), (64, 64))
    return mix(out, shade(mortar, 0.1 * fractal(rng, (size, size), (32, 32), 3)), (ragged < 2.2).astype(np.float32))


def plaster(rng: Rng, color: Color, size: int = 256) -> Texture:
    """Painted wall, hardly structured."""
    return shade(color, 0.025 * fractal(rng, (size, size), (4, 4), 5) + 0.012 * noise(rng, (size, size), (128, 128)))


def wallpaper(rng: Rng, color: Color, size: int = 256) -> Texture:
    """Stripes or a small repeated motif, tone in tone."""
    y, x = np.indices((size, size)).astype(np.float32) * np.float32(2 * np.pi / size)
    kind = int(rng.integers(3))
    if kind == 0:
        weight = (np.sin(x * int(rng.integers(6, 12))) > 0).astype(np.float32)
    elif kind == 1:
        weight = (np.cos(x * 8) + np.cos(y * 8) > 0.9).astype(np.float32)
    else:
        weight = (np.abs(np.sin(x * 6 + np.abs(np.sin(y * 3)) * 2)) < 0.22).astype(np.float32)
    return mix(
        plaster(rng, color, size), shade(color, np.full((size, size), rng.choice([-0.12, 0.1]), np.float32)), weight
    )


def carpet(rng: Rng, color: Color, size: int = 256) -> Texture:
    """Short pile."""
    return shade(
        color, 0.16 * noise(rng, (size, size), (size // 2, size // 2)) + 0.06 * fractal(rng, (size, size), (6, 6), 4)
    )


def concrete(rng: Rng, color: Color, size: int = 512) -> Texture:
    """Cast floor with clouds and specks; also a stone table top."""
    specks = (noise(rng, (size, size), (size // 2, size // 2)) > 0.72).astype(np.float32)
    return shade(color, 0.09 * fractal(rng, (size, size), (3, 3), 6) - 0.1 * specks)


def rug(rng: Rng, height: int = 384, width: int = 512) -> Texture:
    """A woven rug: a border and stripes, diamonds, zigzag or a plain field."""
    ground, figure = pick_two(rng, RUGS)
    accent = pick(rng, RUGS)
    y, x = np.indices((height, width)).astype(np.float32)
    out = plain(ground, (height, width))
    kind = int(rng.integers(4))
    pitch = float(rng.uniform(38, 80))
    if kind == 0:
        out = mix(out, figure, ((y % pitch) < pitch * rng.uniform(0.25, 0.6)).astype(np.float32))
        out = mix(out, accent, (np.abs(y % (2 * pitch) - pitch) < pitch * 0.08).astype(np.float32))
    elif kind == 1:
        diamond = np.abs(x % pitch - pitch / 2) + np.abs(y % pitch - pitch / 2)
        out = mix(out, figure, (diamond < pitch * 0.34).astype(np.float32))
        out = mix(out, accent, (diamond < pitch * 0.14).astype(np.float32))
    elif kind == 2:
        zigzag = (y + np.abs(x % pitch - pitch / 2)) % pitch
        out = mix(out, figure, (zigzag < pitch * 0.4).astype(np.float32))
    inset = np.minimum(np.minimum(y, height - 1 - y), np.minimum(x, width - 1 - x))
    for color, near, far in ((figure, 0, 34), (accent, 14, 20), (ground, 34, 42)):
        out = mix(out, color, ((inset >= near) & (inset < far)).astype(np.float32))
    weave = 0.05 * np.sin(x * np.pi / 2) * np.sin(y * np.pi / 2) + 0.14 * noise(rng, (height, width), (160, 200))
    return np.asarray(np.clip(out * (1 + weave[..., None]), 0, 1), np.float32)


# Print

# Letters on a grid 3 wide and 5 high, rows from the top.
_LETTERS = {
    "A": "010101111101101", "B": "110101110101110", "C": "011100100100011", "D": "110101101101110",
    "E": "111100110100111", "F": "111100110100100", "G": "011100101101011", "H": "101101111101101",
    "I": "111010010010111", "K": "101101110101101", "L": "100100100100111", "M": "101111111101101",
    "N": "110101101101101", "O": "010101101101010", "P": "110101110100100", "R": "110101110101101",
    "S": "011100010001110", "T": "111010010010010", "U": "101101101101111", "V": "101101101101010",
    "X": "101101010101101", "Y": "101101010010010",
}  # fmt: skip
WORDS = (
    "COLA", "TEA", "MILK", "OATS", "SODA", "RICE", "SALT", "CORN", "PEAS", "HONEY",
    "LEMON", "NOVA", "ORBIT", "POLAR", "RUST", "FERN", "TIDE", "ATLAS", "EMBER", "MAPLE",
    "DELTA", "FIELD", "GUIDE", "ROBOT", "OPTICS", "SOUP", "BEANS", "PLUM", "MINT",
)  # fmt: skip


def word(rng: Rng) -> str:
    """A word for a label."""
    return WORDS[int(rng.integers(len(WORDS)))]


def write(texture: Texture, text: str, color: Color, box: tuple[float, float, float, float]) -> None:
    """Print `text` in the middle of `box` (x0, y0, x1, y1 as fractions of the texture), in the letters' proportions."""
    height, width = texture.shape[:2]
    x0, y0, x1, y1 = int(box[0] * width), int(box[1] * height), int(box[2] * width), int(box[3] * height)
    bitmap = np.zeros((7, 4 * len(text) + 1), np.float32)
    for i, letter in enumerate(text):
        bitmap[1:6, 1 + 4 * i : 4 + 4 * i] = np.array([int(c) for c in _LETTERS[letter]], np.float32).reshape(5, 3)
    scale = min((x1 - x0) / bitmap.shape[1], (y1 - y0) / bitmap.shape[0])
    w, h = int(bitmap.shape[1] * scale), int(bitmap.shape[0] * scale)
    if min(w, h) < 1:
        return
    ink = np.clip(cv2.resize(bitmap, (w, h), interpolation=cv2.INTER_CUBIC) * 3 - 1, 0, 1)
    left, top = x0 + (x1 - x0 - w) // 2, y0 + (y1 - y0 - h) // 2
    region = texture[top : top + h, left : left + w]
    region += (np.asarray(color, np.float32) - region) * ink[: region.shape[0], : region.shape[1], None]


def fill(texture: Texture, color: Color, box: tuple[float, float, float, float]) -> None:
    """Paint a rectangle given as fractions (x0, y0, x1, y1) of the texture."""
    height, width = texture.shape[:2]
    texture[round(box[1] * height) : round(box[3] * height), round(box[0] * width) : round(box[2] * width)] = color


def disc(texture: Texture, color: Color, centre: tuple[float, float], radius: float) -> None:
    """Paint a disc; `radius` is a fraction of the height."""
    height, width = texture.shape[:2]
    y, x = np.indices((height, width)).astype(np.float32)
    distance = np.hypot(x - centre[0] * width, y - centre[1] * height) - radius * height
    texture[:] = mix(texture, color, np.clip(0.5 - distance, 0, 1).astype(np.float32))


def label(rng: Rng, size: tuple[int, int] = (128, 384)) -> Texture:
    """A label that goes round a can or a bottle: ground, bands, and the brand twice."""
    ground, ink = pick_two(rng, LABELS)
    accent = pick(rng, LABELS)
    out = plain(ground, size)
    kind = int(rng.integers(4))
    if kind == 0:
        fill(out, accent, (0, 0.0, 1, 0.14))
        fill(out, accent, (0, 0.86, 1, 1))
    elif kind == 1:
        fill(out, accent, (0, 0.58, 1, 1))
    elif kind == 2:
        y, x = np.indices(size).astype(np.float32)
        wave = size[0] * (0.62 + 0.12 * np.sin(x * 4 * np.pi / size[1]))
        out = mix(out, accent, np.clip(y - wave, 0, 1).astype(np.float32))
    name = word(rng)
    for turn in (0.25, 0.75):
        if kind == 3:
            disc(out, accent, (turn, 0.5), 0.36)
        write(out, name, ink, (turn - 0.17, 0.28, turn + 0.17, 0.62))
        fill(out, ink, (turn - 0.1, 0.68, turn + 0.1, 0.7))
        fill(out, ink, (turn - 0.07, 0.74, turn + 0.07, 0.76))
    bars = np.repeat(rng.integers(0, 2, 14), 2).astype(np.float32)
    fill(out, (0.97, 0.97, 0.95), (0.46, 0.3, 0.54, 0.56))
    left = int(0.465 * size[1])
    out[int(0.33 * size[0]) : int(0.53 * size[0]), left : left + len(bars)] *= (1 - 0.9 * bars)[None, :, None]
    return out


def cover(rng: Rng, color: Color, size: tuple[int, int] = (192, 144)) -> Texture:
    """The front of a book: cloth, title and an ornament."""
    ink = pick(rng, PAPERS if _luma(color) < 0.5 else COVERS[:6])
    out = shade(color, 0.05 * noise(rng, size, (size[0] // 2, size[1] // 2)))
    kind = int(rng.integers(4))
    accent = pick(rng, COVERS)
    if kind == 0:
        fill(out, accent, (0, 0.62, 1, 1))
    elif kind == 1:
        disc(out, accent, (0.5, 0.64), 0.17)
    elif kind == 2:
        for edge, tone in ((0.06, ink), (0.075, color)):
            fill(out, tone, (edge * 1.33, edge, 1 - edge * 1.33, 1 - edge))
    else:
        for i in range(5):
            fill(out, accent, (0.12, 0.5 + 0.07 * i, 0.3 + 0.12 * i, 0.54 + 0.07 * i))
    write(out, word(rng), ink, (0.12, 0.12, 0.88, 0.3))
    write(out, word(rng), ink, (0.3, 0.32, 0.7, 0.4))
    return out


def carton(rng: Rng, cell: int = 128) -> Texture:
    """The six faces of a box as an atlas (see `meshes.rounded_box`): printed packaging, or brown card with tape."""
    faces = []
    if rng.random() < 0.45:
        card = pick(rng, CARTONS)
        for face in range(6):
            side = shade(card, 0.05 * fractal(rng, (cell, cell), (4, 32), 3))
            if face == 4:
                fill(side, (0.78, 0.68, 0.5), (0, 0.43, 1, 0.57))
            elif face < 4:
                fill(side, (0.78, 0.68, 0.5), (0.43, 0, 0.57, 0.22))
                if face % 2 == 0:
                    write(side, word(rng), (0.2, 0.16, 0.12), (0.12, 0.5, 0.6, 0.75))
            faces.append(side)
    else:
        ground, ink = pick_two(rng, LABELS)
        accent, name, kind = pick(rng, LABELS), word(rng), int(rng.integers(3))
        for _ in range(6):
            side = plain(ground, (cell, cell))
            if kind == 0:
                fill(side, accent, (0, 0.66, 1, 1))
            elif kind == 1:
                disc(side, accent, (0.5, 0.62), 0.25)
            else:
                fill(side, accent, (0, 0, 1, 0.14))
                fill(side, accent, (0, 0.86, 1, 1))
            write(side, name, ink, (0.08, 0.16, 0.92, 0.5))
            fill(side, ink, (0.2, 0.54, 0.8, 0.56))
            faces.append(side)
    # v runs upwards: the lower row of v is the lower half of the image.
    return np.concatenate([np.concatenate(faces[3:], 1), np.concatenate(faces[:3], 1)], 0)


def glaze(rng: Rng, color: Color, size: tuple[int, int] = (128, 256)) -> Texture:
    """Pottery: plain, banded, dipped, dotted or speckled."""
    other = pick_two(rng, GLAZES)[1]
    out = shade(color, 0.03 * fractal(rng, size, (4, 8), 3))
    y, x = np.indices(size).astype(np.float32)
    v, u = y / size[0], x / size[1]
    kind = int(rng.integers(6))
    if kind == 1:
        out = mix(out, other, (np.abs(v - 0.7) < 0.035).astype(np.float32))
        out = mix(out, other, (np.abs(v - 0.8) < 0.012).astype(np.float32))
    elif kind == 2:
        out = mix(out, other, (v > 0.78 + 0.015 * np.sin(u * 12 * np.pi)).astype(np.float32))
    elif kind == 3:
        dots = np.hypot((u * 12) % 1 - 0.5, (v * 12) % 1 - 0.5) < 0.22
        out = mix(out, other, (dots & (v > 0.5)).astype(np.float32))
    elif kind == 4:
        specks = noise(rng, size, (96, 192)) > 0.78
        out = mix(out, rgb("3a322b"), np.float32(0.6) * specks.astype(np.float32))
    return out


def ball(rng: Rng, size: tuple[int, int] = (192, 384)) -> Texture:
    """The skin of a ball: segments, a band, stitched lines, patches or a felt with a curve."""
    first, second = pick_two(rng, LABELS)
    third = pick(rng, LABELS)
    row, column = np.indices(size).astype(np.float32)
    v, u = row / size[0], column / size[1]
    z, across = np.cos(v * np.pi), np.sin(v * np.pi)
    out = plain(first, size)
    kind = int(rng.integers(5))
    if kind == 0:
        sector = np.floor(u * 6) % 3
        out = mix(
            mix(out, (0.95, 0.94, 0.9), (sector == 1).astype(np.float32)), second, (sector == 2).astype(np.float32)
        )
        out = mix(out, third, (np.abs(z) > 0.94).astype(np.float32))
    elif kind == 1:
        out = mix(out, second, (np.abs(z) < 0.25).astype(np.float32))
        out = mix(out, third, (np.abs(z) < 0.06).astype(np.float32))
    elif kind == 2:
        out = shade(rgb("c8692e"), 0.1 * noise(rng, size, (96, 192)))
        x, w = across * np.cos(2 * np.pi * u), across * np.sin(2 * np.pi * u)
        lines = np.minimum(np.minimum(np.abs(z), np.abs(x)), np.abs(np.hypot(w * 0.9, z) - 0.62))
        out = mix(out, rgb("2b1d14"), (lines < 0.025).astype(np.float32))
    elif kind == 3:
        out = shade(rgb("c9d63f"), 0.16 * noise(rng, size, (96, 192)))
        seam = np.abs(z - 0.55 * np.sin(4 * np.pi * u))
        out = mix(out, (0.95, 0.95, 0.9), (seam < 0.05).astype(np.float32))
    else:
        dots = np.hypot(((u * 8 + 0.5 * np.floor(v * 6)) % 1 - 0.5) * across, (v * 6) % 1 - 0.5)
        out = mix(out, second, (dots < 0.26).astype(np.float32))
    return out


def painting(rng: Rng, size: tuple[int, int] = (160, 224)) -> Texture:
    """An abstract landscape for the wall."""
    sky, land = pick_two(rng, WALLS)
    out = plain(sky, size)
    y = np.indices(size)[0].astype(np.float32)
    disc(
        out,
        pick(rng, LABELS),
        (float(rng.uniform(0.2, 0.8)), float(rng.uniform(0.2, 0.45))),
        float(rng.uniform(0.06, 0.14)),
    )
    for layer in range(4):
        ridge = size[0] * (0.45 + 0.14 * layer + 0.1 * fractal(rng, (1, size[1]), (1, 5), 4))
        tone = mix(plain(land, size), pick(rng, COVERS), np.full(size, 0.2 + 0.2 * layer, np.float32))
        out = mix(out, tone, np.clip(y - ridge, 0, 1).astype(np.float32))
    return out


def window(rng: Rng, size: tuple[int, int] = (192, 192)) -> Texture:
    """A window: frame, bars and a pale sky."""
    v = np.linspace(0, 1, size[0], dtype=np.float32)[:, None] * np.ones(size, np.float32)
    out = mix(plain(rgb("cfe3f5"), size), rgb("f5f3ea"), v)
    out = mix(
        out, rgb("8fa38a"), (v > 0.72 + 0.06 * fractal(rng, size, (1, 6), 3)).astype(np.float32) * np.float32(0.7)
    )
    frame = rgb("f1eee6")
    for box in (
        (0, 0, 1, 0.05),
        (0, 0.95, 1, 1),
        (0, 0, 0.05, 1),
        (0.95, 0, 1, 1),
        (0.475, 0, 0.525, 1),
        (0, 0.44, 1, 0.48),
    ):
        fill(out, frame, box)
    return out


def pages(rng: Rng, size: tuple[int, int] = (64, 64)) -> Texture:
    """The edge of a block of paper."""
    return shade(pick(rng, PAPERS), 0.1 * noise(rng, size, (48, 2)))


def _luma(color: Color) -> float:
    return 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]
