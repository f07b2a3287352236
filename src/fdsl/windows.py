"""LFE windows: square groups of patches, row-major, that must cover every cell of the patch grid."""

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
