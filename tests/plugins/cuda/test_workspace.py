"""Workspaces: TensorRT promises no alignment of theirs, and an op asks for what it needs at the worst one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from panrt.plugins import native
from support.cases import network_cases
from support.compare import assert_identical
from tools import cuda_ops

from .conftest import Gpus

RPN, _, DETECTIONS, MERGE = network_cases(0)


@pytest.mark.parametrize("offset", [0, 1, 2, 3, 4, 8, 16, 32, 64, 128, 192, 240, 254, 255])
def test_a_workspace_of_any_alignment_is_enough(gpus: Gpus, monkeypatch: pytest.MonkeyPatch, offset: int) -> None:
    # Under AddressSanitizer: what lies behind the bytes that were asked for is no one's.
    monkeypatch.setattr(cuda_ops, "WORKSPACE_OFFSET", offset)
    gpu = gpus("asan")
    rpn = replace(RPN, N=2, A=1, levels=((3, 5), (1, 2)), pre_nms_top_k=40, post_nms_top_k=30)
    assert_identical(rpn.run(cuda_ops.rpn_proposals, gpu=gpu), rpn.run(native.rpn_proposals))
    detections = replace(DETECTIONS, N=2, R=33, C=3, max_detections=20)
    assert_identical(detections.run(cuda_ops.box_detections, gpu=gpu), detections.run(native.box_detections))
    merge = replace(MERGE, N=2, K=4, S=4, quarter_hw=(12, 10), padding=(0, 0), output_hw=None, count="all")
    assert_identical(merge.run(cuda_ops.panoptic_merge, gpu=gpu), merge.run(native.panoptic_merge))
