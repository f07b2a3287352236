import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fdsl.errors import ConfigError
from fdsl.windows import check_windows, covers


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
