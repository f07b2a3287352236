"""Torch datasets over samples, and loaders whose order and augmentation depend on (seed, epoch, image) alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from datamodules.augment import Augmentation
from datamodules.images import Fit, Pixels, fit_image, fit_mask, normalise, open_image, open_mask
from datamodules.samples import Sample


class Item(TypedDict):
    """What a loader yields, batched along the first axis."""

    image: Tensor  # 3 S S float32, normalised
    mask: Tensor  # M M uint8
    label: int
    defect_visible: bool  # False where cropping cut the whole defect away
    category: str
    path: str
    variant: int  # which augmentation of the image this is: same path and variant, same pixels


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the backbone's input.

    Attributes:
        image_size: side S in pixels.
        mean: by channel, of pixels scaled to [0, 1].
        std: by channel.
        fit: what happens to oblong images, see :func:`datamodules.images.fit_image`.
    """

    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fit: Fit = "crop"

    def pixels(self, path: Path) -> Pixels:
        """Load an image as (S, S, 3) uint8."""
        return fit_image(open_image(path), self.image_size, self.fit)

    def tensor(self, pixels: Pixels) -> Tensor:
        """Normalise (S, S, 3) uint8 to (3, S, S) float32."""
        return normalise(pixels, self.mean, self.std)


class TestImages(Dataset[Item]):
    """Test images of one category with masks at the anomaly map's size."""

    __test__ = False  # not a test case, whatever pytest thinks of the name

    def __init__(self, root: Path, samples: Sequence[Sample], preprocessing: Preprocessing, map_size: int) -> None:
        self.root, self.samples, self.preprocessing, self.map_size = root, samples, preprocessing, map_size

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Item:
        sample = self.samples[index]
        image = self.preprocessing.tensor(self.preprocessing.pixels(self.root / sample.path))
        mask = np.zeros((self.map_size, self.map_size), np.uint8)
        if sample.mask is not None:
            mask = fit_mask(open_mask(self.root / sample.mask), self.map_size, self.preprocessing.fit)
        return _item(sample, image, mask)


class Key(NamedTuple):
    """Names one training item: the same key always gives the same pixels."""

    variant: int
    image: int


class AuxiliaryImages(Dataset[Item]):
    """Labelled auxiliary images, augmented; indexed by :class:`Key`."""

    def __init__(
        self,
        root: Path,
        samples: Sequence[Sample],
        preprocessing: Preprocessing,
        augment: Augmentation | None,
        seed: int,
    ) -> None:
        self.root, self.samples, self.preprocessing = root, samples, preprocessing
        self.augment, self.seed = augment, seed
        self.by_category: dict[str, list[Sample]] = {}
        for sample in samples:
            self.by_category.setdefault(sample.category, []).append(sample)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: Key) -> Item:
        sample = self.samples[key.image]
        pixels, mask = self._pair(sample)
        if self.augment is not None:
            rng = np.random.default_rng([self.seed, key.variant, key.image])
            peers = self.by_category[sample.category]
            pixels, mask = self.augment(pixels, mask, lambda: self._pair(peers[int(rng.integers(len(peers)))]), rng)
        return _item(sample, self.preprocessing.tensor(pixels), mask, key.variant)

    def _pair(self, sample: Sample) -> tuple[Pixels, Pixels]:
        size = self.preprocessing.image_size
        pixels = self.preprocessing.pixels(self.root / sample.path)
        if sample.mask is None:
            return pixels, np.zeros((size, size), np.uint8)
        return pixels, fit_mask(open_mask(self.root / sample.mask), size, self.preprocessing.fit)


def _item(sample: Sample, image: Tensor, mask: Pixels, variant: int = 0) -> Item:
    return Item(
        image=image,
        mask=torch.from_numpy(mask),
        label=sample.label,
        defect_visible=bool(mask.any()) or not sample.label,
        category=sample.category,
        path=sample.path,
        variant=variant,
    )


class ShareSampler(Sampler[int]):
    """This process's share of a test set, in order: shares may differ by one, and no image is counted twice."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __iter__(self) -> Iterator[int]:
        return iter(self._share())

    def __len__(self) -> int:
        return len(self._share())

    def _share(self) -> range:
        rank, world = _process()  # asked late: loaders are made before the processes know each other
        return range(rank, self.size, world)


class EpochSampler(Sampler[Key]):
    """Shuffles anew in every epoch, by (seed, epoch); drops the remainder that would make processes uneven.

    Args:
        size: number of images.
        seed: of the order.
        pool: augmentations of each image that epochs take in turn; None makes a new one in every epoch.
    """

    def __init__(self, size: int, seed: int, pool: int | None = None) -> None:
        self.size, self.seed, self.pool, self.epoch = size, seed, pool, 0
        self.resumed: tuple[int, int] | None = None  # an epoch, and how many of its images to skip

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Key]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.size)
        rank, world = _process()
        mine = order[rank : self.size - self.size % world : world]
        start = self.resumed[1] if self.resumed and self.resumed[0] == self.epoch else 0
        variant = self.epoch if self.pool is None else self.epoch % self.pool
        return iter([Key(variant, int(i)) for i in mine[start:]])

    def __len__(self) -> int:
        return self.size // _process()[1]


class ResumableLoader(DataLoader[Item]):
    """A training loader that Lightning can stop and take up again in the middle of an epoch."""

    sampler: EpochSampler

    def __init__(
        self, dataset: AuxiliaryImages, batch_size: int, seed: int, num_workers: int, pool: int | None = None
    ) -> None:
        super().__init__(
            dataset,
            batch_size=batch_size,
            sampler=EpochSampler(len(dataset), seed, pool),
            num_workers=num_workers,
            persistent_workers=False,
            pin_memory=torch.cuda.is_available(),
        )
        self._done = 0  # batches of this epoch already handed out

    def __iter__(self) -> Any:
        resumed = self.sampler.resumed
        self._done = resumed[1] // (self.batch_size or 1) if resumed and resumed[0] == self.sampler.epoch else 0
        for batch in super().__iter__():
            self._done += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and how many of its batches have been handed out."""
        return {"epoch": self.sampler.epoch, "done": self._done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Skip what had been handed out; the images skipped are not loaded."""
        self.sampler.resumed = state["epoch"], state["done"] * (self.batch_size or 1)


def _process() -> tuple[int, int]:
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)
