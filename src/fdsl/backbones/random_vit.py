"""A tiny vision transformer with random weights, for tests and for trying configurations out."""

from collections.abc import Sequence
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer

from fdsl.backbones.base import BackboneSpec, Weights
from fdsl.backbones.checks import check_options
from fdsl.backbones.timm_vit import ImageFeature, TimmViT, check_image_feature
from fdsl.backbones.weights import sha256_of_tensors
from fdsl.errors import ConfigError


class RandomViT(TimmViT):
    """A random ViT; see ``TimmViT`` for what it returns. Its weights depend on the arguments alone.

    Args:
        seed: of its own generator; the global one is not touched.
        depth: number of blocks.
        width: token width C, a multiple of ``heads``.
        heads: attention heads.
        patch_size: side of a patch, pixels.
        grid: patches a side of its own position embedding; other sizes are resampled from it.
        blocks: the tapped blocks, 1-based.
        image_feature: ``cls`` or ``mean``.
        image_feature_block: the block to average, 1-based, for ``mean`` only.
    """

    def __init__(
        self,
        seed: int = 0,
        depth: int = 4,
        width: int = 32,
        heads: int = 2,
        patch_size: int = 14,
        grid: int = 4,
        blocks: Sequence[int] = (1, 2, 3, 4),
        image_feature: ImageFeature = "cls",
        image_feature_block: int | None = None,
    ) -> None:
        spec = self.describe(
            depth=depth,
            width=width,
            heads=heads,
            patch_size=patch_size,
            image_feature=image_feature,
            image_feature_block=image_feature_block,
        )
        with torch.device("meta"):  # so that nothing is drawn from the global generator
            vit = VisionTransformer(
                img_size=grid * patch_size,
                patch_size=patch_size,
                embed_dim=width,
                depth=depth,
                num_heads=heads,
                num_classes=0,
                dynamic_img_size=True,
            )
        vit.to_empty(device="cpu")
        _fill(vit, seed)
        weights = Weights(f"random seed {seed}", sha256_of_tensors(vit.state_dict()))
        super().__init__(spec, vit, blocks, weights, image_feature, image_feature_block)

    @classmethod
    def describe(
        cls,
        *,
        depth: int = 4,
        width: int = 32,
        heads: int = 2,
        patch_size: int = 14,
        image_feature: str = "cls",
        image_feature_block: int | None = None,
        **options: Any,
    ) -> BackboneSpec:
        """See ``Backbone.describe``; also checks heads and image feature."""
        check_options(cls, options)
        if width % heads:
            raise ConfigError(f"backbone.model: width {width} is no multiple of heads {heads}")
        check_image_feature(image_feature, image_feature_block, depth)
        return BackboneSpec(depth, patch_size, width=width, feature_width=width)


@torch.no_grad()
def _fill(vit: VisionTransformer, seed: int) -> None:
    """Draw matrices and embeddings with variance 1 / fan-in; norms scale by 1, biases are 0."""
    generator = torch.Generator("cpu").manual_seed(seed)
    for name, parameter in vit.named_parameters():
        if parameter.ndim > 1:
            fan_in = parameter[0].numel() if name.endswith("weight") else parameter.shape[-1]
            parameter.normal_(std=fan_in**-0.5, generator=generator)
        else:
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
