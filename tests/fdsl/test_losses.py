import math

import pytest
import torch

from fdsl.losses import dice_loss, focal_loss, score_loss


def two_channels(anomalous: torch.Tensor) -> torch.Tensor:
    return torch.stack([1 - anomalous, anomalous], dim=1)


def test_focal_loss_by_hand():
    mask = torch.tensor([[[1, 0]]])
    probability = two_channels(torch.tensor([[[0.9, 0.6]]]))
    truth = [(1 - 1e-5) * 0.9 + 1e-5 * 0.1 + 1e-5, (1 - 1e-5) * 0.4 + 1e-5 * 0.6 + 1e-5]
    expected = sum(-((1 - t) ** 2) * math.log(t) for t in truth) / 2
    assert focal_loss(probability, mask).item() == pytest.approx(expected, rel=1e-5)


def test_gamma_zero_is_cross_entropy():
    mask = (torch.rand(2, 5, 5) > 0.5).long()
    anomalous = torch.rand(2, 5, 5) * 0.98 + 0.01
    expected = torch.nn.functional.nll_loss(two_channels(anomalous).log(), mask)
    assert focal_loss(two_channels(anomalous), mask, gamma=0).item() == pytest.approx(expected.item(), abs=1e-3)


def test_dice_loss_by_hand():
    mask = torch.tensor([[[1, 1, 0, 0]], [[0, 0, 0, 0]]])
    anomalous = torch.tensor([[[1.0, 0.5, 0.5, 0.0]], [[0.0, 0.0, 0.0, 1.0]]])
    assert dice_loss(anomalous, mask).item() == pytest.approx(1 - ((2 * 1.5 + 1) / (2 + 2 + 1) + 1 / 2) / 2)
    assert dice_loss(mask.float(), mask).item() == pytest.approx(0)


def test_every_map_is_supervised_at_the_mask_s_size():
    mask = (torch.rand(2, 12, 12) > 0.7).to(torch.uint8)
    maps = [torch.rand(2, 2, 12, 12).softmax(1) for _ in range(3)]
    expected = sum(focal_loss(m, mask) + dice_loss(m[:, 1], mask) for m in maps)
    torch.testing.assert_close(score_loss(maps, mask), expected)
    small = torch.rand(2, 2, 4, 4).softmax(1).requires_grad_()
    score_loss([small], mask).backward()
    assert small.grad.abs().min() > 0
