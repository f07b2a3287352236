"""``meta.json``, the list of images that upstream's workflow keeps in a dataset's root.

``{"train": {category: [entry]}, "test": {...}}`` with entries of ``img_path``, ``mask_path`` (empty where normal),
``cls_name``, ``specie_name`` and ``anomaly`` (0 or 1). The readers honour such a file where it is present;
``python -m datamodules.write_meta`` writes one.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datamodules.samples import GOOD, DatasetError, Problem, Reading, Sample

META_FILE = "meta.json"
MEND = f"write {META_FILE} anew: `python -m datamodules.write_meta mvtec|visa ROOT --force`"


def read_meta(root: Path, aliases: Mapping[str, str]) -> Reading:
    """Read ``root/meta.json``.

    Args:
        root: the dataset's folder.
        aliases: category names to replace by official ones.

    Raises:
        DatasetError: if the file is not in upstream's format.
    """
    try:
        content: dict[str, dict[str, list[dict[str, Any]]]] = json.loads((root / META_FILE).read_text("utf-8"))
        entries = [(s, e) for s in ("train", "test") for part in content[s].values() for e in part]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise DatasetError(root / META_FILE, [f"not in upstream's format ({error!r})"], MEND) from error
    found = Reading([], [])
    for split, entry in entries:
        try:
            defective = bool(int(entry["anomaly"]))
            category = aliases.get(entry["cls_name"], entry["cls_name"])
            kind = (entry["specie_name"] or "anomaly") if defective else GOOD
            path, mask = entry["img_path"], (entry["mask_path"] or None) if defective else None
        except (KeyError, ValueError, TypeError) as error:
            text = f"{META_FILE}, {split} entry {entry}: {error!r}"
            found.problems.append(Problem("", text))
            continue
        if defective and (mask is None or split == "train"):
            text = f"{path}: defective, but {'has no mask' if mask is None else 'in the train split'} ({META_FILE})"
            found.problems.append(Problem(category, text))
        else:
            kind = "anomaly" if defective and kind == GOOD else kind
            found.samples.append(Sample(path, category, "train" if split == "train" else "test", kind, mask))
    return found.sorted()


def write_meta(root: Path, samples: Sequence[Sample]) -> Path:
    """Write samples as ``root/meta.json`` in upstream's format and return its path."""
    content: dict[str, dict[str, list[dict[str, Any]]]] = {"train": {}, "test": {}}
    for s in samples:
        content[s.split].setdefault(s.category, []).append(
            {
                "img_path": s.path,
                "mask_path": s.mask or "",
                "cls_name": s.category,
                "specie_name": s.defect,
                "anomaly": s.label,
            }
        )
    path = root / META_FILE
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path
