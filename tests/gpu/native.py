"""The CPU kernels' place where they are not built, as on a machine that only has a bundle: the reference is as good."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from panrt.plugins import reference


def replace_where_missing() -> bool:
    """Make `panrt.plugins.native` the reference where the module does not import; return whether that was so."""
    try:
        importlib.import_module("panrt.plugins.native")
    except ImportError:
        stand_in = ModuleType("panrt.plugins.native", "The reference, which takes no threads.")
        for name in ("rpn_proposals", "pyramid_roi_align", "box_detections", "panoptic_merge", "overlay"):
            setattr(stand_in, name, _without_threads(getattr(reference, name)))
        sys.modules["panrt.plugins.native"] = stand_in
        sys.modules["panrt.plugins"].native = stand_in  # type: ignore[attr-defined]
        return True
    return False


def _without_threads(function: Any) -> Any:
    def call(*inputs: Any, threads: int = 1, **options: Any) -> Any:
        del threads
        return function(*inputs, **options)

    return call
