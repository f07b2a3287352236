"""Reference bank: the patch tokens of the k defect-free reference images of one category."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fdsl.backbones import Backbone
from fdsl.discrepancy import MATCH_BYTES, Discrepancy, feature_discrepancy


@dataclass(frozen=True)
class ReferenceBank:
    """Tokens of k references, ready to be matched against.

    Attributes:
        tokens: unit-length reference tokens (L, k*N, C).
    """

    tokens: Tensor

    @classmethod
    def encode(cls, backbone: Backbone, images: Tensor, batch_size: int = 8) -> "ReferenceBank":
        """Encode preprocessed reference images (k, 3, S, S), ``batch_size`` at a time.

        Raises:
            ValueError: if there is no reference.
        """
        if images.shape[0] == 0:
            raise ValueError("a reference bank needs at least one reference image")
        parts = [backbone(part).tokens for part in torch.split(images, batch_size)]
        return cls(torch.cat(parts, dim=1).flatten(1, 2))  # L k N C -> L k*N C

    def match(self, tokens: Tensor, max_bytes: int = MATCH_BYTES) -> Discrepancy:
        """Match query tokens (L, B, N, C), see :func:`fdsl.discrepancy.feature_discrepancy`."""
        return feature_discrepancy(tokens, self.tokens, max_bytes)

    @property
    def nbytes(self) -> int:
        """Size of the bank in bytes."""
        return self.tokens.numel() * self.tokens.element_size()
