"""The benchmark's baseline computes what fdsl computes: else its ratio would say nothing."""

import sys
from pathlib import Path

import pytest
import torch

from fdsl.backbones import RandomViT
from fdsl.local_features import LocalFeatures
from fdsl.reference import ReferenceBank
from fdsl.score_learning import ScoreHead
from fdsl.windows import window_boxes

EXPERIMENTS = Path(__file__).parent.parent.parent / "experiments"


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    sys.modules.pop("plain", None)
    import plain

    return plain


def test_plain_scoring_gives_the_same_maps(plain):
    torch.manual_seed(0)
    backbone, head = RandomViT(grid=6), ScoreHead(4, 32).eval()
    images, references = torch.randn(2, 3, 84, 84), torch.randn(2, 3, 84, 84)
    local = LocalFeatures(size=4, stride=2, search="full")
    with torch.inference_mode():
        bank = ReferenceBank.encode(backbone, references)
        tokens = backbone(images).tokens
        ours = head(bank.match(tokens).deviation).last
        theirs = plain.score_whole(head, tokens, bank.tokens.flatten(1, 2))
        torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=0)

        windows = local.encode_references(backbone, references)
        ours = local.score(backbone, head, [windows], images[:1])[0].learned
        tokens = backbone(torch.cat(list(local.cut(backbone, images[0])))).tokens
        scores = plain.score_windows(head, tokens, windows.tokens.flatten(1, 2))
        theirs = plain.stitch(head, scores, window_boxes(6, 4, 2), 6)
        torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=0)
