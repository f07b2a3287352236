"""MVTec AD: reading its official folder tree (Bergmann et al., CVPR 2019).

``<category>/train/good``, ``<category>/test/<good or a defect>``, ``<category>/ground_truth/<defect>/<stem>_mask.png``.
"""

from pathlib import Path

from datamodules.base import FewShotDataModule
from datamodules.download import MVTEC_AD
from datamodules.meta import META_FILE, read_meta
from datamodules.samples import GOOD, DatasetError, Problem, Reading, Sample, image_files

ALIASES = {f"{name}_textture": name for name in ("carpet", "grid", "leather", "tile", "wood")}
"""Folder names that upstream's preparation script gives to the textures."""


def read_mvtec_tree(root: Path) -> Reading:
    """Read a dataset in MVTec AD's layout.

    Masks are paired with images by stem. Every image without a mask and every mask without an image is reported.

    Raises:
        DatasetError: if there is no such tree.
    """
    folders = sorted(p for p in root.iterdir() if (p / "train" / GOOD).is_dir()) if root.is_dir() else []
    if not folders:
        raise DatasetError(
            root,
            ["no folder of the form <category>/train/good" if root.is_dir() else "there is no such folder"],
            "point data.root (or FDSL_DATA) at the extracted dataset, or fetch it with data.download=true",
        )
    found = Reading([], [])
    for folder in folders:
        category = ALIASES.get(folder.name, folder.name)
        if category in {s.category for s in found.samples}:
            found.problems.append(Problem(category, f"{folder}: there twice, under its official name and an alias"))
        for path in image_files(folder / "train" / GOOD):
            found.samples.append(Sample(path.relative_to(root).as_posix(), category, "train", GOOD, None))
        for kind in sorted(p for p in (folder / "test").glob("*") if p.is_dir()):
            masks = {p.stem.removesuffix("_mask"): p for p in image_files(folder / "ground_truth" / kind.name)}
            for path in image_files(kind):
                mask = masks.pop(path.stem, None)
                if kind.name != GOOD and mask is None:
                    text = f"{path}: defective ({kind.name}) but has no mask {path.stem}_mask.png"
                    found.problems.append(Problem(category, text))
                    continue
                where = mask.relative_to(root).as_posix() if mask and kind.name != GOOD else None
                found.samples.append(Sample(path.relative_to(root).as_posix(), category, "test", kind.name, where))
            extra = (f"{mask}: mask without an image in {kind}" for mask in masks.values())
            found.problems.extend(Problem(category, text) for text in extra)
        for lost in (folder / "ground_truth").glob("*"):
            if lost.is_dir() and not (folder / "test" / lost.name).is_dir():
                found.problems.append(Problem(category, f"{lost}: masks of a defect that has no test images"))
    return found.sorted()


def read_mvtec(root: Path) -> Reading:
    """Read a dataset in this layout from its ``meta.json`` if there is one, else from its tree.

    Raises:
        DatasetError: if there is neither.
    """
    return read_meta(root, ALIASES) if (root / META_FILE).is_file() else read_mvtec_tree(root)


class MVTecDataModule(FewShotDataModule):
    """MVTec AD, or any dataset in its layout."""

    name = "mvtec"
    archive = MVTEC_AD

    def read(self) -> Reading:
        """Read the folder, see :func:`read_mvtec`."""
        return read_mvtec(self.root)
