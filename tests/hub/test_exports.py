"""A model by name is exported once for everything that determines the file, in a process without the caller's torch."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import panrt
from panrt.engine.named import CPU_HW
from panrt.errors import BackendError, DownloadError, ExportError, MissingError, UnknownModelError
from panrt.export.onnx import to_onnx
from panrt.formats.onnx_file import read_onnx
from panrt.hub import download, exports, models, weights
from panrt.hub.exports import Key
from panrt.hub.weights import Weights
from panrt.model import checkpoints, save
from support.hub_server import Heard, Hub
from support.named_models import ALIAS, NAME, Small


@pytest.mark.slow
def test_model_by_name_is_the_exported_network_and_needs_no_network_later(
    small: Small, small_hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    with panrt.load(ALIAS, threads=1) as session:
        assert session.model.input_hw == CPU_HW
        assert f"{NAME} of the detectron2 model zoo" in session.model.provenance
        assert "CC BY-SA 3.0" in session.model.provenance
        found = session(frame)
    said = capsys.readouterr()
    assert said.out == ""
    assert "licence     weights: CC BY-SA 3.0" in said.err
    to_onnx(small.model, tmp_path / "direct.onnx", input_hw=CPU_HW)
    with panrt.load(tmp_path / "direct.onnx", threads=1) as session:
        assert np.array_equal(session(frame).panoptic, found.panoptic)

    # Again: neither network nor PyTorch nor the weights, at any size, and without a word.
    monkeypatch.setenv("PANRT_OFFLINE", "1")
    monkeypatch.setattr(exports, "_NEEDED", ("no_such_package",))
    shutil.rmtree(weights.root() / "weights")
    with panrt.load(NAME, threads=1, input_hw=(64, 96)) as session:
        assert session.model.input_hw == (64, 96)
    assert capsys.readouterr().err == ""
    assert len(small_hub.requests) == 1


@pytest.mark.slow
def test_precisions_are_files_of_their_own_and_are_removed_together(small: Small, small_hub: Hub) -> None:
    halves = models.onnx_file(ALIAS, precision="fp16", watch=Heard())
    assert read_onnx(halves).file.precision == "fp16"
    assert read_onnx(halves).file.input_hw is None
    assert [kept.precision for kept in exports.kept()] == ["fp16"]
    removed = models.remove(small.entry)
    assert removed.weights >= len(small.content)
    assert removed.exports > 10**6
    assert not removed.hash_forgotten
    assert (list(exports.kept()), weights.path_of(small.entry).exists()) == ([], False)
    assert weights.known_hash(small.entry) is not None  # a later download is held to it


@pytest.mark.slow
def test_weights_that_do_not_fit_are_an_error_of_the_exporter(small: Small, tmp_path: Path, small_hub: Hub) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(small.content)
    key = Key(weights_sha256="0" * 64, config="panoptic_fpn_r50", precision="fp32")
    with pytest.raises(ExportError, match=r"^broken: not exported: .*model\.pkl: trained on 8 things and 4 stuff"):
        exports.make(Weights(path, "0" * 64), key, name="broken", provenance="", watch=Heard())
    assert exports.find(key) is None


@pytest.mark.slow
def test_weights_by_name_are_a_network_in_pytorch_too(small: Small, small_hub: Hub) -> None:
    path = checkpoints.locate(ALIAS)
    assert checkpoints.read_header(path).config.name == "panoptic_fpn_lite"
    loaded, expected = checkpoints.load(path).state_dict(), small.model.state_dict()
    assert all(np.array_equal(loaded[name].numpy(), tensor.numpy()) for name, tensor in expected.items())


@pytest.mark.slow
def test_model_file_of_the_hugging_face_hub_is_exported_too(
    small: Small, small_hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(small.model, tmp_path / "model.safetensors", provenance="a test")
    monkeypatch.setattr(weights, "from_hugging_face", lambda model: tmp_path / Path(model).name)
    found = models.onnx_file("hf://owner/name/model.safetensors", watch=Heard())
    assert read_onnx(found).file.provenance == "a test"
    assert models.onnx_file("hf://owner/name/street.onnx") == tmp_path / "street.onnx"
    with pytest.raises(UnknownModelError, match=r"panrt convert .*model\.pth -o model\.safetensors"):
        models.onnx_file("hf://owner/name/model.pth")


# before anything is downloaded


def test_missing_pytorch_is_reported_before_the_download(small_hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else find(name))
    with pytest.raises(
        MissingError, match=r"needs torch; nothing was downloaded\.\n  Install it:  pip install 'panrt\[exp"
    ):
        panrt.load(ALIAS)
    assert small_hub.requests == []


@pytest.mark.parametrize(("backend", "flavour"), [("tensorrt", ""), ("rtx", " --flavour rtx")])
def test_gpu_backend_is_told_to_build_before_the_download(small_hub: Hub, backend: str, flavour: str) -> None:
    with pytest.raises(BackendError, match=rf"panrt build {ALIAS} -o model\.plan{flavour}  \(at 800x1088 unless"):
        panrt.load(ALIAS, backend=backend)
    assert small_hub.requests == []


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("smal", "and no model of that name; did you mean small"),
        ("./smal", r"no such file\."),
        ("s.onnx", r"no such file\."),
    ],
)
def test_name_of_neither_a_file_nor_a_model_is_an_error(small_hub: Hub, name: str, hint: str) -> None:
    with pytest.raises(UnknownModelError, match=hint):
        panrt.load(name)


# the process and the cache


class Exporter:
    """Stands in the place of the export: writes a file, and counts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        monkeypatch.setattr(exports, "_export", self)

    def __call__(self, source: Weights, path: Path, key: Key, *, name: str, provenance: str) -> None:
        self.count += 1
        path.write_bytes(b"onnx")


def make(key: Key) -> Path:
    return exports.make(Weights(Path("w"), key.weights_sha256), key, name="m", provenance="", watch=Heard())


def key(**changed: str) -> Key:
    return Key(**{"weights_sha256": "a", "config": "c", "precision": "fp32", **changed})  # type: ignore[arg-type]


def test_everything_that_determines_a_file_is_in_its_key(small_hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = Exporter(monkeypatch)
    keys = [key(), key(weights_sha256="b"), key(config="d"), key(precision="fp16"), key(panrt="9.9"), key(exporter="2")]
    assert len({make(each) for each in (*keys, *keys)}) == exporter.count == len(keys)


def test_file_of_another_version_is_not_ready_and_is_removed_with_the_others(
    small: Small, small_hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    Exporter(monkeypatch)
    sha256 = hashlib.sha256(small.content).hexdigest()
    models.onnx_file(ALIAS, watch=Heard())
    make(key(weights_sha256=sha256, config=small.entry.config, precision="fp16", panrt="9.9"))
    assert list(models.ready(small.entry)) == ["fp32"]
    assert models.remove(small.entry).exports == 2 * len(b"onnx")
    assert models.ready(small.entry) == {}


def test_remains_of_an_interrupted_download_are_removed_too(small: Small, small_hub: Hub) -> None:
    small_hub.plays = [lambda request: small_hub.serve(request, until=1000), lambda request: request.answer(404)]
    with pytest.raises(DownloadError):
        download.fetch(
            f"{small_hub.address}/x", weights.path_of(small.entry), download.Expected(10**9), watch=Heard(),
            patience=download.Patience(sleep=lambda _: None),
        )  # fmt: skip
    assert models.remove(small.entry).weights > 1000
    assert [path.suffix for path in weights.path_of(small.entry).parent.iterdir()] == [".lock"]


@pytest.mark.parametrize("damage", ["cut", "facts", "no facts"])
def test_file_that_is_not_whole_is_made_again(small_hub: Hub, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    exporter = Exporter(monkeypatch)
    path = make(key())
    facts = path.with_suffix(".json")
    if damage == "cut":
        path.write_bytes(b"on")
    elif damage == "facts":
        facts.write_text('{"bytes": []}')
    else:
        facts.unlink()
    assert exports.find(key()) is None
    assert make(key()) == path
    assert exporter.count == 2


def test_export_runs_with_the_path_of_the_caller_and_not_of_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("print('imported'); raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    (tmp_path / "model.pkl").write_bytes(b"no pickle")
    with pytest.raises(ExportError, match=r"not exported: .*model\.pkl: not unpickled"):
        exports._export(
            Weights(tmp_path / "model.pkl", ""), tmp_path / "m.onnx", key(config="panoptic_fpn_lite"), name="m",
            provenance="",
        )  # fmt: skip


def test_export_that_is_killed_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "_PROGRAM", "import os; os.kill(os.getpid(), 9)")
    with pytest.raises(ExportError, match=r"m: the export was ended by signal 9; the memory may not have been enough"):
        exports._export(Weights(tmp_path, ""), tmp_path / "m.onnx", key(), name="m", provenance="")
