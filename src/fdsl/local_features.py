"""LFE, local-enhanced features: the image seen through many small windows, each encoded alone (test time only).

A defect too small to change a whole image's tokens fills a good part of a window. Windows of query and references are
cut, encoded and matched alike; the windows' maps are stitched together, and NAM runs once, on the stitched map.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fdsl.backbones import Backbone, Encoding
from fdsl.discrepancy import Discrepancy
from fdsl.reference import ReferenceBank
from fdsl.windows import check_windows, cut_windows, stitch_windows


class LayerMaps(NamedTuple):
    """Per-layer maps of B images, each (L, B, G, G).

    Attributes:
        learned: the head's anomaly probability, after NAM if it is on.
        discrepancy: 1 - cosine similarity to the nearest reference token.
    """

    learned: Tensor
    discrepancy: Tensor


@dataclass(frozen=True)
class Windows:
    """Square windows of ``size`` patches every ``stride`` patches, encoded ``batch_size`` at a time."""

    size: int
    stride: int
    batch_size: int = 32

    def encode(self, backbone: Backbone, image: Tensor) -> Iterator[Encoding]:
        """Encode the windows of one image (3, S, S), row-major, a batch at a time.

        Raises:
            ConfigError: if the windows leave cells of the patch grid uncovered.
        """
        for part in self.cut(backbone, image).split(self.batch_size):
            yield backbone(part)

    def encode_references(
        self, backbone: Backbone, images: Tensor, dtype: torch.dtype | None = None
    ) -> ReferenceBank:
        """Encode the windows of all references (k, 3, S, S) into one bank of k * W units."""
        windows = torch.cat([self.cut(backbone, image) for image in images])
        return ReferenceBank.encode(backbone, windows, self.batch_size, dtype)

    def cut(self, backbone: Backbone, image: Tensor) -> Tensor:
        """Cut one image, (3, S, S) -> (W, 3, s, s)."""
        patch = backbone.spec.patch_size
        check_windows(image.shape[-1] // patch, self.size, self.stride)
        return cut_windows(image[None], self.size * patch, self.stride * patch)[0]
