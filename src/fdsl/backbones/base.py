"""The contract of a frozen backbone: images in, unit-length patch tokens of a few blocks and one feature out.

What is common to every backbone lives here: the checks, the normalisation, and that nothing is ever trained.
It does not know where weights come from, nor what its tokens are used for.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fdsl.backbones.checks import check_blocks, check_image_size


class Encoding(NamedTuple):
    """What a backbone says of B images.

    Attributes:
        tokens: patch tokens of the L tapped blocks, row-major, unit length along C, (L, B, N, C).
        image_feature: one vector an image, unit length, (B, D).
    """

    tokens: Tensor
    image_feature: Tensor


@dataclass(frozen=True)
class BackboneSpec:
    """What can be known of a backbone before it is built.

    Attributes:
        depth: number of transformer blocks.
        patch_size: side of a patch, pixels.
        width: token width C.
        feature_width: width D of the image feature.
    """

    depth: int
    patch_size: int
    width: int
    feature_width: int


@dataclass(frozen=True)
class Weights:
    """Which weights a backbone holds.

    Attributes:
        source: where they came from, for a person to read.
        sha256: digest of the weight file; of the parameters where there is no file.
    """

    source: str
    sha256: str


class Backbone(nn.Module, ABC):
    """A frozen vision transformer, ``(B, 3, S, S) -> Encoding`` for any S of whole patches.

    Always in eval mode, without gradients, whatever is called on it or on a module that holds it.

    A subclass builds its network after ``super().__init__`` and ends by calling ``_freeze``.

    Attributes:
        spec: depth, patch size and widths.
        blocks: the tapped blocks, 1-based, in order.
        weights: where the weights came from.
    """

    def __init__(self, spec: BackboneSpec, blocks: Sequence[int], weights: Weights) -> None:
        super().__init__()
        self.spec = spec
        self.blocks = check_blocks(blocks, spec.depth)
        self.weights = weights

    @classmethod
    @abstractmethod
    def describe(cls, **options: Any) -> BackboneSpec:
        """Describe the backbone that the constructor would build from ``options``, without building it.

        Cheap: reads no weights and takes no memory for them, so that a configuration can be checked first.

        Args:
            **options: the constructor's arguments; those that change nothing here are ignored.

        Raises:
            ConfigError: if the options name no backbone, contradict each other, or one is unknown.
        """

    @abstractmethod
    def _encode(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Run the network.

        Args:
            images: (B, 3, S, S), checked.

        Returns:
            The raw output of each tapped block without prefix tokens, L times (B, N, C), and the pooled image
            feature (B, D).
        """

    def forward(self, images: Tensor) -> Encoding:
        """Encode preprocessed images.

        Args:
            images: (B, 3, S, S), normalised with the mean and std that belong to the weights.

        Returns:
            Tokens (L, B, N, C), N = (S / patch size)^2, and image features (B, D), all unit length.

        Raises:
            ValueError: if the images are not square, not RGB, or S is no multiple of the patch size.
        """
        if images.ndim != 4 or images.shape[1] != 3 or images.shape[2] != images.shape[3]:
            raise ValueError(f"a backbone takes square RGB images (B, 3, S, S), got {tuple(images.shape)}")
        check_image_size(images.shape[-1], self.spec.patch_size)
        # Not inference_mode: a head is trained on these tokens, which inference tensors do not allow.
        with torch.no_grad():
            blocks, pooled = self._encode(images)
            return Encoding(_unit(torch.stack(blocks)), _unit(pooled))  # L B N C and B D

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode: ``mode`` has no effect on a frozen backbone."""
        return super().train(False)

    def _freeze(self) -> None:
        self.requires_grad_(False)
        self.eval()


def _unit(vectors: Tensor) -> Tensor:
    """Scale to unit length along the last dimension, computed in fp32 whatever the dtype."""
    return F.normalize(vectors.float(), dim=-1).to(vectors.dtype)
