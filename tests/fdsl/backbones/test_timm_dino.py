import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import checkpoint_filter_fn

from fdsl.backbones import BackboneSpec, TimmBackbone, WeightsError
from fdsl.backbones import timm_dino as module
from fdsl.errors import ConfigError


@pytest.mark.parametrize("size", [182, 518])
def test_agrees_with_timms_own_model_of_that_image_size(dino, images, record, size):
    name, path = dino
    backbone = TimmBackbone(name, str(path), blocks=(1, 3, 4))
    model = timm.create_model(name, num_classes=0, img_size=size).eval()
    timm.models.load_checkpoint(model, str(path), filter_fn=checkpoint_filter_fn)
    outputs = record(model.blocks)
    backbone(images(56))  # another size before must not matter
    tokens, feature = backbone(images(size))
    with torch.no_grad():
        cls = F.normalize(model.forward_features(images(size))[:, 0], dim=-1)
    torch.testing.assert_close(feature, cls, atol=1e-5, rtol=0)
    for layer, block in zip(tokens, backbone.blocks, strict=True):
        expected = F.normalize(outputs[block - 1][:, model.num_prefix_tokens :], dim=-1)
        torch.testing.assert_close(layer, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("vit_small_patch14_dinov2.lvd142m", BackboneSpec(12, 14, 384, 384)),
        ("vit_base_patch14_reg4_dinov2.lvd142m", BackboneSpec(12, 14, 768, 768)),
        ("vit_large_patch14_dinov2.lvd142m", BackboneSpec(24, 14, 1024, 1024)),
        ("vit_giant_patch14_dinov2.lvd142m", BackboneSpec(40, 14, 1536, 1536)),
    ],
)
def test_describes_every_size(name, spec):
    assert TimmBackbone.describe(name=name, blocks=[1], cache_dir=None) == spec


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet18", "resnet18 cannot be used"),
        ("swin_tiny_patch4_window7_224", "cannot be used"),
        ("vit_base_patch16_siglip_224", "lacks a CLS token"),
        ("vit_small_patch14_dinov2.nonesuch", "nonesuch"),
        ("nonesuch", "timm has no model nonesuch"),
    ],
)
def test_what_is_no_such_vit_is_refused(name, message):
    with pytest.raises(ConfigError, match=message):
        TimmBackbone.describe(name=name)


def test_reads_the_original_layout(dino, tmp_path, images):
    name, path = dino
    original = load_file(path) | {"mask_token": torch.zeros(1, 48)}
    if "reg_token" in original:
        # The original keeps a position for CLS; timm adds it to the CLS token.
        original["register_tokens"] = original.pop("reg_token")
        position = torch.randn(1, 1, 48)
        original["cls_token"] -= position
        original["pos_embed"] = torch.cat([position, original["pos_embed"]], dim=1)
    torch.save(original, tmp_path / "original.pth")
    tokens = TimmBackbone(name, str(tmp_path / "original.pth"), (1, 4))(images(56)).tokens
    torch.testing.assert_close(tokens, TimmBackbone(name, str(path), (1, 4))(images(56)).tokens, atol=1e-5, rtol=0)


def test_the_files_own_grid_counts(dino, tmp_path):
    name, path = dino
    state = load_file(path)
    prefix = state["pos_embed"].shape[1] - 37 * 37
    state["pos_embed"] = state["pos_embed"][:, : prefix + 16 * 16].contiguous()
    save_file(state, tmp_path / "small.safetensors")
    backbone = TimmBackbone(name, str(tmp_path / "small.safetensors"), blocks=(4,))
    assert backbone.vit.patch_embed.grid_size == (16, 16)


def test_weights_that_do_not_fit_are_errors(dino, tmp_path):
    name, path = dino
    state, bad = load_file(path), tmp_path / "bad.safetensors"
    gamma = state.pop("blocks.3.ls1.gamma")
    save_file(state, bad)
    with pytest.raises(WeightsError, match=r"bad.safetensors lacks 1 of .*blocks\.3\.ls1\.gamma"):
        TimmBackbone(name, str(bad), blocks=(4,))
    save_file(state | {"blocks.3.ls1.gamma": gamma[:-1].contiguous()}, bad)
    with pytest.raises(WeightsError, match=r"fits another VisionTransformer: .*gamma is \(47,\), not \(48,\)"):
        TimmBackbone(name, str(bad), blocks=(4,))


def test_another_models_weights_are_refused(clip_file):
    with pytest.raises(WeightsError, match="has no pos_embed"):
        TimmBackbone(weights=str(clip_file))


def test_hub_weights_go_the_way_of_a_file(monkeypatch, dino):
    name, path = dino
    asked = []
    monkeypatch.setattr(module, "from_hub", lambda *arguments: asked.append(arguments) or path)
    backbone = TimmBackbone(f"{name}.lvd142m", blocks=(1,), cache_dir="cache")
    repository = f"timm/{name}.lvd142m"
    assert asked == [(f"{name}.lvd142m", repository, module.HUB_FILENAMES, "cache")]
    assert backbone.weights.source == f"hub {repository}"
    assert backbone.weights.sha256 == module.sha256_of_file(path)
