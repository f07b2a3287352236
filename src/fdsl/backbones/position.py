"""Position embeddings for any image size, always resized from the grid that the weights were trained with."""

from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fdsl.backbones.weights import WeightsError


def square_grid(num_tokens: int) -> int:
    """Side G of the patch grid of a position embedding with G*G or, counting a CLS token, G*G + 1 rows.

    Raises:
        WeightsError: if the rows form no square grid.
    """
    for patches in (num_tokens, num_tokens - 1):
        if patches > 0 and isqrt(patches) ** 2 == patches:
            return isqrt(patches)
    raise WeightsError(f"a position embedding of {num_tokens} rows is no square grid, with a CLS token or without")


class PositionEmbedding(nn.Module):
    """CLS and patch position embeddings, ``G' -> (1 + G'*G', C)``.

    Bicubic and antialiased, as ``open_clip`` resizes them on loading. Every grid is made once, from the
    original, and kept: the same few image sizes come again and again.

    Args:
        embedding: (1 + G*G, C), the weights' own, CLS first.
    """

    def __init__(self, embedding: Tensor) -> None:
        super().__init__()
        self.embedding = nn.Parameter(embedding.detach(), requires_grad=False)  # 1+G*G C
        self.grid = square_grid(embedding.shape[0])
        self._resized: dict[tuple[int, torch.device, torch.dtype], Tensor] = {}
        self.register_load_state_dict_post_hook(_forget)  # type: ignore[no-untyped-call]

    def forward(self, grid: int) -> Tensor:
        """Position embeddings of a ``grid`` x ``grid`` image, (1 + grid*grid, C)."""
        key = (grid, self.embedding.device, self.embedding.dtype)
        if key not in self._resized:
            # A tensor made in inference mode could not be used in training later.
            with torch.inference_mode(False), torch.no_grad():
                self._resized[key] = self._resize(grid)
        return self._resized[key]

    def _resize(self, grid: int) -> Tensor:
        if grid == self.grid:
            return self.embedding.detach()
        cls, patches = self.embedding[:1], self.embedding[1:]  # 1 C and G*G C
        patches = patches.T.reshape(1, -1, self.grid, self.grid).float()  # 1 C G G
        patches = F.interpolate(patches, (grid, grid), mode="bicubic", antialias=True, align_corners=False)
        return torch.cat([cls, patches[0].flatten(1).T.to(cls.dtype)])  # 1+grid*grid C


def _forget(position: PositionEmbedding, _: object) -> None:
    """Drop the kept grids: they must not outlive the weights they were made from."""
    position._resized.clear()
