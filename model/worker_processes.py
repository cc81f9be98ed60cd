"""Worker processes, which end with the process that started them."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process

import cv2


def worker_processes(count: int) -> ProcessPoolExecutor:
    """Open a pool of processes with one thread each, which also end if this process is killed.

    A pool's own workers do not: each holds the other end of the queue that it waits on.
    """
    return ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_begin)


def _begin() -> None:
    cv2.setNumThreads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
