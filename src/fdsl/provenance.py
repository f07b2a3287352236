"""What a figure depends on besides its configuration: code, packages, machine, and what the head was trained on."""

import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

import fdsl
from fdsl.backbones import Backbone
from fdsl.config import Config

TRAINING_MODULES = ("discrepancy", "losses", "module", "reference", "score_learning")
"""What, beside backbones and datasets, decides what a training makes of its data."""

RESULT_MODULES = (*TRAINING_MODULES, "category", "detector", "local_features", "scoring", "windows")
"""What, beside backbones, datasets and metrics, decides the figures of a test."""

WHERE_ONLY = ("weights", "cache_dir")
"""Of a backbone's options: where its weights lie. What they are is said by their hash."""

NOT_THE_IMAGES = frozenset({"root", "num_workers", "download", "url", "progress", "references"})
"""Of a dataset's options: how its images are brought. What they are is said by their digest."""

PACKAGES = (
    "torch",
    "torchvision",
    "lightning",
    "open_clip_torch",
    "timm",
    "albumentations",
    "numpy",
    "pillow",
    "scipy",
)


def code_version() -> dict[str, Any]:
    """Return the package's version and, in a git checkout, its commit and whether files differ from it."""
    here = Path(fdsl.__file__).parent
    try:
        _git(here, "ls-files", "--error-unmatch", "__init__.py")  # a copy installed inside another repository is none
        commit = _git(here, "rev-parse", "HEAD")
        dirty = bool(_git(here, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return {"version": fdsl.__version__, "commit": None, "dirty": None}
    return {"version": fdsl.__version__, "commit": commit, "dirty": dirty}


def environment(device: str) -> dict[str, Any]:
    """Return the versions of what computes, and on what it runs: ``device`` is torch's name of it."""
    model = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.machine()
    return {
        "python": platform.python_version(),
        "device": f"{device} ({model})",
        "threads": torch.get_num_threads(),
        "packages": packages(),
    }


def packages() -> dict[str, str]:
    """Return the versions of what computes."""
    return {name: version(name) for name in PACKAGES}


def of_encoding(config: Config, backbone: Backbone, precision: str) -> dict[str, Any]:
    """Return everything that decides what the backbone makes of an image, but for code and machine."""
    return {
        "backbone": {key: value for key, value in config.backbone.model.items() if key not in WHERE_ONLY},
        "weights_sha256": backbone.weights.sha256,
        "image_size": config.backbone.image_size,
        "mean": config.backbone.mean,
        "std": config.backbone.std,
        "fit": config.data["fit"],
        "precision": precision,
    }


def result_dependencies(
    config: Config, backbone: Backbone, head: str, data_digest: str, manifest: Mapping[str, Any]
) -> dict[str, Any]:
    """Return everything that decides the figures of one setting and what lies beside them, for its key.

    Args:
        config: of the setting.
        backbone: with its weights.
        head: key or hash of the head.
        data_digest: of the test images and masks by content.
        manifest: of the references.
    """
    # Where things are brought from or written to, how a run is shown, and what the other entries say better.
    aside = {"run_dir", "progress", "store", "retrain", "force", "train", "ckpt", "logger", "aux", "training", "cache"}
    aside |= {"references", "backbone", "data", "trainer"}
    trainer = ("precision", "limit_test_batches", "accelerator")
    return {
        **{key: value for key, value in asdict(config).items() if key not in aside},
        "encoding": of_encoding(config, backbone, str(config.trainer["precision"])),
        "features": config.cache.dtype if config.cache.features is not None else "fp32",
        "data": {key: value for key, value in config.data.items() if key not in NOT_THE_IMAGES},
        "trainer": {key: config.trainer[key] for key in trainer},
        "images": data_digest,
        "references": manifest["references"],
        "head": head,
        "code": code_of(RESULT_MODULES, ("backbones", "metrics")),
        "packages": packages(),
    }


def of_training(config: Config, backbone: Backbone, aux: Any) -> dict[str, Any]:
    """Return what a head is trained on, for the files it is saved in.

    Args:
        config: of the run.
        backbone: whose features the head reads.
        aux: the auxiliary datamodule.
    """
    where_only = {"resume", "save_every"}  # no part of what the head becomes
    return {
        "weights_sha256": backbone.weights.sha256,
        "blocks": list(backbone.blocks),
        "image_size": config.backbone.image_size,
        "dataset": aux.name,
        "categories": list(aux.categories),
        "training": {key: value for key, value in asdict(config.training).items() if key not in where_only},
        "nam": config.nam,
        "code": code_version(),
    }


def training_dependencies(config: Config, trained: Mapping[str, Any], data_digest: str) -> dict[str, Any]:
    """Return everything that decides what a trained head becomes, for its key.

    Args:
        config: of the run.
        trained: see :func:`of_training`.
        data_digest: of the auxiliary images, masks and references by content.
    """
    # How images are brought, and what a training does not look at; references are in the digest.
    aside = NOT_THE_IMAGES | {"map_size", "seeds"}
    trainer = ("max_epochs", "precision", "deterministic", "limit_train_batches")
    return {
        **{key: value for key, value in trained.items() if key != "code"},
        "backbone": {k: v for k, v in config.backbone.model.items() if k not in WHERE_ONLY},
        "aux": {key: value for key, value in config.aux.items() if key not in aside},
        "data": data_digest,
        "trainer": {key: config.trainer[key] for key in trainer},
        "code": training_code(),
        "packages": packages(),
    }


def training_code() -> str:
    """Hash the sources that a training goes through: whatever else changes, its head stays what it was."""
    return code_of(TRAINING_MODULES, ("backbones",))


def encoding_code() -> str:
    """Hash the sources that an image goes through on its way to features."""
    return code_of((), ("backbones",))


def code_of(modules: Sequence[str], folders: Sequence[str]) -> str:
    """Hash sources of this package, and those of the datasets."""
    digest = sha256()
    package = Path(fdsl.__file__).parent
    files = [package / f"{name}.py" for name in modules]
    files += [file for folder in folders for file in sorted((package / folder).glob("*.py"))]
    # The datasets are another package, which this one does not import; it is found beside it.
    found = find_spec("datamodules")
    places = list(found.submodule_search_locations or []) if found is not None else []
    files += sorted(file for place in places for file in Path(place).glob("*.py"))
    for file in files:
        digest.update(file.name.encode() + b"\n" + file.read_bytes())
    return digest.hexdigest()


def trained_by(folder: Path) -> dict[str, Any]:
    """Say which run trains a head now."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"run_dir": str(folder.absolute()), "host": platform.node(), "finished": now, "code": code_version()}


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
