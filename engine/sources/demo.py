"""The bundled clips."""

from __future__ import annotations

from pathlib import Path

from panrt.engine.uri import redact
from panrt.errors import SourceNotFoundError, UnknownSourceError
from panrt.formats.records import legible

_CLIPS = {"tabletop": "tabletop/clip.mp4"}


def demo_clip(name: str) -> Path:
    """Return the video of a demo: in the installed package or, in a clone, beside the tests.

    Raises:
        UnknownSourceError: no demo has that name.
        SourceNotFoundError: its video is not installed.
    """
    if name not in _CLIPS:
        raise UnknownSourceError(
            f"{legible(redact(f'demo://{name}'))}: no such demo; expected one of {', '.join(_CLIPS)}."
        )
    package = Path(__file__).resolve().parents[2]
    places = package / "data" / _CLIPS[name], package / "tests" / "data" / _CLIPS[name]
    for place in places:
        if place.is_file():
            return place
    raise SourceNotFoundError(f"demo://{name}: its clip is not installed; in a clone it is tests/data/{_CLIPS[name]}.")
