"""A pool of memory for frames."""

from __future__ import annotations

import weakref
from collections import deque

import numpy as np
from numpy.typing import NDArray

_KEPT = 4  # unused buffers


class Buffers:
    """Lends memory for frames of one size, and reuses it once no array refers to it."""

    def __init__(self) -> None:
        self._size = 0
        self._free: deque[bytearray] = deque(maxlen=_KEPT)

    def take(self, size: int) -> NDArray[np.uint8]:
        """Return an uninitialised array of this many bytes."""
        if size != self._size:
            self._size, self._free = size, deque(maxlen=_KEPT)
        try:
            memory = self._free.pop()
        except IndexError:
            memory = bytearray(size)
        array = np.frombuffer(memory, np.uint8)  # views of it keep the array itself alive, not only its memory
        weakref.finalize(array, self._free.append, memory).atexit = False
        return array
