"""Checks of a backbone's configuration that need no backbone, so that they come before one is built."""

import inspect
from collections.abc import Iterable, Sequence
from itertools import pairwise

from fdsl.errors import ConfigError


def check_blocks(blocks: Sequence[int], depth: int) -> tuple[int, ...]:
    """Check a choice of tapped blocks.

    Args:
        blocks: block numbers, the first block being 1.
        depth: number of blocks of the backbone.

    Returns:
        The same numbers as a tuple.

    Raises:
        ConfigError: unless there is at least one block, all in 1..depth and strictly increasing.
    """
    if not blocks:
        raise ConfigError("backbone blocks: name at least one block to tap")
    for block in blocks:
        if not 1 <= block <= depth:
            raise ConfigError(f"backbone blocks {list(blocks)}: there is no block {block}, they are 1 to {depth}")
    for earlier, later in pairwise(blocks):
        if later <= earlier:
            raise ConfigError(
                f"backbone blocks {list(blocks)}: {later} comes after {earlier}; list each block of the "
                f"{depth} once, in increasing order"
            )
    return tuple(blocks)


def check_image_size(image_size: int, patch_size: int) -> int:
    """Check that an image of ``image_size`` pixels a side is a whole number of patches.

    Returns:
        Patches a side, G.

    Raises:
        ConfigError: if it is not; the message names the nearest sizes that are.
    """
    if image_size < patch_size or image_size % patch_size:
        below = image_size // patch_size * patch_size
        fitting = [size for size in (below, below + patch_size) if size > 0]
        raise ConfigError(
            f"image size {image_size} is no multiple of the backbone's patch size {patch_size}; "
            f"nearest that are: {', '.join(map(str, fitting))}"
        )
    return image_size // patch_size


def check_options(backbone: type, options: Iterable[str]) -> None:
    """Check that options are arguments of a backbone's constructor.

    Raises:
        ConfigError: naming those that are not, and those there are.
    """
    known = inspect.signature(backbone).parameters
    if unknown := [option for option in options if option not in known]:
        raise ConfigError(
            f"backbone.model: {backbone.__name__} has no option {', '.join(unknown)}; it has {', '.join(known)}"
        )
