"""Fork safety: threads and devices do not survive a fork, so a child must not use the objects that own them.

An object that owns threads, locks or a device is watched. In a forked child its `after_fork` is called, and it is never
freed there: freeing it would wait for threads that do not exist in the child (ONNX Runtime's pool), call a driver that
has no context there (CUDA), or write a buffer that the parent writes too.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import Protocol

from panrt.plugins import native


class Watched(Protocol):
    """An object that is notified of a fork."""

    def after_fork(self) -> None:
        """Become inert, in the child, right after the fork; locks may be held by threads that no longer exist."""
        ...


_watched: weakref.WeakSet[Watched] = weakref.WeakSet()


def watch(thing: Watched) -> None:
    """Call `thing.after_fork` in every child that is forked while `thing` is alive."""
    _watched.add(thing)


def keep_for_ever(thing: object) -> None:
    """Never free an object, not even when the interpreter ends."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


_skips_destructors = False


def skip_destructors() -> None:
    """Make forked children exit without running C++ destructors: those of ONNX Runtime hang in a child."""
    global _skips_destructors  # noqa: PLW0603  (a switch that is only ever turned on)
    _skips_destructors = True


def _in_child() -> None:
    if _skips_destructors:
        native.skip_destructors()
    for thing in list(_watched):
        keep_for_ever(thing)
        thing.after_fork()


os.register_at_fork(after_in_child=_in_child)
