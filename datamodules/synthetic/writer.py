"""Writing the synthetic sets: once, completely or not at all."""

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from datamodules.synthetic.catalogue import MVTEC_LIKE, VISA_LIKE
from datamodules.synthetic.layouts import Settings, write_mvtec_tree, write_visa_tree

FINISHED = "synthetic.json"
"""File in a finished dataset that holds the parameters it was written with."""
VERSION = 1
"""Of the pictures: to be raised whenever the same parameters give other pixels."""
SMALLEST = 64
"""Least side of an image in pixels; below it the smallest defects vanish."""


def write_mvtec(
    root: str | Path,
    categories: Sequence[str] | None = None,
    image_size: int = 256,
    train: int = 12,
    good: int = 8,
    defective: int = 16,
    seed: int = 0,
    progress: bool = False,
) -> Path:
    """Write a synthetic dataset in MVTec AD's layout; do nothing where the same one is already written.

    Args:
        root: the dataset's folder: absent, empty, or holding the same dataset.
        categories: of :data:`MVTEC_LIKE`; None for all.
        image_size: side of the images in pixels, at least 64.
        train: defect-free training images a category.
        good: defect-free test images a category.
        defective: defective test images a category; the category's kinds of defects take turns.
        seed: an image depends on the seed, the size, its category, split and number, and nothing else.
        progress: show a progress bar.

    Returns:
        The dataset's folder.

    Raises:
        ValueError: for an unknown category or an impossible number, or if the folder holds anything else.
    """
    settings = _settings("mvtec", MVTEC_LIKE, categories, image_size, train, good, defective, seed)
    return _write(Path(root), settings, partial(write_mvtec_tree, progress=progress))


def write_visa(
    root: str | Path,
    categories: Sequence[str] | None = None,
    image_size: int = 256,
    train: int = 12,
    good: int = 8,
    defective: int = 16,
    seed: int = 0,
    progress: bool = False,
) -> Path:
    """Write a synthetic dataset in VisA's layout, of :data:`VISA_LIKE`; otherwise as :func:`write_mvtec`."""
    settings = _settings("visa", VISA_LIKE, categories, image_size, train, good, defective, seed)
    return _write(Path(root), settings, partial(write_visa_tree, progress=progress))


def _settings(layout: str, known: Sequence[str], categories: Sequence[str] | None, *numbers: int) -> Settings:
    chosen = known if categories is None else sorted(set(categories))
    if unknown := [c for c in chosen if c not in known]:
        raise ValueError(f"unknown category {', '.join(unknown)}: the {layout} set has {', '.join(known)}")
    settings = Settings(layout, tuple(sorted(chosen)), *numbers)
    if not chosen or settings.image_size < SMALLEST or settings.train < 1:
        raise ValueError(f"categories must not be empty, image_size at least {SMALLEST}, train at least 1: {settings}")
    if min(settings.good, settings.defective, settings.seed) < 0:
        raise ValueError(f"good, defective and seed must not be negative: {settings}")
    return settings


def _write(root: Path, settings: Settings, write_tree: Callable[[Path, Settings], None]) -> Path:
    """Write to a folder beside ``root``, and put it in place when it is complete."""
    # Through JSON, so that it compares equal to what is read back.
    marker = json.loads(json.dumps({"version": VERSION, **asdict(settings)}))
    if _is_written(root, marker):
        return root
    # The number of the process keeps apart two that write the same dataset.
    unfinished = root.parent / f".{root.name}.{os.getpid()}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        write_tree(unfinished, settings)
        (unfinished / FINISHED).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")
        if root.is_dir():
            root.rmdir()
        unfinished.rename(root)
    except OSError:
        # The other process may have been first.
        if not _is_written(root, marker):
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return root


def _is_written(root: Path, marker: dict[str, Any]) -> bool:
    """Whether this very dataset is in place.

    Raises:
        ValueError: if anything else is.
    """
    mend = "choose another folder, or empty this one"
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    if not (root / FINISHED).is_file():
        raise ValueError(f"{root} holds something other than a synthetic dataset: {mend}")
    try:
        found = dict(json.loads((root / FINISHED).read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{root / FINISHED} cannot be read ({error}): {mend}") from error
    other = [f"{key} {found.get(key)!r} (now {value!r})" for key, value in marker.items() if found.get(key) != value]
    if other:
        raise ValueError(f"{root} was written with other parameters, {', '.join(other)}: {mend}")
    return True
