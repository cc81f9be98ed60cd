"""TensorRT's logger, one per process for builder and runtime, as TensorRT ignores all but the first."""

from __future__ import annotations

import functools
import logging
from collections import deque
from types import ModuleType
from typing import Any

log = logging.getLogger("panrt.tensorrt")

REMEMBERED = 20  # errors that TensorRT logged and that were not yet taken


@functools.cache
def tensorrt_logger(trt: ModuleType) -> Any:
    """Return the logger of a module, `tensorrt` or `tensorrt_rtx`.

    Its `take_errors()` returns the errors since its last call. They go into the message of an exception, and are
    therefore not logged as errors.
    """

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]  # a class of a module chosen at run time
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._errors: deque[str] = deque(maxlen=REMEMBERED)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self._errors.append(message)
                log.debug("%s", message)  # the exception has it
            elif severity == trt.ILogger.WARNING:
                log.info("%s", message)

        def take_errors(self) -> list[str]:
            errors = list(self._errors)
            self._errors.clear()
            return errors

    return Logger()
