"""Which ``open_clip`` names are plain vision transformers, and which activation belongs to which weights.

Weights trained with QuickGELU run with plain GELU too, and are silently wrong; so a doubtful pair is refused.
"""

from typing import Any

import open_clip

from fdsl.errors import ConfigError

QUICK_GELU = "-quickgelu"


def model_config(name: str) -> dict[str, Any]:
    """The architecture's configuration with ``open_clip``'s defaults filled in.

    Raises:
        ConfigError: if the name is unknown or its visual tower is no plain ViT.
    """
    # A name with a scheme ("hf-hub:...") would be looked up on the network.
    config: dict[str, Any] | None = None if ":" in name else open_clip.get_model_config(name)
    if config is None:
        raise ConfigError(f"backbone.model.name: open_clip has no architecture {name}; see open_clip.list_models()")
    vision = open_clip.CLIPVisionCfg(**config["vision_cfg"])
    if vision.timm_model_name or not isinstance(vision.layers, int):
        kind = vision.timm_model_name or "a ResNet"
        raise ConfigError(f"backbone.model.name: {name} sees with {kind}; a plain ViT of open_clip is needed")
    return config | {"vision_cfg": vars(vision)}


def check_activation(name: str, pretrained: str | None, *, from_file: bool) -> None:
    """Check that the weights behind a tag were trained with the activation that the name stands for.

    Args:
        name: architecture, one that ``model_config`` accepts.
        pretrained: tag of the weights; None says nothing of them.
        from_file: the weights are a local file, so that the tag need not be one that can be downloaded.

    Raises:
        ConfigError: if they do not belong together; the message gives the right name.
    """
    if pretrained is None:
        if not from_file:
            raise ConfigError("backbone.model: give pretrained (a tag of open_clip), weights (a file), or both")
        return
    base = name.removesuffix(QUICK_GELU)
    tags = {tag for known in (base, name) for tag in open_clip.list_pretrained_tags_by_model(known)}
    # Every CLIP that OpenAI released has QuickGELU, also one whose architecture bears a name of our own.
    needs_quick = pretrained == "openai"
    if pretrained in tags:
        known = name if open_clip.is_pretrained_cfg(name, pretrained) else base
        needs_quick = open_clip.get_pretrained_cfg(known, pretrained).get("quick_gelu", False)
    elif not (from_file and needs_quick):
        raise ConfigError(
            f"backbone.model.pretrained: open_clip knows no weights {pretrained} for {name}; "
            f"it knows {', '.join(sorted(tags)) or 'none'}. For a file of your own: pretrained=null"
        )
    if needs_quick != bool(model_config(name).get("quick_gelu", False)):
        right = base + QUICK_GELU if needs_quick else base
        activation = "QuickGELU" if needs_quick else "plain GELU"
        raise ConfigError(
            f"backbone.model: the weights {pretrained} were trained with {activation}, {name} does not "
            f"have it and would be silently wrong; set backbone.model.name={right}"
        )
