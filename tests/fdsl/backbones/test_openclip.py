import logging

import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from fdsl.backbones import BackboneSpec, OpenCLIPBackbone, WeightsError, WeightsNotFoundError
from fdsl.backbones import openclip as module

NAME = "fdsl-tiny-quickgelu"


def build(path, blocks=(1, 3, 4), pretrained="openai"):
    return OpenCLIPBackbone(NAME, pretrained, str(path), blocks)


@pytest.mark.parametrize("size", [182, 336, 518])
def test_agrees_with_open_clips_own_model_of_that_image_size(clip, clip_file, images, record, size):
    model = open_clip.create_model(NAME, pretrained=str(clip_file), force_image_size=size).eval()
    outputs = record(model.visual.transformer.resblocks)
    clip(images(56))  # another size before must not matter
    tokens, feature = clip(images(size))
    with torch.no_grad():
        expected = F.normalize(model.encode_image(images(size)), dim=-1)
    torch.testing.assert_close(feature, expected, atol=1e-5, rtol=0)
    for layer, block in zip(tokens, clip.blocks, strict=True):
        torch.testing.assert_close(layer, F.normalize(outputs[block - 1][:, 1:], dim=-1), atol=1e-5, rtol=0)


def test_describes_the_papers_backbone_without_building_it(monkeypatch):
    monkeypatch.setattr(module, "_visual_tower", None)
    assert OpenCLIPBackbone.describe() == BackboneSpec(depth=24, patch_size=14, width=1024, feature_width=768)


def test_keeps_the_visual_tower_only(clip, clip_file):
    visual = [name for name in load_file(clip_file) if name.startswith("visual.")]
    assert len(clip.state_dict()) == len(visual)


def test_the_files_own_grid_counts(clip_file, tmp_path, images, record):
    state = load_file(clip_file)
    state["visual.positional_embedding"] = state["visual.positional_embedding"][: 1 + 13 * 13].contiguous()
    save_file(state, tmp_path / "small.safetensors")
    model = open_clip.create_model(NAME, pretrained=str(tmp_path / "small.safetensors"), force_image_size=182)
    with torch.no_grad():
        expected = F.normalize(model.eval().encode_image(images(182)), dim=-1)
    backbone = build(tmp_path / "small.safetensors")
    assert backbone.position.grid == 13
    torch.testing.assert_close(backbone(images(182)).image_feature, expected, atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("layout", ["visual tower alone", "torch.save", "half", "module.", "TorchScript"])
def test_reads_every_layout_of_a_weight_file(clip, clip_file, tmp_path, images, layout):
    state = load_file(clip_file)
    path = tmp_path / "weights.pt"
    if layout == "visual tower alone":
        path = tmp_path / "visual.safetensors"
        save_file({k.removeprefix("visual."): v for k, v in state.items() if k.startswith("visual.")}, path)
    elif layout == "TorchScript":
        model = open_clip.create_model(NAME, pretrained=str(clip_file)).eval()
        model.forward = model.encode_image
        torch.jit.trace(model, images(336), check_trace=False).save(str(path))
    elif layout == "half":
        torch.save({"state_dict": {k: v.half() for k, v in state.items()}}, path)
    else:
        prefix = layout if layout == "module." else ""
        torch.save({"state_dict": {prefix + k: v for k, v in state.items()}, "epoch": 3}, path)
    backbone = build(path)
    assert all(parameter.dtype == torch.float32 for parameter in backbone.parameters())
    tolerance = 5e-3 if layout == "half" else 1e-6
    torch.testing.assert_close(backbone(images(56)).tokens, clip(images(56)).tokens, atol=tolerance, rtol=0)


def test_a_missing_weight_is_an_error(clip_file, tmp_path):
    state = load_file(clip_file)
    del state["visual.transformer.resblocks.2.ln_1.weight"]
    save_file(state, tmp_path / "bad.safetensors")
    with pytest.raises(WeightsError, match=r"bad.safetensors lacks 1 of .*: transformer.resblocks.2.ln_1.weight"):
        build(tmp_path / "bad.safetensors")


def test_a_weight_of_another_shape_is_an_error(clip_file, tmp_path):
    state = load_file(clip_file)
    state["visual.conv1.weight"] = torch.zeros(64, 3, 16, 16)
    save_file(state, tmp_path / "bad.safetensors")
    with pytest.raises(WeightsError, match=r"conv1.weight is \(64, 3, 16, 16\), not \(64, 3, 14, 14\)"):
        build(tmp_path / "bad.safetensors")


def test_a_weight_too_many_is_reported(clip_file, tmp_path, caplog):
    state = load_file(clip_file) | {"visual.extra": torch.zeros(1)}
    save_file(state, tmp_path / "more.safetensors")
    with caplog.at_level(logging.WARNING):
        build(tmp_path / "more.safetensors")
    assert "1 weights have no place in the model and are left out: extra" in caplog.text


def test_records_the_weight_file(clip, clip_file):
    assert clip.weights.source == "file clip.safetensors"
    assert clip.weights.sha256 == module.sha256_of_file(clip_file)


def test_an_absent_file_names_the_key(tmp_path):
    with pytest.raises(WeightsNotFoundError, match=r"nonesuch.pt: correct backbone\.model\.weights"):
        build(tmp_path / "nonesuch.pt")


def test_bad_blocks_are_refused_before_any_download(monkeypatch):
    monkeypatch.setattr(module, "from_hub", None)
    with pytest.raises(ValueError, match="no block 25, they are 1 to 24"):
        OpenCLIPBackbone(blocks=(6, 25))


def test_hub_weights_go_the_way_of_a_file(monkeypatch, clip_file, images, clip):
    asked = []
    monkeypatch.setattr(module, "from_hub", lambda *arguments: asked.append(arguments) or clip_file)
    tag = {"hf_hub": "some/repository/", "url": "", "quick_gelu": True}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, NAME, {"openai": tag})
    backbone = OpenCLIPBackbone(NAME, "openai", blocks=(1, 3, 4), cache_dir="cache")
    assert asked == [(f"{NAME} (openai)", "some/repository", module.HUB_FILENAMES, "cache")]
    assert backbone.weights.source == f"hub openai {NAME}"
    torch.testing.assert_close(backbone(images(56)).tokens, clip(images(56)).tokens)


def test_a_tag_with_an_address_only_is_fetched_from_there(monkeypatch, clip_file):
    monkeypatch.setattr(module, "from_url", lambda model, url, cache_dir: clip_file)
    tag = {"hf_hub": "", "url": "address", "quick_gelu": True}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, NAME, {"openai": tag})
    assert OpenCLIPBackbone(NAME, blocks=(1,)).weights.source == f"hub openai {NAME}"


def test_attention_fast_path_is_left_as_it_was(clip, images):
    assert torch.backends.mha.get_fastpath_enabled()
    clip(images(56))
    assert torch.backends.mha.get_fastpath_enabled()
