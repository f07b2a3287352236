import pickle

import pytest
import torch
import torch.nn.functional as F

from fdsl.backbones.position import PositionEmbedding, square_grid
from fdsl.backbones.weights import WeightsError


@pytest.fixture
def position():
    return PositionEmbedding(torch.randn(1 + 24 * 24, 8, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(("tokens", "grid"), [(1369, 37), (1370, 37), (577, 24), (1, 1)])
def test_grid_with_and_without_cls_token(tokens, grid):
    assert square_grid(tokens) == grid


@pytest.mark.parametrize("tokens", [0, 3, 1371])
def test_a_grid_that_is_no_square_is_refused(tokens):
    with pytest.raises(WeightsError, match=f"{tokens} rows"):
        square_grid(tokens)


def test_its_own_grid_is_left_alone(position):
    assert torch.equal(position(24), position.embedding)


def test_every_grid_is_resized_once_and_from_the_original(position, monkeypatch):
    inputs = []
    original = F.interpolate
    monkeypatch.setattr(F, "interpolate", lambda x, *a, **k: inputs.append(x.shape[-1]) or original(x, *a, **k))
    shapes = [tuple(position(grid).shape) for grid in (37, 13, 37, 13, 24)]
    assert inputs == [24, 24]
    assert shapes == [(1370, 8), (170, 8), (1370, 8), (170, 8), (577, 8)]
    assert torch.equal(position(13)[0], position.embedding[0])


def test_a_kept_grid_does_not_outlive_its_weights(position):
    before = position(13)
    position.load_state_dict({"embedding": position.embedding + 1})
    torch.testing.assert_close(position(13), before + 1)


def test_can_be_sent_to_another_process(position):
    assert torch.equal(pickle.loads(pickle.dumps(position))(13), position(13))
