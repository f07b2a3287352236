"""The few-shot protocol as a LightningDataModule; datasets differ in how they are read.

One class serves both roles. As the *target* it gives k references and the test images of each category; as the
*auxiliary* dataset it gives augmented, labelled images (its test split: that is where labelled defects are) with the
references of their categories.
"""

import logging
from abc import abstractmethod
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.augment import Augmentation
from datamodules.check import file_problems, repeated
from datamodules.dataset import (
    AuxiliaryImages,
    Item,
    Preprocessing,
    Remembered,
    ResumableLoader,
    ShareSampler,
    TestImages,
    collate,
)
from datamodules.download import Archive, fetch
from datamodules.fingerprint import HASHES_FILE, ContentHashes
from datamodules.images import FITS, Fit, Pixels
from datamodules.references import SAMPLINGS, Sampling, draw_references, read_manifest, write_manifest
from datamodules.samples import DatasetError, Reading, Sample
from fdsl.errors import ConfigError
from fdsl.feature_cache import FeatureCache
from fdsl.reference import Shots

log = logging.getLogger(__name__)


class FewShotDataModule(LightningDataModule):
    """A dataset in its few-shot roles.

    Args:
        root: the dataset's folder.
        image_size: side of the backbone's input, in pixels.
        mean: of the backbone's input, by channel.
        std: of the backbone's input, by channel.
        map_size: side of test masks, in pixels: the size that anomaly maps are measured at.
        categories: the categories to use; None for all.
        kshots: references a category; several for several settings at once.
        seed: seed of the references, and of shuffling and augmentation in the auxiliary role.
        seeds: seeds of several draws of references, in place of ``seed``.
        reference_sampling: ``without_replacement``, or ``with_replacement`` as upstream draws.
        references: a manifest to read the references from, in place of drawing them.
        limit: at most so many normal and so many defective test images a category, evenly spread; None for all.
        fit: ``crop`` or ``stretch``, for oblong images.
        augment: augmentation of auxiliary images; None for none.
        pool: augmentations of each auxiliary image that the epochs take in turn; None makes new ones in every epoch.
        batch_size: images a batch.
        num_workers: loader processes; 0 loads in this one.
        download: fetch the official archive if the folder is not there.
        url: where to fetch it from, in place of the official address.
        progress: show progress bars.

    Raises:
        ConfigError: for an unknown choice, or a size below 1.
    """

    name: str | None = None
    archive: ClassVar[Archive | None] = None

    def __init__(
        self,
        root: str,
        image_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        map_size: int = 240,
        categories: Sequence[str] | None = None,
        kshots: int | Sequence[int] = 1,
        seed: int = 0,
        seeds: Sequence[int] | None = None,
        reference_sampling: Sampling = "without_replacement",
        references: str | None = None,
        limit: int | None = None,
        fit: Fit = "crop",
        augment: Augmentation | None = None,
        pool: int | None = None,
        batch_size: int = 8,
        num_workers: int = 0,
        download: bool = False,
        url: str | None = None,
        progress: bool = True,
    ) -> None:
        super().__init__()
        if fit not in FITS or reference_sampling not in SAMPLINGS:
            raise ConfigError(f"fit must be one of {FITS} and reference_sampling one of {SAMPLINGS}")
        self.kshots = (kshots,) if isinstance(kshots, int) else tuple(kshots)
        self.seeds = (seed,) if seeds is None else tuple(seeds)
        counts = {
            "kshots": min(self.kshots, default=0),
            "batch_size": batch_size,
            "image_size": image_size,
            "map_size": map_size,
        }
        optional = {key: value for key, value in (("limit", limit), ("pool", pool)) if value is not None}
        for key, value in {**counts, **optional}.items():
            if not isinstance(value, int) or value < 1:
                raise ConfigError(f"{key}={value!r}: must be a whole number, at least 1")
        if not isinstance(download, bool):
            raise ConfigError(f"download={download!r}: must be true or false")
        if categories is not None and (
            isinstance(categories, str) or not all(isinstance(name, str) for name in categories)
        ):
            raise ConfigError(f"categories={categories!r}: a list of names, such as [bottle,screw] or ['01','02']")
        if not isinstance(num_workers, int) or num_workers < 0:
            raise ConfigError(f"num_workers={num_workers!r}: must be a whole number, at least 0")
        self.root = Path(root).expanduser()
        self.preprocessing = Preprocessing(image_size, tuple(mean), tuple(std), fit)
        self.map_size, self.seed, self.limit = map_size, seed, limit
        self.reference_sampling, self.manifest_path = reference_sampling, references
        self.augment, self.pool, self.batch_size, self.num_workers = augment, pool, batch_size, num_workers
        self.download, self.url, self.progress = download, url, progress
        self._wanted = list(categories) if categories is not None else None
        self._test: dict[str, list[Sample]] = {}
        self._references: dict[int, dict[str, list[Sample]]] = {}  # of the largest k, by seed
        self._features: tuple[FeatureCache, bool] | None = None

    @abstractmethod
    def read(self) -> Reading:
        """Read the dataset's folder, see :data:`datamodules.samples.Reader`."""

    def prepare_data(self) -> None:
        """Fetch the dataset if that was asked for."""
        if self.download:
            if self.archive is None:
                raise ConfigError(f"data.download: there is no archive of {self.name}")
            fetch(self.archive, self.root, url=self.url, progress=self.progress)

    def setup(self, stage: str | None = None) -> None:
        """Read the folder, check every file's header and choose the references; does nothing the second time.

        Raises:
            ConfigError: for a category that the dataset does not have.
            DatasetError: naming every problem of the dataset at once.
        """
        if self._test:
            return
        samples, found_problems = self.read()
        found = sorted({s.category for s in samples} | {p.category for p in found_problems if p.category})
        wanted = found if self._wanted is None else self._wanted
        if not wanted:
            raise ConfigError("categories=[]: no categories to use; name some, or null for all")
        if unknown := [c for c in wanted if c not in found]:
            raise ConfigError(f"unknown category {', '.join(unknown)}: {self.root} has {', '.join(found)}")
        samples = [s for s in samples if s.category in set(wanted)]
        problems = [p.text for p in found_problems if p.category in {*wanted, ""}]
        problems += repeated(samples) + file_problems(self.root, samples)
        if problems:
            mend = "mend these files, or leave their categories out: data.categories=[...]"
            raise DatasetError(self.root, problems, mend)
        self._references = {seed: self._choose_references(samples, wanted, seed) for seed in self.seeds}
        by_category = {c: [s for s in samples if s.category == c and s.split == "test"] for c in wanted}
        if empty := [c for c, tests in by_category.items() if not tests]:
            raise DatasetError(self.root, [f"{c}: no test images" for c in empty], "add test images or leave it out")
        self._test = {c: _spread(tests, self.limit) for c, tests in by_category.items()}

    def _choose_references(self, samples: list[Sample], wanted: list[str], seed: int) -> dict[str, list[Sample]]:
        most = max(self.kshots)
        if self.manifest_path is not None:
            return read_manifest(Path(self.manifest_path), self.root, samples, wanted, most)
        chosen: dict[str, list[Sample]] = {}
        problems: list[str] = []
        for category in wanted:
            normals = [s for s in samples if s.category == category and s.split == "train"]
            try:
                chosen[category] = draw_references(normals, most, seed, self.reference_sampling)
            except ValueError as error:
                problems.append(str(error))
        if problems:
            raise DatasetError(self.root, problems, "lower the number of references, or leave these categories out")
        return chosen

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories in use; known after :meth:`setup`."""
        return tuple(self._test)

    @property
    def settings(self) -> list[Shots]:
        """Every combination of shots and seeds."""
        return [Shots(k, seed) for seed in self.seeds for k in self.kshots]

    def reference_manifest(self, shots: Shots | None = None) -> dict[str, Any]:
        """Describe the references of one setting, or of the only one, as ``references=FILE`` reads them back."""
        k, seed = shots or self.settings[0]
        drawn = {category: samples[:k] for category, samples in self._references[seed].items()}
        return {"dataset": self.name, "kshots": k, **write_manifest(self.root, seed, self.reference_sampling, drawn)}

    def use_features(self, features: FeatureCache, load_all: bool) -> None:
        """Take the features of test images from a cache; with ``load_all`` the images are loaded nevertheless."""
        self._features = features, load_all

    def content_digest(self, index: Path | None = None, references: bool = True) -> str:
        """Hash all that is read from the folder: test images, masks and references in use, by content.

        Args:
            index: a file that remembers the hashes of single files between runs.
            references: false leaves the references out.
        """
        hashes = ContentHashes(index)
        drawn = [group for of_seed in self._references.values() for group in of_seed.values()] if references else []
        used = [s for group in (*self._test.values(), *drawn) for s in group]
        images = hashes.of([self.root / s.path for s in used])
        masks = iter(hashes.of([self.root / s.mask for s in used if s.mask is not None]))
        lines = [
            f"{s.category} {s.split} {s.label} {s.path} {image} {next(masks) if s.mask is not None else '-'}"
            for s, image in zip(used, images, strict=True)
        ]
        return sha256("\n".join(lines).encode()).hexdigest()

    def test_paths(self) -> dict[str, list[str]]:
        """Paths of the test images in use, by category, relative to the root."""
        return {c: [s.path for s in tests] for c, tests in self._test.items()}

    def pixels(self, path: str) -> Pixels:
        """Load one image, by its path relative to the root, as the backbone sees it before normalisation."""
        return self.preprocessing.pixels(self.root / path)

    def reference_images(self, category: str, seed: int | None = None) -> Tensor:
        """Load a category's preprocessed references (k, 3, S, S) for the largest k; a smaller k's come first."""
        paths = [self.root / s.path for s in self._references[self.seeds[0] if seed is None else seed][category]]
        return torch.stack([self.preprocessing.tensor(self.preprocessing.pixels(p)) for p in paths])

    def train_dataloader(self) -> ResumableLoader:
        """Augmented, labelled images of all categories: the auxiliary role."""
        samples = [s for tests in self._test.values() for s in tests]
        images = AuxiliaryImages(self.root, samples, self.preprocessing, self.augment, self.seed)
        return ResumableLoader(images, self.batch_size, self.seed, self.num_workers, self.pool)

    def test_dataloader(self) -> list[DataLoader[Item]]:
        """One loader a category, in the order of :attr:`categories`: the target role."""
        made = (
            TestImages(self.root, tests, self.preprocessing, self.map_size, self._remembered(tests))
            for tests in self._test.values()
        )
        return [
            DataLoader(
                d, self.batch_size, sampler=ShareSampler(len(d)), num_workers=self.num_workers, collate_fn=collate
            )
            for d in made
        ]

    def _remembered(self, tests: list[Sample]) -> Remembered | None:
        if self._features is None:
            return None
        features, load_all = self._features
        hashes = ContentHashes(features.root / HASHES_FILE)
        return Remembered(features, hashes.of([self.root / s.path for s in tests]), load_all)


def _spread(samples: list[Sample], limit: int | None) -> list[Sample]:
    """Keep at most ``limit`` normal and ``limit`` defective samples, evenly spread over the sorted list."""
    if limit is None:
        return samples
    kept: set[Sample] = set()
    for label in (0, 1):
        group = [s for s in samples if s.label == label]
        count = min(limit, len(group))
        kept |= {group[i * len(group) // count] for i in range(count)}
    return [s for s in samples if s in kept]
