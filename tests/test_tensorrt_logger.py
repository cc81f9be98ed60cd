"""The logger that builder and runtime share."""

from __future__ import annotations

import logging
from types import ModuleType

import pytest

from panrt.gpu.tensorrt_logger import REMEMBERED, tensorrt_logger


class ILogger:
    """TensorRT's."""

    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


@pytest.fixture
def trt() -> ModuleType:
    module = ModuleType("tensorrt")
    module.ILogger = ILogger  # type: ignore[attr-defined]
    return module


def test_a_module_has_one_logger_for_it_listens_to_the_first_alone(trt: ModuleType) -> None:
    other = ModuleType("tensorrt_rtx")
    other.ILogger = ILogger  # type: ignore[attr-defined]
    assert tensorrt_logger(trt) is tensorrt_logger(trt)
    assert tensorrt_logger(other) is not tensorrt_logger(trt)


def test_errors_wait_for_whoever_raises_and_warnings_are_logged(
    trt: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "panrt.tensorrt")
    logger = tensorrt_logger(trt)
    logger.log(ILogger.WARNING, "slow")
    logger.log(ILogger.ERROR, "no room")
    logger.log(ILogger.INTERNAL_ERROR, "bug")
    assert [record.message for record in caplog.records] == ["slow"]  # an error is raised, and not logged besides
    assert logger.take_errors() == ["no room", "bug"]
    assert logger.take_errors() == []


def test_old_errors_that_nobody_took_are_forgotten(trt: ModuleType) -> None:
    logger = tensorrt_logger(trt)
    for number in range(REMEMBERED + 5):
        logger.log(ILogger.ERROR, str(number))
    assert logger.take_errors() == [str(number) for number in range(5, REMEMBERED + 5)]
