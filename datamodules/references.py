"""k-shot reference sets: seeded draws that depend on nothing else, and the manifest that publishes them.

A draw is ordered by a hash of (seed, category, path), not by a stream of random numbers: the same on every platform
and version, whatever other categories or options are in play; and the references of k = 1 are the first of k = 4.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from datamodules.samples import DatasetError, Sample
from fdsl.backbones.weights import sha256_of_file

Sampling = Literal["without_replacement", "with_replacement"]
SAMPLINGS: tuple[str, ...] = get_args(Sampling)

SCHEMA = 1


def draw_references(
    normals: Sequence[Sample], k: int, seed: int, sampling: Sampling = "without_replacement"
) -> list[Sample]:
    """Draw k references from the defect-free training images of one category.

    Args:
        normals: the category's training samples, in any order.
        k: number of references.
        seed: the reference seed.
        sampling: ``with_replacement`` may draw an image twice, as upstream does.

    Raises:
        ValueError: if there are fewer normals than k.
    """
    if not normals or (len(normals) < k and sampling == "without_replacement"):
        category = normals[0].category if normals else "this category"
        raise ValueError(f"{category} has {len(normals)} defect-free training images, {k} references were asked for")
    if sampling == "with_replacement":
        pool = sorted(normals, key=lambda s: s.path)
        return [pool[_digest(seed, pool[0].category, f"draw {i}") % len(pool)] for i in range(k)]
    # The name within train/good, not the folder above: an alias of the category must not change the draw.
    return sorted(normals, key=lambda s: (_digest(seed, s.category, Path(s.path).name), s.path))[:k]


def write_manifest(
    root: Path, seed: int, sampling: Sampling, references: Mapping[str, Sequence[Sample]]
) -> dict[str, Any]:
    """Describe drawn references: relative paths and SHA-256 of each file, by category."""
    return {
        "schema": SCHEMA,
        "seed": seed,
        "sampling": sampling,
        "references": {
            category: [{"path": s.path, "sha256": sha256_of_file(root / s.path)} for s in drawn]
            for category, drawn in references.items()
        },
    }


def read_manifest(
    path: Path, root: Path, samples: Sequence[Sample], categories: Sequence[str], k: int
) -> dict[str, list[Sample]]:
    """Read references back from a manifest, verified against the dataset at hand.

    Args:
        path: a manifest as :func:`write_manifest` describes it.
        root: the dataset's folder.
        samples: everything that was read from it.
        categories: the categories that need references.
        k: how many references each must have.

    Raises:
        DatasetError: naming every reference that is missing, no training image, or another file than was published.
    """
    mend = "use the dataset that the manifest was written for, or drop references=..."
    try:
        content = json.loads(path.read_text("utf-8"))
        listed: dict[str, list[dict[str, str]]] = content["references"]
        if content["schema"] != SCHEMA:
            raise ValueError(f"schema {content['schema']}, this version reads {SCHEMA}")
        entries = {c: [(e["path"], e["sha256"]) for e in listed.get(c, [])] for c in categories}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(path, [f"not a reference manifest ({error!r})"], mend) from error
    training = {s.path: s for s in samples if s.split == "train"}
    problems: list[str] = []
    found: dict[str, list[Sample]] = {}
    for category, pairs in entries.items():
        if len(pairs) != k:
            problems.append(f"{category}: lists {len(pairs)} references, kshots is {k}")
        for name, digest in pairs:
            sample = training.get(name)
            if sample is None or sample.category != category:
                problems.append(f"{name}: no training image of {category} in {root}")
            elif not (root / name).is_file() or sha256_of_file(root / name) != digest:
                problems.append(f"{name}: missing, or another file than the manifest's (SHA-256 differs)")
            else:
                found.setdefault(category, []).append(sample)
    if problems:
        raise DatasetError(path, problems, mend)
    return found


def _digest(seed: int, category: str, item: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{category}/{item}".encode()).digest())
