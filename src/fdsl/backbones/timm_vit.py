"""Encoding with a vision transformer of ``timm``, whatever its weights."""

from collections.abc import Sequence
from typing import Literal, get_args

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from fdsl.backbones.base import Backbone, BackboneSpec, Weights
from fdsl.backbones.checks import check_blocks
from fdsl.errors import ConfigError

ImageFeature = Literal["cls", "mean"]
"""``cls``: the final-normed CLS output; ``mean``: the mean of one block's raw patch tokens."""


class TimmViT(Backbone):
    """A ``timm`` vision transformer, (B, 3, S, S) -> tokens (L, B, N, C) and image feature (B, C).

    Tokens are the raw output of the blocks, without the final norm; CLS and registers are dropped. Position
    embeddings are resampled by ``timm`` from the grid that ``vit`` was built with. With a ``mean`` image
    feature the blocks after the last one needed are not run.

    Args:
        spec: what ``vit`` is.
        vit: built with ``dynamic_img_size=True``, weights in place.
        blocks: the tapped blocks, 1-based.
        weights: where the weights came from.
        image_feature: what summarises an image.
        image_feature_block: the block of a ``mean`` feature, 1-based; it need not be tapped.
    """

    def __init__(
        self,
        spec: BackboneSpec,
        vit: VisionTransformer,
        blocks: Sequence[int],
        weights: Weights,
        image_feature: ImageFeature,
        image_feature_block: int | None,
    ) -> None:
        super().__init__(spec, blocks, weights)
        check_image_feature(image_feature, image_feature_block, spec.depth)
        self.vit = vit
        self.image_feature_block = image_feature_block
        self._freeze()

    def _encode(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        averaged = self.image_feature_block
        needed = sorted({*self.blocks, averaged or self.blocks[0]})
        output = self.vit.forward_intermediates(
            images,
            indices=[block - 1 for block in needed],
            output_fmt="NLC",
            output_dict=True,
            stop_early=averaged is not None,
            intermediates_only=averaged is not None,
        )
        assert isinstance(output, dict)  # for the type checker
        outputs: dict[int, Tensor] = dict(zip(needed, output["image_intermediates"], strict=True))  # B N C each
        pooled = output["image_features"][:, 0] if averaged is None else outputs[averaged].mean(dim=1)  # B C
        return [outputs[block] for block in self.blocks], pooled


def check_image_feature(image_feature: str, block: int | None, depth: int) -> None:
    """Check that an image feature is one there is and has a block exactly if it needs one.

    Raises:
        ConfigError: otherwise.
    """
    if image_feature not in get_args(ImageFeature):
        raise ConfigError(f"backbone image_feature {image_feature!r}: it is one of {get_args(ImageFeature)}")
    if image_feature == "mean":
        if block is None:
            raise ConfigError("backbone image_feature 'mean' needs image_feature_block, the block to average")
        check_blocks([block], depth)
    elif block is not None:
        raise ConfigError(f"backbone image_feature_block={block} is for image_feature 'mean', not {image_feature!r}")
