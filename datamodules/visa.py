"""VisA: reading its official tree (Zou et al., ECCV 2022).

``split_csv/1cls.csv`` (columns object, split, label, image, mask) names every image; masks are single-channel
files whose non-zero values name the kind of defect.
"""

import csv
from pathlib import Path
from typing import Literal

from datamodules.base import FewShotDataModule
from datamodules.download import VISA
from datamodules.meta import META_FILE, read_meta
from datamodules.samples import GOOD, DatasetError, Problem, Reading, Sample

SPLIT_FILE = Path("split_csv") / "1cls.csv"
COLUMNS = {"object", "split", "label", "image", "mask"}
MEND = "restore these files from the archive, or point data.root at a complete copy"


def read_visa_tree(root: Path) -> Reading:
    """Read a dataset in VisA's layout.

    Raises:
        DatasetError: if that file is missing or has other columns.
    """
    table = root / SPLIT_FILE
    if not table.is_file():
        raise DatasetError(
            root,
            [f"{SPLIT_FILE} is missing" if root.is_dir() else "there is no such folder"],
            "point data.root (or FDSL_DATA) at the extracted dataset, or fetch it with data.download=true",
        )
    with table.open(newline="", encoding="utf-8-sig") as lines:
        rows = list(csv.DictReader(lines))
    if not rows or not set(rows[0]) >= COLUMNS:
        raise DatasetError(table, [f"columns must be {sorted(COLUMNS)}"], MEND)
    found = Reading([], [])
    for number, row in enumerate(rows, start=2):  # line 1 holds the names of the columns
        defective = row["label"] != "normal"
        problem = None
        if row["label"] not in ("normal", "anomaly") or row["split"] not in ("train", "test"):
            problem = f"unknown label {row['label']!r} or split {row['split']!r}"
        elif defective != bool(row["mask"]):
            problem = "defective, but has no mask" if defective else "normal, but has a mask"
        elif defective and row["split"] == "train":
            problem = "defective, but in the train split"
        if problem is not None:
            found.problems.append(Problem(row["object"], f"{row['image']}: {problem} ({SPLIT_FILE}, line {number})"))
        else:
            split: Literal["train", "test"] = "train" if row["split"] == "train" else "test"
            kind = "anomaly" if defective else GOOD
            found.samples.append(Sample(row["image"], row["object"], split, kind, row["mask"] or None))
    named = {row["mask"] for row in rows}
    for path in (p.relative_to(root).as_posix() for p in root.glob("*/Data/Masks/Anomaly/*") if p.is_file()):
        if path not in named:
            found.problems.append(Problem(path.split("/")[0], f"{path}: mask of no image in {SPLIT_FILE}"))
    return found.sorted()


def read_visa(root: Path) -> Reading:
    """Read a dataset in this layout from its ``meta.json`` if there is one, else from its tree.

    Raises:
        DatasetError: if there is neither.
    """
    return read_meta(root, {}) if (root / META_FILE).is_file() else read_visa_tree(root)


class VisADataModule(FewShotDataModule):
    """VisA, or any dataset in its layout."""

    name = "visa"
    archive = VISA

    def read(self) -> Reading:
        """Read the folder, see :func:`read_visa`."""
        return read_visa(self.root)
