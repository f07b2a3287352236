"""The official folder layouts of MVTec AD and VisA: which image goes where, and how masks are stored."""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.progress import track

from datamodules.synthetic.catalogue import CATALOGUE
from datamodules.synthetic.photograph import Photograph, Split, defect_kind, photograph

JPEG_QUALITY = 95


@dataclass(frozen=True)
class Settings:
    """What a synthetic dataset consists of; see :func:`datamodules.synthetic.write_mvtec`."""

    layout: str
    categories: tuple[str, ...]
    image_size: int
    train: int
    good: int
    defective: int
    seed: int

    def photographs(self, category: str, split: Split) -> Iterator[Photograph]:
        """Render the images of one split in order."""
        count = {"train": self.train, "good": self.good, "defective": self.defective}[split]
        return (photograph(category, split, i, self.seed, self.image_size) for i in range(count))


def write_mvtec_tree(root: Path, settings: Settings, progress: bool = False) -> None:
    """Write ``<category>/{train,test}/<kind>/000.png`` and ``.../ground_truth/<kind>/000_mask.png``."""
    for category in _counted(settings, progress):
        folder = root / category
        for index, shot in enumerate(settings.photographs(category, "train")):
            _save(shot.image, folder / "train" / "good" / f"{index:03d}.png")
        for index, shot in enumerate(settings.photographs(category, "good")):
            _save(shot.image, folder / "test" / "good" / f"{index:03d}.png")
        for index, shot in enumerate(settings.photographs(category, "defective")):
            kind, number = defect_kind(category, index), index // len(CATALOGUE[category].defects)
            _save(shot.image, folder / "test" / kind / f"{number:03d}.png")
            _save(shot.mask.astype(np.uint8) * 255, folder / "ground_truth" / kind / f"{number:03d}_mask.png")


def write_visa_tree(root: Path, settings: Settings, progress: bool = False) -> None:
    """Write ``<category>/Data/{Images,Masks}`` and ``split_csv/1cls.csv``.

    As in VisA, the pixels of a mask hold the number of the kind of defect, from 1 on, and normal images for
    training and for testing lie in one folder: the table says which is which.
    """
    rows: list[tuple[str, str, str, str, str]] = []
    for category in _counted(settings, progress):
        images, masks = f"{category}/Data/Images", f"{category}/Data/Masks"
        normal = chain(settings.photographs(category, "train"), settings.photographs(category, "good"))
        for index, shot in enumerate(normal):
            path = f"{images}/Normal/{index:04d}.JPG"
            _save(shot.image, root / path)
            rows.append((category, "train" if index < settings.train else "test", "normal", path, ""))
        kinds = list(CATALOGUE[category].defects)
        for index, shot in enumerate(settings.photographs(category, "defective")):
            path, mask = f"{images}/Anomaly/{index:03d}.JPG", f"{masks}/Anomaly/{index:03d}.png"
            value = kinds.index(defect_kind(category, index)) + 1
            _save(shot.image, root / path)
            _save(shot.mask.astype(np.uint8) * np.uint8(value), root / mask)
            rows.append((category, "test", "anomaly", path, mask))
    table = root / "split_csv" / "1cls.csv"
    table.parent.mkdir(parents=True)
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([("object", "split", "label", "image", "mask"), *rows])


def _counted(settings: Settings, progress: bool) -> Iterable[str]:
    return track(settings.categories, "rendering products", console=Console(stderr=True), disable=not progress)


def _save(pixels: NDArray[np.uint8], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if path.suffix == ".png":
        image.save(path, compress_level=3)  # grain hardly compresses, whatever time is spent on it
    else:
        image.save(path, format="JPEG", quality=JPEG_QUALITY)
