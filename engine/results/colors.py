"""The colour of a segment: that of its class, varied by ID for things so that neighbours differ."""

from __future__ import annotations

import colorsys

Rgb = tuple[int, int, int]

_GOLDEN = 0.6180339887498949  # multiples of it, modulo 1, spread evenly however many there are


def segment_color(category_color: Rgb, segment_id: int, *, is_thing: bool) -> Rgb:
    """Return the colour of a segment, (R, G, B), which depends only on its class and ID.

    Args:
        category_color: (R, G, B), 0..255, as the model file gives it.
        segment_id: from 1.
        is_thing: stuff has the unchanged colour of its class.
    """
    if not is_thing:
        return category_color
    hue, lightness, saturation = colorsys.rgb_to_hls(*(channel / 255 for channel in category_color))
    place = segment_id * _GOLDEN % 1.0 - 0.5
    lightness = min(max(lightness, 0.35), 0.65) + 0.3 * place
    saturation = max(saturation, 0.5)
    red, green, blue = colorsys.hls_to_rgb((hue + 0.12 * place) % 1.0, lightness, saturation)
    return round(red * 255), round(green * 255), round(blue * 255)
