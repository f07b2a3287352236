"""What a figure depends on besides its configuration: code, packages, machine, and what the head was trained on."""

import platform
import subprocess
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import fdsl
from fdsl.backbones import Backbone
from fdsl.config import Config

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
        "packages": {name: version(name) for name in PACKAGES},
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


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
