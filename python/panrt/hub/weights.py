"""The weights of a model of the catalogue, as a file on this machine whose hash is known.

`PANRT_HUB` replaces the address of the hub: by that of a mirror, or by a folder with the same layout, such as a copy of
another machine's cache. With `PANRT_OFFLINE=1` nothing is requested from any network.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import NamedTuple

from panrt.errors import (
    ChecksumError,
    DownloadError,
    MissingError,
    NoCacheFolderError,
    OfflineError,
    UnknownModelError,
)
from panrt.files import cache_folder, locked, read_whole, write_atomically
from panrt.formats import records
from panrt.hub import catalogue
from panrt.hub.catalogue import HUB, LICENCE_ADDRESS, SCHEME, Entry
from panrt.hub.watch import Watch

HUB_VARIABLE, OFFLINE_VARIABLE = "PANRT_HUB", "PANRT_OFFLINE"
_SLACK = 2  # times the size of its tensors is what a file may have


class Weights(NamedTuple):
    """A file of weights."""

    path: Path
    sha256: str


def root() -> Path:
    """Return the user's folder of models by name, which need not exist.

    Raises:
        NoCacheFolderError: this user has none.
    """
    return cache_folder() / "hub"


def path_of(entry: Entry) -> Path:
    """Return where the weights of an entry are: in the cache, or in the folder that PANRT_HUB names.

    Raises:
        NoCacheFolderError: this user has no cache.
    """
    folder = _folder()
    if folder is None:
        return root() / "weights" / entry.path
    flat = folder / Path(entry.path).name  # one folder for all of them
    return flat if flat.is_file() else folder / entry.path


def entry_of(path: Path) -> Entry | None:
    """Return the entry whose weights a file holds; None: it is not of the catalogue."""
    try:
        return next((entry for entry in catalogue.ENTRIES if path == path_of(entry)), None)
    except (DownloadError, NoCacheFolderError):  # there is no place for such files
        return None


def obtain(entry: Entry, watch: Watch) -> Weights:
    """Return the weights of an entry, downloaded if they are not here.

    Raises:
        ChecksumError: the file is not the one that was published, or not that of the first download.
        DownloadError: it cannot be downloaded or written; OfflineError if there is no network.
        NoCacheFolderError: this user has no cache.
    """
    path, known = path_of(entry), known_hash(entry)
    if path.is_file() or _folder() is not None:
        return Weights(path, _remembered(entry, _checked(entry, path, known)))
    address = _address(entry)
    if is_offline():
        raise OfflineError(
            f"{entry.name}: its weights are not in the cache, and {OFFLINE_VARIABLE} forbids a download; {_elsewhere()}"
        )
    watch.line(f"download    {address}, {entry.size / 1e6:.0f} MB, to {path.parent}")
    watch.line(f"licence     weights: {entry.licence}, {LICENCE_ADDRESS}, {entry.source}")
    if known is None:
        watch.line(f"check       only the start of its MD5 is published, {entry.md5_prefix}; the SHA-256 is recorded")
    from panrt.hub import download  # noqa: PLC0415  # network libraries are slow to import, and seldom needed

    expected = download.Expected(_SLACK * entry.size, entry.md5_prefix, known)
    try:
        found = download.fetch(address, path, expected, watch=watch, cure=_elsewhere())
    except ChecksumError as error:
        raise _changed(error, entry, known) from error
    return Weights(path, _remembered(entry, found))


def _checked(entry: Entry, path: Path, known: str | None) -> str:
    """Return the hash of a file that is here."""
    from panrt.hub import download  # noqa: PLC0415

    if not path.is_file():
        raise UnknownModelError(
            f"{path}: no such file; {HUB_VARIABLE} names a folder, which has to hold {entry.path}, or "
            f"{path.name} alone."
        )
    try:
        return download.check(path, download.Expected(0, entry.md5_prefix, known), source=str(path))
    except ChecksumError as error:
        raise _changed(error, entry, known) from error


def _changed(error: ChecksumError, entry: Entry, known: str | None) -> ChecksumError:
    cure = f"'panrt models rm {entry.name}' removes it, for another download"
    if known is not None and entry.sha256 is None:
        cure += f", with --forget-hash also what the first one had ({_hashes()})"
    return ChecksumError(f"{error} {cure}.")


def _elsewhere() -> str:
    return f"set {HUB_VARIABLE} to the address of a mirror, or to a folder that holds the file"


def is_offline() -> bool:
    """Return whether the user forbids requests."""
    return os.environ.get(OFFLINE_VARIABLE, "").strip().lower() not in ("", "0", "false", "no", "off")


def _folder() -> Path | None:
    """Return the folder that PANRT_HUB names; None if it names an address, or nothing."""
    hub = os.environ.get(HUB_VARIABLE, "").strip()
    if not hub or re.match(r"(?i)https?:/", hub):
        return None
    if "://" in hub:
        raise DownloadError(
            f"{HUB_VARIABLE}: got {hub.partition('://')[0]}://..., expected http://, https:// or a folder."
        )
    return Path(hub)


def _address(entry: Entry) -> str:
    return f"{(os.environ.get(HUB_VARIABLE, '').strip() or HUB).rstrip('/')}/{entry.path}"


# Recorded hashes ------------------------------------------------------------------------------------------------------


def known_hash(entry: Entry) -> str | None:
    """Return the SHA-256 that the weights have to have: published, or that of the first download; None: neither."""
    return entry.sha256 or _recorded().get(entry.path)


def _remembered(entry: Entry, sha256: str) -> str:
    """Record the hash of the first file that came, and return it."""
    if known_hash(entry) is None:
        _record(entry, sha256)
    return sha256


def forget(entry: Entry) -> bool:
    """Forget the recorded hash of an entry; return whether there was one."""
    there = entry.path in _recorded()
    if there:
        _record(entry, None)
    return there


def _record(entry: Entry, sha256: str | None) -> None:
    path = _hashes()
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f"{path.name}.lock")):
        table = {name: value for name, value in _recorded().items() if name != entry.path}
        table |= {entry.path: sha256} if sha256 is not None else {}
        write_atomically(path, lambda temporary: temporary.write_text(json.dumps(table, indent=1) + "\n"))


def _recorded() -> dict[str, str]:
    path = _hashes()
    if not path.exists():
        return {}
    content = read_whole(path, longest=1_000_000, error=ChecksumError, expected="the hashes of first downloads")
    table = records.parse(content, source=str(path), error=ChecksumError, cure="remove it to record hashes again")
    items = table.items() if isinstance(table, dict) else ()
    return {name: value for name, value in items if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value)}


def _hashes() -> Path:
    return root() / "hashes.json"


# The Hugging Face hub -------------------------------------------------------------------------------------------------


def from_hugging_face(model: str) -> Path:
    """Return a file of the Hugging Face hub, `hf://owner/name/file`, downloaded into its own cache.

    Raises:
        UnknownModelError: it is not such an address.
        MissingError: huggingface_hub is not installed.
        DownloadError: the file cannot be downloaded.
    """
    match = re.fullmatch(r"hf://?([\w.-]+/[\w.-]+)/([\w./ -]+)", model)
    if match is None or ".." in model.split("/"):
        raise UnknownModelError(f"{model}: not a file of the Hugging Face hub, expected {SCHEME}OWNER/NAME/FILE.")
    try:
        from huggingface_hub import hf_hub_download  # noqa: PLC0415  # optional
    except ModuleNotFoundError as error:
        if error.name != "huggingface_hub":
            raise
        raise MissingError(
            f"{model}: needs the package huggingface_hub, which is not installed; pip install huggingface_hub"
        ) from error
    try:
        return Path(hf_hub_download(match[1], match[2], local_files_only=is_offline()))
    except (OSError, ValueError) as error:  # all of its errors are one of these
        if is_offline():
            raise OfflineError(
                f"{model}: is not in the cache of huggingface_hub, and {OFFLINE_VARIABLE} forbids a download."
            ) from error
        raise DownloadError(f"{model}: {str(error).splitlines()[0] if str(error) else type(error).__name__}") from error
