import pytest
import torch

from fdsl.backbones import RandomViT
from fdsl.errors import ConfigError


def test_weights_depend_on_the_seed_alone(images):
    torch.manual_seed(1)
    first = RandomViT(seed=3)
    torch.manual_seed(2)
    again, other = RandomViT(seed=3), RandomViT(seed=4)
    assert first.weights == again.weights
    assert first.weights.source == "random seed 3"
    assert first.weights.sha256 != other.weights.sha256
    assert torch.equal(first(images(56)).tokens, again(images(56)).tokens)


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    RandomViT()
    assert torch.equal(torch.get_rng_state(), before)


def test_blocks_and_places_differ(images):
    tokens = RandomViT()(images(56)).tokens[:, 0]  # L N C
    assert (tokens[1:] * tokens[:-1]).sum(-1).max() < 0.999
    assert (tokens @ tokens.mT - torch.eye(16)).max() < 0.999


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ConfigError, match="width 30 is no multiple of heads 4"):
        RandomViT.describe(width=30, heads=4)
