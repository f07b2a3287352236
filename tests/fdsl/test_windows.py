from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fdsl.errors import ConfigError
from fdsl.windows import check_windows, covers, cut_windows, stitch_windows, window_boxes


@st.composite
def layouts(draw: st.DrawFn) -> tuple[int, int, int]:
    """A grid, a window size and a stride that cover it."""
    size = draw(st.integers(1, 8))
    stride = draw(st.integers(1, size))
    return size + stride * draw(st.integers(0, 6)), size, stride


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_covered_means_that_every_cell_lies_in_a_window(grid: int, size: int, stride: int):
    touched = torch.zeros(grid, dtype=torch.bool)
    for start in range(0, grid - size + 1, stride):
        touched[start : start + size] = True
    assert covers(grid, size, stride) == bool(touched.all())


def test_the_nearest_that_work_are_named():
    check_windows(37, 13, 2)
    with pytest.raises(ConfigError, match="win_stride=4 or 6, or win_size=12 or 17"):
        check_windows(37, 13, 5)
    with pytest.raises(ConfigError, match="larger than the 8 x 8 patch grid"):
        check_windows(8, 13, 2)


@pytest.mark.parametrize(("size", "stride"), [(13, 2), (13, 8), (5, 1), (7, 5)])
def test_boxes_and_stitching_are_the_published_ones(size: int, stride: int, golden: Path):
    expected = np.load(golden / "window_stitch.npz")
    name = f"w{size}_s{stride}"
    np.testing.assert_array_equal(window_boxes(37, size, stride), expected[f"{name}/boxes"])
    scores = torch.from_numpy(expected[f"{name}/window_scores"])[None]
    stitched = stitch_windows(scores, 37, size, stride)[0]
    np.testing.assert_allclose(stitched, expected[f"{name}/stitched"], atol=1e-5, rtol=0)


@given(layouts(), st.integers(0, 99))
@settings(deadline=None)
def test_a_cell_is_the_mean_of_the_windows_that_hold_it(layout: tuple[int, int, int], seed: int):
    grid, size, _stride = layout
    boxes = window_boxes(*layout)
    maps = torch.rand(2, len(boxes), size * size, generator=torch.Generator().manual_seed(seed))
    total, count = torch.zeros(2, grid, grid), torch.zeros(grid, grid)
    for w, (top, bottom, left, right) in enumerate(boxes.tolist()):
        total[:, top:bottom, left:right] += maps[:, w].view(2, size, size)
        count[top:bottom, left:right] += 1
    torch.testing.assert_close(stitch_windows(maps, *layout), total / count)
    torch.testing.assert_close(stitch_windows(torch.full_like(maps, 0.3), *layout), torch.full((2, grid, grid), 0.3))


@given(layouts())
@settings(deadline=None, max_examples=30)
def test_cutting_follows_the_boxes(layout: tuple[int, int, int]):
    grid, size, stride = layout
    patch = 2
    image = torch.rand(3, grid * patch, grid * patch)
    batches = list(cut_windows(image, size * patch, stride * patch, batch_size=5))
    assert all(len(batch) == 5 for batch in batches[:-1])
    cut = torch.cat(batches)
    boxes = (window_boxes(grid, size, stride) * patch).tolist()
    assert len(cut) == len(boxes)
    for window, (top, bottom, left, right) in zip(cut, boxes, strict=True):
        assert torch.equal(window, image[:, top:bottom, left:right])


def test_uncovered_cells_are_refused():
    with pytest.raises(ConfigError, match="uncovered"):
        stitch_windows(torch.rand(1, 4, 9), 7, 3, 3)
