"""The golden vectors' stand-in backbone."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fdsl.backbones import Backbone, BackboneSpec, Weights

GOLDEN = Path(__file__).parent / "golden"
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class StandIn(Backbone):
    """The golden vectors' encoder: a linear map of each patch, less most of the image's mean, through tanh."""

    def __init__(self, blocks: tuple[int, ...] = (1, 2, 3, 4)) -> None:
        weights = torch.load(GOLDEN / "encoder.pt", weights_only=True)
        super().__init__(self.describe(), blocks, Weights("golden/encoder.pt", "stand-in"))
        self.register_buffer("patch_weights", weights["W"].float())
        self.register_buffer("feature_weights", weights["P"].float())
        self._freeze()

    @classmethod
    def describe(cls, **options: Any) -> BackboneSpec:
        return BackboneSpec(depth=4, patch_size=14, width=64, feature_width=32)

    def _encode(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        patches = F.unfold(images, 14, stride=14).transpose(1, 2)  # B N 588
        z = [patches @ w.T for w in self.patch_weights]
        tokens = [torch.tanh(layer - 0.7 * layer.mean(dim=1, keepdim=True)) for layer in z]
        return [tokens[b - 1] for b in self.blocks], tokens[-1].mean(dim=1) @ self.feature_weights.T
