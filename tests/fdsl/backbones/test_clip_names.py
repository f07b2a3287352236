import pytest

from fdsl.backbones import OpenCLIPBackbone
from fdsl.backbones.clip_names import check_activation
from fdsl.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "pretrained"),
    [
        ("ViT-L-14-336-quickgelu", "openai"),
        ("ViT-B-16-quickgelu", "metaclip_400m"),
        ("ViT-L-14", "laion2b_s32b_b82k"),
        ("ViT-H-14-378-quickgelu", "dfn5b"),
    ],
)
def test_pairs_that_belong_together_pass(name, pretrained):
    check_activation(name, pretrained, from_file=False)


@pytest.mark.parametrize(
    ("name", "pretrained", "right"),
    [
        ("ViT-L-14-336", "openai", "ViT-L-14-336-quickgelu"),
        ("ViT-B-16", "metaclip_400m", "ViT-B-16-quickgelu"),
        ("ViT-L-14-quickgelu", "laion2b_s32b_b82k", "ViT-L-14"),
    ],
)
@pytest.mark.parametrize("from_file", [False, True])
def test_the_wrong_activation_is_refused_with_the_right_name(name, pretrained, right, from_file):
    with pytest.raises(ConfigError, match=f"silently wrong; set backbone.model.name={right}$"):
        check_activation(name, pretrained, from_file=from_file)


@pytest.mark.usefixtures("clip_file")
def test_openai_weights_need_quick_gelu_under_any_name():
    with pytest.raises(ConfigError, match="name=fdsl-tiny-quickgelu"):
        check_activation("fdsl-tiny", "openai", from_file=True)


@pytest.mark.parametrize("from_file", [False, True])
def test_an_unknown_tag_is_refused(from_file):
    with pytest.raises(ConfigError, match=r"no weights nonesuch for ViT-B-16; it knows .*openai.*pretrained=null"):
        check_activation("ViT-B-16", "nonesuch", from_file=from_file)


def test_neither_tag_nor_file_is_refused():
    with pytest.raises(ConfigError, match="give pretrained"):
        check_activation("ViT-B-16", None, from_file=False)
    check_activation("ViT-B-16", None, from_file=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("RN50", "sees with a ResNet"),
        ("ViT-B-16-SigLIP", "sees with vit_base_patch16_siglip_224"),
        ("ViT-Q-99", "no architecture ViT-Q-99"),
        ("hf-hub:some/model", "no architecture hf-hub:some/model"),
    ],
)
def test_what_is_no_plain_vit_is_refused(name, message):
    with pytest.raises(ConfigError, match=message):
        OpenCLIPBackbone.describe(name=name)
