"""The custom ops of the network, under their present and their former name."""

from __future__ import annotations

import importlib
import sys

import pytest

from panrt.model import custom_ops


def test_former_module_warns_and_has_the_present_ops() -> None:
    sys.modules.pop("panrt.model.irregular", None)
    with pytest.warns(DeprecationWarning, match=r"use `panrt\.model\.custom_ops`"):
        former = importlib.import_module("panrt.model.irregular")
    assert former.IrregularOps is custom_ops.CustomOps
    for name in ("rpn_proposals", "pyramid_roi_align", "box_detections", "panoptic_merge"):
        assert getattr(former, name) == getattr(custom_ops.KERNELS, name)
    assert set(former.__all__) <= vars(former).keys()
