"""Training samples, their augmentation and batches.

Shapes: H x W pixels of an image, G objects (things) in it, N images of a batch, Hp x Wp the largest of them padded to
multiples of 32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from panrt.errors import ClassMismatchError
from panrt.formats.metadata import SIZE_DIVISOR
from panrt.formats.records import legible, shown
from panrt.model.data.classes import VOID, ClassTable
from panrt.model.data.coco_panoptic import CocoPanoptic, derive_targets, load_sample
from panrt.model.losses import Targets
from panrt.model.panoptic_fpn import PanopticFPN


class TrainingSample(NamedTuple):
    """One labelled image."""

    image_bgr: NDArray[np.uint8]  # (H, W, 3)
    boxes: NDArray[np.float32]  # (G, 4): x0, y0, x1, y1 in pixels
    classes: NDArray[np.int64]  # (G,), 0..C-1
    masks: NDArray[np.bool_]  # (G, H, W)
    semantic: NDArray[np.uint8]  # (H, W), channel 0..S-1 (0 = "things"), 255 where unlabelled


class TrainingData(Protocol):
    """A list of samples, read one at a time."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> TrainingSample: ...


def flip(sample: TrainingSample) -> TrainingSample:
    """Return the sample mirrored left to right."""
    x0, y0, x1, y1 = sample.boxes.T
    width = np.float32(sample.image_bgr.shape[1])
    return TrainingSample(
        sample.image_bgr[:, ::-1],
        np.stack([width - x1, y0, width - x0, y1], axis=1),
        sample.classes,
        sample.masks[:, :, ::-1],
        sample.semantic[:, ::-1],
    )


def resize(sample: TrainingSample, *, short_side: int, max_side: int) -> TrainingSample:
    """Resize a sample to the given shorter side, or smaller if the longer one would exceed `max_side`.

    The image is low-pass filtered when it shrinks, labels take the nearest pixel. Objects left without pixels go.
    """
    height, width = sample.image_bgr.shape[:2]
    image = resize_image(sample.image_bgr, short_side=short_side, max_side=max_side)
    size = image.shape[0], image.shape[1]
    masks = _nearest(sample.masks.astype(np.uint8), size).astype(np.bool_)
    kept = masks.any(axis=(1, 2))
    grown = np.array([size[1] / width, size[0] / height] * 2, np.float32)
    return TrainingSample(
        image,
        sample.boxes[kept] * grown,
        sample.classes[kept],
        masks[kept],
        _nearest(sample.semantic[None], size)[0],
    )


def resize_image(image_bgr: NDArray[np.uint8], *, short_side: int, max_side: int) -> NDArray[np.uint8]:
    """Resize an image (H, W, 3) to the given shorter side, or smaller if the longer one would exceed `max_side`."""
    height, width = image_bgr.shape[:2]
    scale = min(short_side / min(height, width), max_side / max(height, width))
    size = (int(height * scale + 0.5), int(width * scale + 0.5))
    image = torch.from_numpy(np.ascontiguousarray(image_bgr)).permute(2, 0, 1)[None].float()
    image = functional.interpolate(image, size=size, mode="bilinear", antialias=True).round().clamp(0, 255)
    resized: NDArray[np.uint8] = image[0].permute(1, 2, 0).byte().numpy()
    return resized


def _nearest(maps: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize (G, H, W) to (G, *size) by the pixel under each new pixel's centre."""
    rows, columns = (
        ((np.arange(new) + 0.5) * (old / new)).astype(np.intp) for new, old in zip(size, maps.shape[1:], strict=True)
    )
    resized: NDArray[np.uint8] = maps[:, rows[:, None], columns[None]]
    return resized


class CocoPanopticSamples:
    """A data set in the COCO panoptic format as `TrainingData`; images and labels are read on access."""

    def __init__(self, dataset: CocoPanoptic, classes: ClassTable) -> None:
        """Check that the data set has the classes that the network was built for.

        Raises:
            ClassMismatchError: its things or stuff have other ids, or are in another order.
        """
        check_classes(dataset.classes, classes)
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset.records)

    def __getitem__(self, index: int) -> TrainingSample:
        record = self.dataset.records[index]
        sample = load_sample(record)
        targets = derive_targets(sample, self.dataset.classes, name=legible(record.label_path))
        return TrainingSample(sample.image, targets.boxes, targets.classes, targets.masks, targets.semantic)


def check_classes(found: ClassTable, expected: ClassTable) -> None:
    """Check that the classes of a data set are, in order, those of a network.

    Raises:
        ClassMismatchError: they are not; the message names the first that differs.
    """
    for kind in ("things", "stuff"):
        ids = [[(c.id, c.name) for c in getattr(table, kind)] for table in (found, expected)]
        if ids[0] != ids[1]:
            at = next((i for i, pair in enumerate(zip(*ids, strict=False)) if pair[0] != pair[1]), min(map(len, ids)))
            here, wanted = (shown(of[at]) if at < len(of) else "nothing" for of in ids)
            raise ClassMismatchError(
                f"classes: the data set has {len(ids[0])} {kind}, the network was built for {len(ids[1])}; the first "
                f"that differs, number {at}, is {here} in the data set and {wanted} in the network. Take the data set "
                "that the network was trained for, or a network with these classes."
            )


class Step(NamedTuple):
    """The samples of one training step, augmented, and the origin of each."""

    samples: tuple[TrainingSample, ...]
    keys: tuple[tuple[int, bool], ...]  # index in the data, mirrored


class Steps(Dataset[Step]):
    """The steps of a training: item i is a pure function of the seed and i, so resuming needs no state of a reader.

    Every epoch is a permutation of the data; a step may span two epochs.
    """

    def __init__(
        self,
        data: TrainingData,
        *,
        steps: int,
        batch_size: int,
        seed: int,
        mirror: bool,
        short_sides: tuple[int, ...],
        max_side: int,
    ) -> None:
        self.data = data
        self.steps = steps
        self.batch_size = batch_size
        self.seed = seed
        self.mirror = mirror
        self.short_sides = short_sides
        self.max_side = max_side

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Step:
        random = np.random.default_rng([self.seed, 1, step])
        samples, keys = [], []
        for index in self._indices(step):
            sample = self.data[index]
            mirrored = self.mirror and bool(random.integers(2))
            if mirrored:
                sample = flip(sample)
            if self.short_sides:
                sample = resize(sample, short_side=int(random.choice(self.short_sides)), max_side=self.max_side)
            samples.append(sample)
            keys.append((index, mirrored))
        return Step(tuple(samples), tuple(keys))

    def _indices(self, step: int) -> Iterator[int]:
        for position in range(step * self.batch_size, (step + 1) * self.batch_size):
            epoch, place = divmod(position, len(self.data))
            yield int(np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.data))[place])


class Batch(NamedTuple):
    images: Tensor  # (N, 3, Hp, Wp), normalised, zero beyond each image
    targets: tuple[Targets, ...]


def collate(samples: Sequence[TrainingSample], model: PanopticFPN, device: torch.device) -> Batch:
    """Return samples of any sizes as one batch, normalised for `model`."""
    padded = [max(-(-s.image_bgr.shape[axis] // SIZE_DIVISOR) * SIZE_DIVISOR for s in samples) for axis in (0, 1)]
    images = torch.zeros((len(samples), 3, *padded), device=device)
    targets = []
    for image, sample in zip(images, samples, strict=True):
        height, width = sample.image_bgr.shape[:2]
        pixels = torch.from_numpy(np.ascontiguousarray(sample.image_bgr)).to(device)
        image[:, :height, :width] = model.prepare(pixels[None])[0, :, :height, :width]
        semantic = np.full(padded, VOID, np.uint8)
        semantic[:height, :width] = sample.semantic
        targets.append(
            Targets(
                (height, width),
                torch.from_numpy(sample.boxes).to(device),
                torch.from_numpy(sample.classes).to(device),
                torch.from_numpy(np.ascontiguousarray(sample.masks)).to(device),
                torch.from_numpy(semantic).to(device),
            )
        )
    return Batch(images, tuple(targets))
