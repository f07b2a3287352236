import pytest

from fdsl.backbones import PyPIViTSmall, RandomViT, check_blocks, check_image_size
from fdsl.errors import ConfigError


def test_blocks_in_order_pass():
    assert check_blocks([3, 5, 12], 12) == (3, 5, 12)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([], "at least one"),
        ([0, 3], "no block 0, they are 1 to 12"),
        ([3, 13], "no block 13, they are 1 to 12"),
        ([3, 3], "3 comes after 3"),
        ([6, 3], "3 comes after 6"),
    ],
)
def test_bad_blocks_are_named(blocks, message):
    with pytest.raises(ConfigError, match=message):
        check_blocks(blocks, 12)


def test_image_size_gives_the_grid():
    assert check_image_size(518, 14) == 37


@pytest.mark.parametrize(("size", "nearest"), [(520, "518, 532"), (10, "14"), (0, "14")])
def test_image_size_of_no_whole_patches_is_refused(size, nearest):
    with pytest.raises(ConfigError, match=f"nearest that are: {nearest}$"):
        check_image_size(size, 14)


@pytest.mark.parametrize("backbone", [RandomViT, PyPIViTSmall])
def test_unknown_options_are_refused_before_anything_is_built(backbone):
    with pytest.raises(ConfigError, match=r"has no option blokcs; it has .*blocks"):
        backbone.describe(blokcs=[1])
