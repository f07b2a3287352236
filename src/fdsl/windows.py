"""LFE windows: square groups of patches, row-major, cut from an image, and their maps stitched together again."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from fdsl.errors import ConfigError


def covers(grid: int, size: int, stride: int) -> bool:
    """Whether windows of ``size`` patches every ``stride`` patches reach every cell of a grid x grid map."""
    return size == grid or (size < grid and stride <= size and (grid - size) % stride == 0)


def check_windows(grid: int, size: int, stride: int) -> None:
    """Refuse windows that leave cells uncovered.

    Raises:
        ConfigError: naming the nearest strides, or sizes, that work.
    """
    if covers(grid, size, stride):
        return
    if size > grid:
        raise ConfigError(f"win_size={size}: larger than the {grid} x {grid} patch grid; use at most {grid}")
    strides = sorted((s for s in range(1, size + 1) if covers(grid, size, s)), key=lambda s: (abs(s - stride), s))
    sizes = sorted((w for w in range(1, grid + 1) if covers(grid, w, stride)), key=lambda w: (abs(w - size), w))
    raise ConfigError(
        f"win_stride={stride} with win_size={size} leaves cells of the {grid} x {grid} patch grid uncovered: use "
        f"win_stride={' or '.join(map(str, strides[:2]))}, or win_size={' or '.join(map(str, sizes[:2]))}"
    )


def window_boxes(grid: int, size: int, stride: int) -> Tensor:
    """Return where the windows lie, in patches: (W, 4) int64 of row0, row1, col0, col1 (ends exclusive)."""
    starts = torch.arange(0, grid - size + 1, stride)
    corner = torch.cartesian_prod(starts, starts).view(-1, 2)  # W 2, rows first
    return torch.stack([corner[:, 0], corner[:, 0] + size, corner[:, 1], corner[:, 1] + size], dim=1)


def cut_windows(image: Tensor, size: int, stride: int, batch_size: int) -> Iterator[Tensor]:
    """Cut windows of ``size`` pixels every ``stride`` pixels: (3, S, S) -> batches (b, 3, size, size), row-major.

    Batches are made one at a time: all windows together can be a hundred times the image.
    """
    cut = image.unfold(1, size, stride).unfold(2, size, stride).permute(1, 2, 0, 3, 4)  # n n 3 size size, a view
    side = cut.shape[0]
    for part in torch.split(torch.arange(side * side, device=image.device), batch_size):
        yield cut[part // side, part % side]


def stitch_windows(maps: Tensor, grid: int, size: int, stride: int) -> Tensor:
    """Lay window maps into the grid, averaged where windows overlap: (M, W, size * size) -> (M, grid, grid).

    Raises:
        ConfigError: if the windows leave cells uncovered.
    """
    check_windows(grid, size, stride)
    columns = maps.transpose(1, 2)  # M size*size W, as fold wants them
    total = F.fold(columns, (grid, grid), size, stride=stride)
    count = F.fold(torch.ones_like(columns[:1]), (grid, grid), size, stride=stride)
    return (total / count)[:, 0]
