"""A user without a home folder, as programs in containers have it."""

from __future__ import annotations

import pwd

import pytest


def have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the rest of the test no home folder is known, and none is named for a cache."""

    def unknown(user: object) -> None:
        raise KeyError(user)

    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
