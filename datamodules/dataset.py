"""Torch datasets over samples, and loaders whose order and augmentation depend on (seed, epoch, image) alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from datamodules.augment import Augmentation
from datamodules.images import Fit, Pixels, fit_image, fit_mask, normalise, open_image, open_mask
from datamodules.samples import Sample
from fdsl.backbones import Encoding
from fdsl.feature_cache import FeatureCache


class Item(TypedDict):
    """What a loader yields, batched along the first axis."""

    image: Tensor | None  # 3 S S float32, normalised; None where its features are known and say it all
    mask: Tensor  # M M uint8
    label: int
    defect_visible: bool  # False where cropping cut the whole defect away
    category: str
    path: str
    variant: int  # which augmentation of the image this is: same path and variant, same pixels
    content: NotRequired[str]  # name of the image in the feature cache
    known: NotRequired[Encoding | None]  # its features, if they are there


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


class Remembered(NamedTuple):
    """What is known of the images of a dataset.

    Attributes:
        features: where their features are kept.
        contents: name of each image there.
        load_all: load the images whose features are known as well, for their windows.
    """

    features: FeatureCache
    contents: Sequence[str]
    load_all: bool


class TestImages(Dataset[Item]):
    """Test images of one category with masks at the anomaly map's size.

    With ``remembered``, items have two entries more, ``content`` and ``known`` (the image's features, or None), and an
    image that need not be encoded is not loaded. Batches are made by :func:`collate`.
    """

    __test__ = False  # not a test case, whatever pytest thinks of the name

    def __init__(
        self,
        root: Path,
        samples: Sequence[Sample],
        preprocessing: Preprocessing,
        map_size: int,
        remembered: Remembered | None = None,
    ) -> None:
        self.root, self.samples, self.preprocessing, self.map_size = root, samples, preprocessing, map_size
        self.remembered = remembered

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Item:
        sample = self.samples[index]
        mask = np.zeros((self.map_size, self.map_size), np.uint8)
        if sample.mask is not None:
            mask = fit_mask(open_mask(self.root / sample.mask), self.map_size, self.preprocessing.fit)
        if self.remembered is None:
            return _item(sample, self._image(sample), mask)
        content = self.remembered.contents[index]
        known = self.remembered.features.read(content)
        item = _item(sample, self._image(sample) if known is None or self.remembered.load_all else None, mask)
        item["content"], item["known"] = content, known
        return item

    def _image(self, sample: Sample) -> Tensor:
        return self.preprocessing.tensor(self.preprocessing.pixels(self.root / sample.path))


def collate(items: Sequence[Item]) -> dict[str, Any]:
    """Join items to a batch; ``image`` holds those that were loaded, and ``known`` is a list."""
    apart = ("image", "known")
    batch: dict[str, Any] = default_collate([{k: v for k, v in item.items() if k not in apart} for item in items])
    loaded = [item["image"] for item in items if item["image"] is not None]
    batch["image"] = torch.stack(loaded) if loaded else torch.empty(0, 3, 0, 0)
    if "known" in items[0]:
        batch["known"] = [item["known"] for item in items]
    return batch


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


def _item(sample: Sample, image: Tensor | None, mask: Pixels, variant: int = 0) -> Item:
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
