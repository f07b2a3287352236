"""DINOv2 vision transformers of ``timm``, S to g, with or without registers, from the hub or a local file."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import timm
import torch
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor

from fdsl.backbones.base import BackboneSpec, Weights
from fdsl.backbones.checks import check_blocks, check_options
from fdsl.backbones.hub import from_hub
from fdsl.backbones.position import square_grid
from fdsl.backbones.timm_vit import ImageFeature, TimmViT, check_image_feature
from fdsl.backbones.weights import WeightsError, find_weights, load_strict, read_state_dict, sha256_of_file
from fdsl.errors import ConfigError

HUB_FILENAMES = ("model.safetensors", "pytorch_model.bin")


class TimmBackbone(TimmViT):
    """A DINOv2 of ``timm``; see ``TimmViT`` for what it returns.

    Args:
        name: a ViT of ``timm``, with its weights' tag, such as ``vit_small_patch14_reg4_dinov2.lvd142m``.
        weights: path of a weight file in ``timm``'s layout or the original one; None takes the name's weights
            from the cache or the hub.
        blocks: the tapped blocks, 1-based.
        image_feature: ``cls``, the final-normed CLS, or ``mean``, the mean of one block's tokens.
        image_feature_block: the block to average, 1-based, for ``mean`` only.
        cache_dir: the hub's cache, default the library's own.

    Raises:
        ConfigError: if the name is no such model, or the image feature is none.
        WeightsNotFoundError: if there are no weights to be had.
        WeightsError: if the file does not fit.

    Source: Oquab et al. 2023, https://arxiv.org/abs/2304.07193; registers: https://arxiv.org/abs/2309.16588.
    """

    def __init__(
        self,
        name: str = "vit_small_patch14_dinov2.lvd142m",
        weights: str | None = None,
        blocks: Sequence[int] = (3, 6, 9, 12),
        image_feature: ImageFeature = "cls",
        image_feature_block: int | None = None,
        cache_dir: str | None = None,
    ) -> None:
        spec = self.describe(
            name=name, weights=weights, image_feature=image_feature, image_feature_block=image_feature_block
        )
        check_blocks(blocks, spec.depth)  # before a download, not after
        if weights is None:
            repository = _hub_repository(name)
            path, source = from_hub(name, repository, HUB_FILENAMES, cache_dir), f"hub {repository}"
        else:
            path = find_weights(weights)
            source = f"file {path.name}"
        vit = load_vit(name, read_state_dict(path), str(path))
        origin = Weights(source, sha256_of_file(path))
        super().__init__(spec, vit, blocks, origin, image_feature, image_feature_block)

    @classmethod
    def describe(
        cls,
        *,
        name: str = "vit_small_patch14_dinov2.lvd142m",
        weights: str | None = None,
        image_feature: str = "cls",
        image_feature_block: int | None = None,
        **options: Any,
    ) -> BackboneSpec:
        """See ``Backbone.describe``; also checks the image feature and that there are weights to look for."""
        check_options(cls, options)
        spec = _describe(name)
        if weights is None:
            _hub_repository(name)
        check_image_feature(image_feature, image_feature_block, spec.depth)
        return spec


def load_vit(name: str, state: dict[str, Tensor], source: str) -> VisionTransformer:
    """Build a ViT around a state dict, with the position grid of that state dict.

    Args:
        name: the ``timm`` architecture.
        state: in ``timm``'s layout or DINOv2's original one.
        source: where the weights come from, for messages.

    Raises:
        WeightsError: if the weights do not fit.
    """
    if "pos_embed" not in state:
        raise WeightsError(f"{source} has no pos_embed: these are no weights of a timm or DINOv2 ViT")
    grid = square_grid(state["pos_embed"].shape[1])
    vit = _build(name, img_size=grid * _describe(name).patch_size)
    # Of the original layout it renames the keys; the grids being equal, it resamples nothing.
    load_strict(vit, checkpoint_filter_fn(state, vit), source)
    return vit


@lru_cache(maxsize=32)
def _describe(name: str) -> BackboneSpec:
    if not timm.is_model(name):
        raise ConfigError(f"backbone.model.name: timm has no model {name}; try timm.list_models('*dinov2*')")
    try:
        vit = _build(name)
    except (RuntimeError, TypeError) as error:  # an unknown tag; arguments that only a ViT takes
        raise ConfigError(f"backbone.model.name: {name} cannot be used: {error}") from error
    if not vit.has_class_token or vit.pos_embed is None:
        raise ConfigError(f"backbone.model.name: {name} lacks a CLS token or a position embedding")
    patch_size = vit.patch_embed.patch_size[0]
    return BackboneSpec(len(vit.blocks), patch_size, width=vit.embed_dim, feature_width=vit.embed_dim)


def _hub_repository(name: str) -> str:
    config = timm.get_pretrained_cfg(name)
    if not config or not config.hf_hub_id:
        raise ConfigError(f"backbone.model.name: timm names no weights for {name}; set backbone.model.weights")
    return str(config.hf_hub_id)


def _build(name: str, **options: Any) -> VisionTransformer:
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False, num_classes=0, dynamic_img_size=True, **options)
    if not isinstance(model, VisionTransformer):
        raise TypeError(f"timm builds a {type(model).__name__}, not a VisionTransformer")
    return model
