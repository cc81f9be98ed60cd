"""Weights come from the hub, a mirror or a folder, and are held to the hash that is known of them."""

from __future__ import annotations

import hashlib
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from panrt.errors import ChecksumError, DownloadError, MissingError, OfflineError, UnknownModelError
from panrt.hub import weights
from panrt.hub.catalogue import ENTRIES, Entry
from panrt.hub.weights import from_hugging_face, known_hash, obtain, path_of
from support.homes import have_none
from support.hub_server import Heard, Hub, md5_prefix, write_mirror
from support.named_models import list_in_catalogue

CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Entry:
    made = ENTRIES[0]._replace(name="tiny", aliases=(), path="a/b/tiny.pkl", size=8000, md5_prefix=md5_prefix(CONTENT))
    list_in_catalogue(made, tmp_path / "cache", monkeypatch)
    return made


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub(CONTENT).running() as server:
        monkeypatch.setenv("PANRT_HUB", f"{server.address}/mirror/")
        yield server


def test_weights_are_downloaded_once_from_the_address_of_the_mirror(entry: Entry, hub: Hub, tmp_path: Path) -> None:
    heard = Heard()
    found = obtain(entry, heard)
    assert (found.path.read_bytes(), found.sha256) == (CONTENT, SHA256)
    assert found.path == tmp_path / "cache/panrt/hub/weights/a/b/tiny.pkl"
    assert obtain(entry, heard) == found
    assert [request.path for request in hub.requests] == ["/mirror/a/b/tiny.pkl"]


def test_download_shows_address_size_and_licence(entry: Entry, hub: Hub) -> None:
    heard = Heard()
    obtain(entry, heard)
    text = "\n".join(heard.lines)
    assert f"{hub.address}/mirror/a/b/tiny.pkl, 0 MB" in text
    assert "CC BY-SA 3.0, https://creativecommons.org/licenses/by-sa/3.0/, detectron2 model zoo" in text
    assert "the SHA-256 is recorded" in text


def test_hash_of_the_first_download_is_held_afterwards(entry: Entry, hub: Hub) -> None:
    entry = entry._replace(md5_prefix="")  # so that any file has it, as a forged one has
    assert known_hash(entry) is None
    first = obtain(entry, Heard())
    assert known_hash(entry) == SHA256
    first.path.unlink()
    hub.content, hub.tag = b"forged", '"v2"'
    with pytest.raises(
        ChecksumError, match=rf"SHA-256 [0-9a-f]{{64}}, expected {SHA256}.*panrt models rm tiny.*--forget"
    ):
        obtain(entry, Heard())
    assert weights.forget(entry)
    assert not weights.forget(entry)
    assert obtain(entry, Heard()).path.read_bytes() == hub.content


def test_published_hash_needs_no_record(entry: Entry, hub: Hub) -> None:
    entry = entry._replace(sha256="0" * 64)
    with pytest.raises(ChecksumError, match=f"expected {'0' * 64}"):
        obtain(entry, Heard())
    assert not (weights.root() / "hashes.json").exists()


@pytest.mark.parametrize("content", [b"{", b"[" * 100_000])
def test_damaged_record_is_an_error_and_never_a_first_use(entry: Entry, hub: Hub, content: bytes) -> None:
    weights.root().mkdir(parents=True)
    (weights.root() / "hashes.json").write_bytes(content)
    with pytest.raises(ChecksumError, match=r"hashes\.json: invalid JSON .*; remove it to record hashes again"):
        obtain(entry, Heard())


@pytest.mark.parametrize("name", ["a/b/tiny.pkl", "tiny.pkl"])
def test_folder_serves_as_the_hub_and_is_not_copied(
    entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write_mirror(tmp_path / "usb", name, CONTENT)
    monkeypatch.setenv("PANRT_HUB", str(tmp_path / "usb"))
    monkeypatch.setenv("PANRT_OFFLINE", "1")
    found = obtain(entry, Heard())
    assert (found.path, found.sha256) == (tmp_path / "usb" / name, SHA256)
    assert known_hash(entry) == SHA256
    assert not (weights.root() / "weights").exists()
    found.path.write_bytes(b"other")
    with pytest.raises(ChecksumError, match=r"it is damaged"):
        obtain(entry, Heard())


def test_folder_without_the_file_says_which_one_it_lacks(
    entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PANRT_HUB", str(tmp_path))
    with pytest.raises(UnknownModelError, match=r"PANRT_HUB names a folder, which has to hold a/b/tiny\.pkl, or tiny"):
        obtain(entry, Heard())


def test_hub_of_another_scheme_is_an_error(entry: Entry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PANRT_HUB", "ftp://me:secret@host/x")
    with pytest.raises(DownloadError, match=r"^PANRT_HUB: got ftp://\.\.\., expected http://, https:// or a folder\.$"):
        obtain(entry, Heard())


@pytest.mark.parametrize(
    ("value", "offline"), [("1", True), ("yes", True), ("0", False), ("", False), ("false", False)]
)
def test_offline_makes_no_request(
    entry: Entry, hub: Hub, monkeypatch: pytest.MonkeyPatch, value: str, offline: bool
) -> None:
    monkeypatch.setenv("PANRT_OFFLINE", value)
    if offline:
        with pytest.raises(OfflineError, match=r"^tiny: its weights are not in the cache, and PANRT_OFFLINE forbids"):
            obtain(entry, Heard())
    else:
        obtain(entry, Heard())
    assert bool(hub.requests) is not offline


def test_cached_weights_need_no_network(entry: Entry, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    found = obtain(entry, Heard())
    monkeypatch.setenv("PANRT_OFFLINE", "1")
    monkeypatch.delenv("PANRT_HUB")
    assert obtain(entry, Heard()) == found


def test_user_without_a_home_has_no_weights_and_opens_other_files(monkeypatch: pytest.MonkeyPatch) -> None:
    have_none(monkeypatch)
    assert weights.entry_of(Path("model.safetensors")) is None


def test_files_of_the_cache_are_known_by_their_place(entry: Entry) -> None:
    assert weights.entry_of(path_of(entry)) is entry
    assert weights.entry_of(Path("tiny.pkl")) is None


def test_record_is_json_for_people(entry: Entry, hub: Hub) -> None:
    obtain(entry, Heard())
    assert json.loads((weights.root() / "hashes.json").read_text()) == {"a/b/tiny.pkl": SHA256}


# the Hugging Face hub


@pytest.fixture
def hugging_face(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, str, bool]]:
    """A package of that name that downloads nothing; returns its calls."""
    calls: list[tuple[str, str, bool]] = []

    def hf_hub_download(repo_id: str, filename: str, *, local_files_only: bool = False) -> str:
        calls.append((repo_id, filename, local_files_only))
        if filename == "none.onnx":
            raise OSError("404 Client Error\nmore")
        return str(tmp_path / filename)

    module = types.ModuleType("huggingface_hub")
    module.hf_hub_download = hf_hub_download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return calls


@pytest.mark.parametrize("model", ["hf://owner/name/models/street.onnx", "hf:/owner/name/models/street.onnx"])
def test_address_names_owner_repository_and_file(
    hugging_face: list[tuple[str, str, bool]], tmp_path: Path, model: str
) -> None:
    assert from_hugging_face(model) == tmp_path / "models/street.onnx"
    assert hugging_face == [("owner/name", "models/street.onnx", False)]


def test_hugging_face_hub_is_asked_for_nothing_offline(
    hugging_face: list[tuple[str, str, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PANRT_OFFLINE", "1")
    from_hugging_face("hf://owner/name/street.onnx")
    assert hugging_face == [("owner/name", "street.onnx", True)]
    with pytest.raises(OfflineError, match=r"none\.onnx: is not in the cache of huggingface_hub, and PANRT_OFFLINE"):
        from_hugging_face("hf://owner/name/none.onnx")


@pytest.mark.parametrize(
    "model", ["hf://owner", "hf://owner/name", "hf://owner/name/../x", "hf://o/n/a/../../x", "hf://"]
)
def test_address_that_names_no_file_is_an_error(hugging_face: list[tuple[str, str, bool]], model: str) -> None:
    with pytest.raises(UnknownModelError, match=r"expected hf://OWNER/NAME/FILE"):
        from_hugging_face(model)
    assert hugging_face == []


def test_failure_of_the_hugging_face_hub_is_one_line(hugging_face: list[tuple[str, str, bool]]) -> None:
    with pytest.raises(DownloadError, match=r"^hf://owner/name/none\.onnx: 404 Client Error$"):
        from_hugging_face("hf://owner/name/none.onnx")


def test_missing_package_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingError, match=r"pip install huggingface_hub$"):
        from_hugging_face("hf://owner/name/street.onnx")
