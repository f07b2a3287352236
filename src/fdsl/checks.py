"""What is refused because two things do not go together: tested and trained products, a head and other features."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from fdsl.backbones import Backbone
from fdsl.checkpoint import HeadFileError
from fdsl.errors import ConfigError

log = logging.getLogger(__name__)

MAY_DIFFER = {"code"}
"""What a resumed training may find changed in the description of its head."""


def check_disjoint(tested: Iterable[str], trained: Iterable[str], key: str) -> None:
    """Refuse to test what the head is trained on: nothing may be learned from the inspected product."""
    if shared := sorted(set(tested) & set(trained)):
        raise ConfigError(
            f"{', '.join(shared)}: tested, but also among the auxiliary categories the head is trained on; "
            f"leave them out of data.categories or {key}"
        )


def check_head(file: str, trained: Mapping[str, Any], backbone: Backbone, image_size: int) -> None:
    """Refuse a head that was trained with other features than this run's."""
    if not trained:
        log.warning("%s does not say what it was trained with: backbone and categories are not checked", file)
        return
    now = {"weights_sha256": backbone.weights.sha256, "blocks": list(backbone.blocks)}
    for key, value in now.items():
        if trained.get(key) != value:
            raise HeadFileError(
                f"{file}: trained with {key} {trained.get(key)}, this run has {value}; "
                "choose the backbone, weights and blocks that it was trained with"
            )
    if trained.get("image_size") != image_size:
        log.warning("%s: trained at image size %s, tested at %s", file, trained.get("image_size"), image_size)


def same_training(file: str, trained: Mapping[str, Any]) -> str | None:
    """Say why a checkpoint is none of this training; None if it is one."""
    try:
        check_resume(file, trained)
    except HeadFileError as error:
        return str(error)
    return None


def check_resume(file: str, trained: Mapping[str, Any]) -> None:
    """Refuse to go on with a training that was begun differently: its head would not be what it says it is.

    Args:
        file: a Lightning checkpoint.
        trained: what this run would train its head on.

    Raises:
        HeadFileError: if the file is no training checkpoint, or names the first thing that differs.
    """
    try:
        content = torch.load(Path(file), map_location="cpu", weights_only=True)
        before: dict[str, Any] = content["hyper_parameters"]["trained"]
        complete = {"optimizer_states", "loops", "state_dict"} <= content.keys()
    except Exception as error:  # pickle, zip and torch each raise their own kinds
        raise HeadFileError(
            f"training.resume={file}: not a training checkpoint; give a checkpoints/last.ckpt"
        ) from error
    if not complete:
        raise HeadFileError(f"training.resume={file}: holds no training state; give a checkpoints/last.ckpt")
    begun, now = _flat(before), _flat(trained)
    for key in sorted(now):
        if begun.get(key) != now[key]:
            raise HeadFileError(
                f"training.resume={file}: begun with {key} {begun.get(key)}, this run has {now[key]}; "
                "resume with the settings it was begun with"
            )


def refuse_unknown(config: DictConfig, schema: type[Any], prefix: str = "") -> None:
    """Refuse keys that were appended (``+key=value``) and that nothing reads.

    Raises:
        ConfigError: naming the nearest key there is.
    """
    known = {each.name: each.type for each in fields(schema)}
    for key in map(str, config):
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"did you mean {prefix}{near[0]}?" if near else f"there are {', '.join(known)}"
            raise ConfigError(f"{prefix}{key}: no such key; {hint}")
        node = known[key]
        if isinstance(node, type) and is_dataclass(node):
            refuse_unknown(config[key], node, f"{prefix}{key}.")


def _flat(described: Mapping[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in described.items():
        if key not in MAY_DIFFER:
            made.update({f"{key}.{k}": v for k, v in value.items()} if isinstance(value, Mapping) else {key: value})
    return made
