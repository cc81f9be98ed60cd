"""Find the file of a model that is given by name or address."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from panrt.errors import UnknownModelError
from panrt.formats.records import argument
from panrt.hub import catalogue, exports, weights
from panrt.hub.catalogue import Entry
from panrt.hub.exports import Key, Precision
from panrt.hub.watch import StandardError, Watch
from panrt.hub.weights import Weights


class Removed(NamedTuple):
    """Sizes of the files of a model that were removed."""

    weights: int  # bytes
    exports: int  # bytes
    hash_forgotten: bool


def is_remote(model: str) -> bool:
    """Return whether a model is a name of the catalogue or an address, rather than a file or a bundled model."""
    return catalogue.find(model) is not None or is_address(model)


def is_address(model: str) -> bool:
    """Return whether a model is on the Hugging Face hub; `Path` makes one slash of two."""
    return model.startswith("hf:/")


def onnx_file(model: str, *, precision: Precision = "fp32", watch: Watch | None = None) -> Path:
    """Return the ONNX file of a model by name, downloaded and exported if it is not in the cache.

    Args:
        model: a name or alias of the catalogue, or hf://OWNER/NAME/FILE with an .onnx or .safetensors file of PanRT.
        precision: of an export.
        watch: of progress; None: standard error.

    Raises:
        UnknownModelError: no such name.
        MissingError: PyTorch, which the export needs, is not installed; nothing was downloaded.
        DownloadError: the weights cannot be downloaded.
        ExportError: they cannot be exported.
        NoCacheFolderError: this user has no cache.
    """
    watch = watch or StandardError()
    if is_address(model):
        return _of_address(model, precision, watch)
    entry = catalogue.get(model)
    known = weights.known_hash(entry)
    if known is not None and (found := exports.find(_key(entry, known, precision))) is not None:
        return found
    exports.require_exporter(entry.name)
    obtained = weights.obtain(entry, watch)
    key = _key(entry, obtained.sha256, precision)
    return exports.make(obtained, key, name=entry.name, provenance=catalogue.provenance(entry), watch=watch)


def ready(entry: Entry) -> dict[str, Path]:
    """Return the files of an entry that this PanRT opens at once, by precision."""
    known = weights.known_hash(entry)
    found = {p: exports.find(_key(entry, known, p)) for p in exports.PRECISIONS} if known is not None else {}
    return {precision: path for precision, path in found.items() if path is not None}


def _key(entry: Entry, sha256: str, precision: Precision) -> Key:
    return Key(weights_sha256=sha256, config=entry.config, precision=precision)


def _of_address(model: str, precision: Precision, watch: Watch) -> Path:
    path = weights.from_hugging_face(model)
    if path.suffix == ".onnx":
        return path
    if path.suffix != ".safetensors":
        raise UnknownModelError(
            f"{model}: expected an .onnx or .safetensors file of PanRT; weights of another program are converted "
            f"first: panrt convert {argument(path)} -o model.safetensors --config CONFIG"
        )
    from panrt.hub import download  # noqa: PLC0415  # network libraries are slow to import, and seldom needed

    sha256 = download.check(path, download.Expected(0), source=model)
    key = Key(weights_sha256=sha256, config="", precision=precision)
    return exports.make(Weights(path, sha256), key, name=model, provenance="", watch=watch)


def remove(entry: Entry, *, forget_hash: bool = False) -> Removed:
    """Remove weights and exports of an entry from the cache; its recorded hash stays unless it is to be forgotten.

    A folder that PANRT_HUB names is left alone.
    """
    from panrt.hub import download  # noqa: PLC0415

    path = weights.root() / "weights" / entry.path
    freed = 0
    for each in (path, *(path.with_name(path.name + suffix) for suffix in download.REMAINS)):
        if each.is_file():
            freed += each.stat().st_size
            each.unlink()
    known = weights.known_hash(entry)
    exported = exports.remove(known) if known is not None else 0
    return Removed(freed, exported, weights.forget(entry) if forget_hash else False)
