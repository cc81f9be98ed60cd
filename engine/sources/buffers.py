"""Memory for frames, used again."""

from __future__ import annotations

import weakref
from collections import deque

import numpy as np
from numpy.typing import NDArray

_KEPT = 4  # that nobody uses


class Buffers:
    """Gives memory for frames of one size, and takes it back once nobody holds what lies in it."""

    def __init__(self) -> None:
        self._size = 0
        self._free: deque[bytearray] = deque(maxlen=_KEPT)

    def take(self, size: int) -> NDArray[np.uint8]:
        """Return an array of so many bytes, of any content."""
        if size != self._size:
            self._size, self._free = size, deque(maxlen=_KEPT)
        try:
            memory = self._free.pop()
        except IndexError:
            memory = bytearray(size)
        array = np.frombuffer(memory, np.uint8)  # what is made of it refers to it, not to the memory alone
        weakref.finalize(array, self._free.append, memory).atexit = False
        return array
