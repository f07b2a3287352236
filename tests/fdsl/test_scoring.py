import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fdsl.scoring import anomaly_map, fuse, image_score, peak_score


def test_upsampling_keeps_corners_and_means_over_layers():
    maps = torch.rand(3, 2, 5, 5)
    made = anomaly_map(maps, 17)
    assert made.shape == (2, 17, 17)
    torch.testing.assert_close(made[:, ::4, ::4], maps.mean(0))  # align_corners: grid points stay grid points
    torch.testing.assert_close(made[:, 0, 2], (maps[:, :, 0, 0] + maps[:, :, 0, 1]).mean(0) / 2)


def test_peak_is_the_mean_of_the_layers_maxima():
    maps = torch.zeros(2, 1, 3, 3)
    maps[0, 0, 1, 1], maps[1, 0, 2, 0] = 0.8, 0.4
    assert peak_score(maps).item() == pytest.approx(0.6)


def test_fusion():
    learned, fd = torch.rand(2, 3), torch.rand(2, 3)
    assert torch.equal(fuse(learned, fd, "asl", 0.3), learned)
    torch.testing.assert_close(fuse(learned, fd, "fd_asl", 0.3), 0.7 * learned + 0.3 * fd)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=20))
@settings(deadline=None)
def test_an_independent_score_does_not_depend_on_the_others(parts: list[tuple[float, float]]):
    s1, s2 = torch.tensor(parts, dtype=torch.float64).unbind(1)
    alone = torch.cat([image_score(s1[i : i + 1], s2[i : i + 1], "independent") for i in range(len(s1))])
    torch.testing.assert_close(image_score(s1, s2, "independent"), alone)
    transductive = image_score(s1, s2, "transductive")
    assert transductive.isfinite().all()
    if s2.min() < s2.max():
        low, high = s2.argmin(), s2.argmax()
        assert transductive[low].item() == pytest.approx(s1[low].item() / 2)
        assert transductive[high].item() == pytest.approx((s1[high].item() + 1) / 2)


def test_constant_maxima_count_as_nothing():
    torch.testing.assert_close(
        image_score(torch.tensor([0.2, 0.6]), torch.tensor([0.5, 0.5]), "transductive"), torch.tensor([0.1, 0.3])
    )
