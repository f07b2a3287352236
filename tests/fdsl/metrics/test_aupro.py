import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from fdsl.metrics import aupro


def naive_aupro(maps, masks, fpr_limit, connectivity):
    """The definition, word for word: every threshold, every image, every region."""
    structure = np.ones((3, 3)) if connectivity == 8 else None
    regions = []
    for image, mask in enumerate(masks):
        labelled, count = ndimage.label(mask, structure)
        regions += [(image, labelled == number) for number in range(1, count + 1)]
    xs, ys = [0.0], [0.0]
    for threshold in np.unique(maps)[::-1]:
        admitted = maps >= threshold
        xs.append(admitted[masks == 0].mean())
        ys.append(np.mean([admitted[image][region].mean() for image, region in regions]))
    area = 0.0
    for x0, x1, y0, y1 in zip(xs, xs[1:], ys, ys[1:], strict=False):
        if x0 >= fpr_limit or x1 == x0:
            continue
        stop = min(x1, fpr_limit)
        y_stop = y0 + (y1 - y0) * (stop - x0) / (x1 - x0)
        area += (stop - x0) * (y0 + y_stop) / 2
    return area / fpr_limit


def example(seed, levels, defect=0.15, shape=(3, 7, 6)):
    rng = np.random.default_rng(seed)
    masks = (rng.random(shape) < defect).astype(np.uint8)
    masks[0, 0, 0], masks[0, 0, 1] = 1, 0
    maps = rng.random(shape) + 0.4 * masks
    if levels is not None:
        maps = np.floor(maps * levels)
    return maps.astype(np.float32), masks


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    levels=st.sampled_from([1, 3, 10, None]),
    defect=st.sampled_from([0.0, 0.1, 0.5, 0.9]),
    fpr_limit=st.sampled_from([0.01, 0.05, 0.3, 0.5, 1.0]),
    connectivity=st.sampled_from([4, 8]),
)
def test_equals_the_definition(seed, levels, defect, fpr_limit, connectivity):
    maps, masks = example(seed, levels, defect)
    actual = aupro(torch.from_numpy(maps), torch.from_numpy(masks), fpr_limit, connectivity)
    assert actual == pytest.approx(naive_aupro(maps, masks, fpr_limit, connectivity), abs=1e-12)


def row(*values):
    """One image of one row of pixels, (1, 1, W)."""
    return torch.tensor(values)[None, None]


def test_perfect_map_is_one():
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[0, 1:3, 1:4] = masks[1, 5, 5] = True
    assert aupro(masks.float(), masks) == pytest.approx(1.0, abs=1e-15)


def test_constant_map_is_half_the_limit():
    # One threshold admits everything at once: the line from (0, 0) to (1, 1), of mean height 0.15 up to 0.3.
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[0, :2] = True
    assert aupro(torch.full((2, 8, 8), 0.7), masks) == pytest.approx(0.15, abs=1e-15)


def test_inverted_map_is_zero():
    masks = row(1, 0, 0, 0, 0)
    assert aupro(-masks.float(), masks) == 0.0


def test_limit_between_two_thresholds():
    # Curve: (0, 1/2), then the tie of the other defect pixel with two of the four normal ones: (1/2, 1).
    # At 0.3 the line stands at 1/2 + 0.3 = 0.8: mean of 0.5 and 0.8.
    maps, masks = row(3.0, 2.0, 2.0, 2.0, 1.0, 1.0), row(1, 1, 0, 0, 0, 0)
    assert aupro(maps, masks) == pytest.approx(0.65, abs=1e-15)


def test_limit_on_a_threshold():
    # FPR climbs in quarters; PRO jumps from 0 to 1 at 1/4: area 1/4 of the 1/2.
    maps, masks = row(4.0, 3.0, 2.0, 1.0, 0.0), row(0, 1, 0, 0, 0)
    assert aupro(maps, masks, fpr_limit=0.5) == pytest.approx(0.5, abs=1e-15)
    assert aupro(maps, masks, fpr_limit=0.25) == 0.0


def test_small_region_weighs_as_much_as_a_large_one():
    # The large region (four pixels) is found before the normal pixel, the small one (one pixel) after it.
    maps, masks = row(3.0, 3.0, 3.0, 3.0, 2.0, 1.0), row(1, 1, 1, 1, 0, 1)
    assert aupro(maps, masks) == pytest.approx(0.5, abs=1e-15)


def test_connectivity_of_diagonal_neighbours():
    # A pair that shares a side, then two pixels down the diagonal. The pair alone is found before the normal
    # pixels: half of the one region of four (8), or one whole region of three (4).
    masks = torch.tensor([[[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]]])
    maps = torch.zeros(1, 4, 4)
    maps[0, 0, :2] = 3
    maps[masks == 0] = 1
    assert aupro(maps, masks, connectivity=8) == pytest.approx(1 / 2, abs=1e-15)
    assert aupro(maps, masks, connectivity=4) == pytest.approx(1 / 3, abs=1e-15)


def test_regions_end_with_their_image():
    # The same pixel in two images: two regions, not one that runs through the stack.
    masks = torch.tensor([[[1, 1, 0, 0]], [[1, 0, 0, 0]]])
    maps = torch.tensor([[[3.0, 3.0, 1.0, 1.0]], [[0.0, 1.0, 1.0, 1.0]]])
    assert aupro(maps, masks) == pytest.approx(1 / 2, abs=1e-15)


def test_depends_on_the_order_of_scores_only():
    maps, masks = (torch.from_numpy(part) for part in example(0, levels=20, shape=(6, 12, 12)))
    expected = aupro(maps, masks)
    assert aupro(torch.exp(maps.double() / 5) - 3, masks) == pytest.approx(expected, abs=1e-12)
    assert aupro(maps.flip(0), masks.flip(0)) == pytest.approx(expected, abs=1e-12)


def test_stays_below_one():
    # Thirds and sevenths do not add up to one in floating point.
    for n in range(1, 60):
        masks = torch.ones(1, 1, 2 * n, dtype=torch.uint8)
        masks[..., ::2] = 0
        assert 1 - 1e-12 < aupro(masks.float(), masks) <= 1


@pytest.mark.parametrize("value", [0, 1])
def test_nan_without_region_or_normal_pixel(value):
    assert math.isnan(aupro(torch.rand(2, 3, 3), torch.full((2, 3, 3), value)))


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((3, 3), {}, r"shape \(n, H, W\), got \(3, 3\)"),
        ((0, 3, 3), {}, "empty"),
        ((1, 3, 3), {"fpr_limit": 0.0}, "fpr_limit must be in"),
        ((1, 3, 3), {"fpr_limit": 1.5}, "fpr_limit must be in"),
        ((1, 3, 3), {"fpr_limit": math.nan}, "fpr_limit must be in"),
        ((1, 3, 3), {"connectivity": 6}, "connectivity must be 4"),
    ],
)
def test_refuses_bad_input(shape, options, message):
    with pytest.raises(ValueError, match=message):
        aupro(torch.zeros(shape), torch.zeros(shape), **options)


def test_refuses_masks_of_another_shape():
    with pytest.raises(ValueError, match="same shape"):
        aupro(torch.zeros(1, 4, 4), torch.zeros(1, 2, 2))
