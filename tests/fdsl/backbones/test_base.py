import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fdsl.backbones import Backbone, OpenCLIPBackbone


def block_list(backbone: Backbone) -> nn.Module:
    return backbone.visual.transformer.resblocks if isinstance(backbone, OpenCLIPBackbone) else backbone.vit.blocks


@pytest.mark.parametrize("size", [56, 182])
def test_tokens_are_the_normalised_block_outputs_without_prefix(backbone, images, record, size):
    outputs = record(block_list(backbone))
    tokens, feature = backbone(images(size, batch=2))
    patches = (size // backbone.spec.patch_size) ** 2
    assert tokens.shape == (len(backbone.blocks), 2, patches, backbone.spec.width)
    assert feature.shape == (2, backbone.spec.feature_width)
    for layer, block in zip(tokens, backbone.blocks, strict=True):
        torch.testing.assert_close(layer, F.normalize(outputs[block - 1][:, -patches:], dim=-1), atol=1e-6, rtol=0)


def test_everything_has_unit_length(backbone, images):
    tokens, feature = backbone(images(56, batch=2))
    torch.testing.assert_close(tokens.norm(dim=-1), torch.ones(tokens.shape[:-1]))
    torch.testing.assert_close(feature.norm(dim=-1), torch.ones(2))


def test_a_batch_equals_its_images_one_by_one(backbone, images):
    batch = images(182, batch=3)
    together = backbone(batch)
    alone = [backbone(image[None]) for image in batch]
    torch.testing.assert_close(together.tokens, torch.cat([e.tokens for e in alone], dim=1), atol=1e-5, rtol=0)
    torch.testing.assert_close(together.image_feature, torch.cat([e[1] for e in alone]), atol=1e-5, rtol=0)


def test_stays_frozen_and_in_eval_mode_inside_a_module_in_training(backbone, images):
    nn.ModuleList([backbone]).train()
    assert not any(module.training for module in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    tokens, feature = backbone(images(56).requires_grad_())
    assert not tokens.requires_grad
    assert not feature.requires_grad


def test_a_head_can_be_trained_on_tokens_even_after_a_run_in_inference_mode(backbone, images):
    with torch.inference_mode():
        backbone(images(70))
    head = nn.Linear(backbone.spec.width, 1)
    head(backbone(images(70)).tokens).sum().backward()
    assert head.weight.grad is not None


def test_follows_the_dtype_it_is_moved_to(backbone, images):
    expected = backbone(images(56)).tokens
    tokens = backbone.double()(images(56).double()).tokens
    assert tokens.dtype == torch.float64
    torch.testing.assert_close(tokens.float(), expected, atol=1e-4, rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_agrees_between_cpu_and_gpu(backbone, images):
    expected = backbone(images(182)).tokens
    torch.testing.assert_close(backbone.cuda()(images(182).cuda()).tokens.cpu(), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 56, 70), "square RGB"),
        ((1, 1, 56, 56), "square RGB"),
        ((3, 56, 56), "square RGB"),
        ((1, 3, 60, 60), "60 is no multiple of the backbone's patch size 14; nearest that are: 56, 70"),
    ],
)
def test_refuses_images_that_are_not_whole_patches(backbone, shape, message):
    with pytest.raises(ValueError, match=message):
        backbone(torch.zeros(shape))


def test_says_which_weights_it_holds(backbone):
    assert backbone.weights.source
    assert len(backbone.weights.sha256) == 64
