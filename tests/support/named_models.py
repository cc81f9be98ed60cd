"""A small model that stands in the catalogue for a large one, and a folder that stands for the hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from panrt.hub import catalogue
from panrt.hub.catalogue import Cost, Entry
from panrt.model import PanopticFPN, build
from panrt.model.checkpoints import detectron2_name
from support.hub_server import Hub, md5_prefix, zoo_pickle

NAME, ALIAS = "panoptic_fpn_lite_1x", "small"


class Small(NamedTuple):
    """The model, its entry and its weights' file."""

    model: PanopticFPN
    entry: Entry
    content: bytes


def small_model() -> Small:
    """The smallest network, with random weights in the layout of detectron2's model zoo."""
    torch.manual_seed(0)
    model = build("panoptic_fpn_lite").eval()
    arrays = {detectron2_name(name): tensor.numpy() for name, tensor in model.state_dict().items()}
    content = zoo_pickle(arrays)
    entry = Entry(
        name=NAME,
        aliases=(ALIAS,),
        path=f"COCO-PanopticSegmentation/{NAME}/1/model_final_{md5_prefix(content)}.pkl",
        size=len(content),
        md5_prefix=md5_prefix(content),
        sha256=None,
        config="panoptic_fpn_lite",
        pq=12.3,
        latency=0.01,
        cost=Cost(10e3, 1e6, 1e6),
    )
    return Small(model, entry, content)


def list_in_catalogue(entry: Entry, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the rest of a test the entry is in the catalogue, and the cache is a folder of the test."""
    monkeypatch.setattr(catalogue, "ENTRIES", (*catalogue.ENTRIES, entry))
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setenv("PANRT_HUB", "http://127.0.0.1:9")  # nothing listens there


@contextmanager
def served(small: Small, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that has the model, whose entry is in the catalogue."""
    list_in_catalogue(small.entry, cache, monkeypatch)
    with Hub(small.content).running() as server:
        monkeypatch.setenv("PANRT_HUB", server.address)
        yield server
