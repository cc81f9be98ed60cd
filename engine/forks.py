"""What a process forked from this one must leave alone: threads do not survive a fork, and devices do not either.

An object that owns threads, locks or a device is watched. In a forked child it is told so, and it is kept until the
child ends: to free it would wait for threads that are not there (ONNX Runtime's pool), call a driver that knows nothing
of the child (CUDA), or write what the parent writes as well (a file with a buffer).
"""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import Protocol

from panrt.plugins import native


class Watched(Protocol):
    """What is told of a fork."""

    def after_fork(self) -> None:
        """Become harmless, in the child, right after the fork; locks may be held by threads that are gone."""
        ...


_watched: weakref.WeakSet[Watched] = weakref.WeakSet()


def watch(thing: Watched) -> None:
    """Have `thing.after_fork` called in every child that is forked while `thing` is alive."""
    _watched.add(thing)


def keep_for_ever(thing: object) -> None:
    """Never free an object, not even when the interpreter ends."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


_skips_destructors = False


def skip_destructors() -> None:
    """Have forked children end without the destructors of what is loaded: those of ONNX Runtime hang in a child."""
    global _skips_destructors  # noqa: PLW0603  (a switch that is only ever turned on)
    _skips_destructors = True


def _in_child() -> None:
    if _skips_destructors:
        native.skip_destructors()
    for thing in list(_watched):
        keep_for_ever(thing)
        thing.after_fork()


os.register_at_fork(after_in_child=_in_child)
