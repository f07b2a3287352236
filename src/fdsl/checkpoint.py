"""Head files: what a trained head is saved as, and every format one can be read from.

``.safetensors`` is ours: the head's weights, with a JSON description of what it was trained on in the file's metadata.
``.ckpt`` is Lightning's, with optimiser and progress. ``.pth`` is upstream's ``{"trainable_RR": state_dict}``.
"""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from fdsl.errors import FDSLError
from fdsl.score_learning import ScoreHead

log = logging.getLogger(__name__)

METADATA_KEY = "fdsl"
UPSTREAM_KEY = "trainable_RR"


class HeadFileError(FDSLError):
    """A head file that is missing, damaged, or not for this backbone."""


@dataclass(frozen=True)
class TrainedHead:
    """A head with its description.

    Attributes:
        head: the module, with weights.
        trained: what it was trained with (backbone, weights' hash, blocks, auxiliary categories, ...); empty for
            upstream's files, which do not say.
    """

    head: ScoreHead
    trained: dict[str, Any] = field(default_factory=dict)


def save_head(path: Path, head: ScoreHead, trained: dict[str, Any]) -> None:
    """Write a head as safetensors; the same head and description give the same bytes."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in head.state_dict().items()}
    path.write_bytes(save(state, metadata={METADATA_KEY: json.dumps(trained, sort_keys=True)}))


def load_head(path: str | Path, nam: bool | None = None) -> TrainedHead:
    """Read a head from any of the three formats.

    Args:
        path: the file.
        nam: True requires the file to hold NAM, False leaves it out, None takes the head as it is.

    Raises:
        HeadFileError: if the file is missing, in no known format, incomplete, or lacks NAM.
    """
    path = Path(path)
    if not path.is_file():
        raise HeadFileError(f"{path}: no such head file; give ckpt=PATH of a .ckpt, .safetensors or upstream .pth file")
    try:
        state, trained = _read(path)
    except Exception as error:  # safetensors, pickle, zip and torch each raise their own kinds
        said = str(error).splitlines()[0] if str(error) else ""
        raise HeadFileError(f"{path}: not a head file that fdsl can read ({type(error).__name__}: {said})") from error
    has_nam = any(name.startswith("nam.") for name in state)
    if nam and not has_nam:
        raise HeadFileError(f"{path}: trained without NAM; test it with nam=false, or train one with nam=true")
    if nam is False:
        state = {name: tensor for name, tensor in state.items() if not name.startswith("nam.")}
    layers = len({name.split(".")[1] for name in state if name.startswith("classifiers.")})
    first = state.get("classifiers.0.stages.0.weight")
    if first is None:
        raise HeadFileError(f"{path}: holds no classifier, so it is no FDSL head")
    head = ScoreHead(layers, first.shape[0], nam=has_nam if nam is None else nam)
    try:
        head.load_state_dict(state)
    except RuntimeError as error:
        raise HeadFileError(f"{path}: does not fit the head: {' '.join(str(error).split())}") from error
    return TrainedHead(head.eval(), trained)


def from_upstream(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Rename upstream's parameters to ours.

    Returns:
        our state dict, and the names of entries that were left out (they belong to unused branches).
    """
    renamed: dict[str, Tensor] = {}
    ignored: list[str] = []
    for name, tensor in state.items():
        parts = name.split(".")
        match parts:
            case ["clsList", layer, "fbatchNorm", leaf]:
                renamed[f"classifiers.{layer}.stages.0.{leaf}"] = tensor
            case ["clsList", layer, "proj", stage, leaf]:
                renamed[f"classifiers.{layer}.stages.{int(stage) + 1}.{leaf}"] = tensor
            case ["convRes", "conv", leaf]:
                renamed[f"nam.spread.{leaf}"] = tensor
            case ["convRes", "conv2", leaf]:
                renamed[f"nam.gather.{leaf}"] = tensor
            case _:
                ignored.append(name)
    return renamed, ignored


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            metadata = (file.metadata() or {}).get(METADATA_KEY, "{}")
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(metadata)  # noqa: SIM118
    content = torch.load(path, map_location="cpu", weights_only=True)
    if UPSTREAM_KEY in content:
        state, ignored = from_upstream(content[UPSTREAM_KEY])
        log.info("%s: upstream's format; ignored %s", path, ", ".join(ignored) or "nothing")
        return state, {}
    trained: dict[str, Any] = content["hyper_parameters"]["trained"]
    prefix = "head."
    return {n.removeprefix(prefix): t for n, t in content["state_dict"].items() if n.startswith(prefix)}, trained
