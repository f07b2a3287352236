import pytest
import torch
import torch.nn.functional as F

from fdsl.backbones import RandomViT
from fdsl.errors import ConfigError


def test_cls_feature_is_the_final_normed_cls(images, record):
    backbone = RandomViT(blocks=(1,))
    outputs = record(backbone.vit.blocks)
    feature = backbone(images(56)).image_feature
    torch.testing.assert_close(feature, F.normalize(backbone.vit.norm(outputs[-1])[:, 0], dim=-1))


@pytest.mark.parametrize(("blocks", "averaged", "run"), [((1, 3), 2, 3), ((1, 2), 3, 3), ((1,), 1, 1)])
def test_mean_feature_is_of_its_block_and_later_blocks_are_not_run(images, record, blocks, averaged, run):
    backbone = RandomViT(blocks=blocks, image_feature="mean", image_feature_block=averaged)
    outputs = record(backbone.vit.blocks)
    tokens, feature = backbone(images(56))
    assert len(outputs) == run
    assert len(tokens) == len(blocks)
    torch.testing.assert_close(feature, F.normalize(outputs[averaged - 1][:, 1:].mean(dim=1), dim=-1))
    torch.testing.assert_close(tokens[-1], F.normalize(outputs[blocks[-1] - 1][:, 1:], dim=-1))


@pytest.mark.parametrize(
    ("feature", "block", "message"),
    [
        ("mean", None, "needs image_feature_block"),
        ("mean", 5, "no block 5, they are 1 to 4"),
        ("cls", 2, "is for image_feature 'mean'"),
        ("max", None, "'max': it is one of"),
    ],
)
def test_impossible_image_features_are_refused(feature, block, message):
    with pytest.raises(ConfigError, match=message):
        RandomViT.describe(image_feature=feature, image_feature_block=block)
    with pytest.raises(ConfigError, match=message):
        RandomViT(image_feature=feature, image_feature_block=block)
