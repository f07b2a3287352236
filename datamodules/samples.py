"""What every dataset is read into: a list of samples, and one error that names all of its problems."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from fdsl.errors import FDSLError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})
GOOD = "good"


@dataclass(frozen=True)
class Sample:
    """One image of a dataset.

    Attributes:
        path: image file, relative to the dataset's root, with forward slashes.
        category: the product, by its official name.
        split: ``train`` (defect-free, where references are drawn) or ``test``.
        defect: kind of defect, ``good`` where there is none.
        mask: mask file, relative to the root; None exactly where the image is defect-free.
    """

    path: str
    category: str
    split: Literal["train", "test"]
    defect: str
    mask: str | None

    @property
    def label(self) -> int:
        """1 where the image is defective, else 0."""
        return int(self.defect != GOOD)


class Problem(NamedTuple):
    """Something wrong with a dataset: in which category, and a line that names the file."""

    category: str
    text: str


class Reading(NamedTuple):
    """A dataset as found: its sound samples, sorted by category, split and path, and everything that is wrong."""

    samples: list[Sample]
    problems: list[Problem]

    def sorted(self) -> "Reading":
        """Sort, as every reader must, so that nothing depends on the order of a file system's listing."""
        return Reading(sorted(self.samples, key=lambda s: (s.category, s.split, s.path)), sorted(self.problems))


Reader = Callable[[Path], Reading]
"""Reads a dataset's folder; raises DatasetError where there is nothing to read."""


class DatasetError(FDSLError):
    """A dataset that cannot be used as it is; the message lists every problem found.

    Args:
        where: the dataset's folder.
        problems: one line each, naming the file.
        mend: what to do about it.
    """

    SHOWN = 20

    def __init__(self, where: Path, problems: Sequence[str], mend: str) -> None:
        self.problems = list(problems)
        shown = [f"  - {p}" for p in self.problems[: self.SHOWN]]
        if len(self.problems) > self.SHOWN:
            shown.append(f"  ... and {len(self.problems) - self.SHOWN} more (`make check-data` lists all)")
        count = f"{len(self.problems)} problem{'s' if len(self.problems) != 1 else ''}"
        super().__init__("\n".join([f"{where}: {count} in this dataset", *shown, f"  {mend}"]))


def image_files(folder: Path) -> list[Path]:
    """Return the image files directly in a folder, sorted by name; an absent folder has none."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))
