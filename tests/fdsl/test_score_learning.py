import pytest
import torch
from torch import nn

from fdsl.score_learning import ScoreHead, TokenClassifier


@pytest.mark.parametrize("nam", [True, False])
def test_maps_are_probabilities_on_the_grid(nam: bool):
    maps = ScoreHead(3, 16, nam).eval()(torch.rand(3, 2, 49, 16))
    assert maps.token.shape == (3, 2, 2, 7, 7)
    assert (maps.aggregated is not None) == nam
    assert len(maps.all()) == (6 if nam else 3)
    for m in maps.all():
        torch.testing.assert_close(m.sum(dim=1), torch.ones(2, 7, 7))
    assert maps.last.shape == (3, 2, 7, 7)
    torch.testing.assert_close(maps.last, (maps.aggregated if nam else maps.token)[:, :, 1])


def test_a_classifier_is_the_published_stack():
    kinds = [type(m) for m in TokenClassifier(20).stages]
    hidden = [nn.Linear, nn.BatchNorm1d, nn.ReLU]
    assert kinds == [nn.BatchNorm1d, *hidden * 3, nn.Linear]
    shapes = [
        (m.in_features, m.out_features, m.bias is not None)
        for m in TokenClassifier(20).stages
        if isinstance(m, nn.Linear)
    ]
    assert shapes == [(20, 512, False), (512, 128, False), (128, 32, False), (32, 2, True)]


def test_layers_share_nam_and_nothing_else():
    head = ScoreHead(2, 8).eval()
    deviation = torch.rand(1, 1, 16, 8).repeat(2, 1, 1, 1)
    token = head(deviation).token
    assert not torch.allclose(token[0], token[1])
    head.classifiers[1].load_state_dict(head.classifiers[0].state_dict())
    same = head(deviation)
    torch.testing.assert_close(same.token[0], same.token[1])
    torch.testing.assert_close(same.aggregated[0], same.aggregated[1])


def test_row_major_tokens_keep_their_place():
    head = ScoreHead(1, 4, nam=False).eval()
    deviation = torch.zeros(1, 1, 9, 4)
    deviation[0, 0, 5] = 3.0  # row 1, column 2
    token = head(deviation).last[0, 0]
    odd = (token - token[0, 0]).abs()
    assert odd[1, 2] > 0
    assert (odd > 0).sum() == 1


def test_images_of_a_batch_do_not_influence_each_other_in_a_test():
    head = ScoreHead(2, 8).eval()
    deviation = torch.rand(2, 3, 16, 8)
    one_by_one = torch.cat([head(deviation[:, i : i + 1]).last for i in range(3)], dim=1)
    torch.testing.assert_close(head(deviation).last, one_by_one)


def test_other_features_are_refused():
    with pytest.raises(ValueError, match="reads 2 layers of width 8, got 2 of width 9"):
        ScoreHead(2, 8)(torch.rand(2, 1, 16, 9))
    with pytest.raises(ValueError, match="15 patch tokens do not form a square"):
        ScoreHead(2, 8)(torch.rand(2, 1, 15, 8))


def test_folded_normalisation_is_the_stages_one_after_the_other():
    classifier = TokenClassifier(20)
    generator = torch.Generator().manual_seed(0)
    for module in classifier.modules():
        if isinstance(module, nn.BatchNorm1d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
    deviation = torch.rand(50, 20, generator=generator)
    plain = classifier.eval().stages(deviation).softmax(dim=1)
    torch.testing.assert_close(classifier(deviation), plain, atol=1e-6, rtol=0)


def test_aggregation_of_the_probability_alone_is_that_of_both_channels():
    head = ScoreHead(3, 8).eval()
    maps = head(torch.rand(3, 2, 25, 8))
    torch.testing.assert_close(head.aggregate(maps.token[:, :, 1]), maps.last, atol=1e-6, rtol=0)
    plain = ScoreHead(3, 8, nam=False)
    assert torch.equal(plain.aggregate(maps.last), maps.last)
