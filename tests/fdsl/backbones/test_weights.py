import hashlib
import logging

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fdsl.backbones.weights import (
    WeightsError,
    WeightsNotFoundError,
    find_weights,
    load_strict,
    read_state_dict,
    sha256_of_file,
    sha256_of_tensors,
)


class Harmful:
    """Runs code when unpickled."""

    def __reduce__(self):
        return (print, ("unpickled",))


def test_digest_of_a_file_follows_its_content(tmp_path):
    path = tmp_path / "file"
    for content in (b"one", b"three"):
        path.write_bytes(content)
        assert sha256_of_file(path) == hashlib.sha256(content).hexdigest()


def test_digest_of_tensors_sees_names_shapes_and_values_but_not_order():
    a, b = torch.arange(6.0).reshape(2, 3), torch.ones(1)
    digest = sha256_of_tensors({"a": a, "b": b})
    assert digest == sha256_of_tensors({"b": b, "a": a})
    others = [
        {"a": a, "c": b},
        {"a": a.reshape(3, 2), "b": b},
        {"a": a + 1, "b": b},
        {"a": a, "b": b.double()},
    ]
    assert digest not in map(sha256_of_tensors, others)


def test_an_absent_file_is_not_found(tmp_path):
    with pytest.raises(WeightsNotFoundError, match=r"backbone\.model\.weights") as caught:
        find_weights(tmp_path / "nonesuch")
    assert isinstance(caught.value, FileNotFoundError)


@pytest.mark.parametrize("name", ["damaged.safetensors", "damaged.pt"])
def test_a_damaged_file_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"not weights at all")
    with pytest.raises(WeightsError, match=f"{name} cannot be read"):
        read_state_dict(tmp_path / name)


def test_code_in_a_file_is_not_run(tmp_path, capsys):
    torch.save({"weight": Harmful()}, tmp_path / "harmful.pt")
    with pytest.raises(WeightsError, match="cannot be read"):
        read_state_dict(tmp_path / "harmful.pt")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [torch.ones(1)]])
def test_a_file_without_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match="holds no state dict"):
        read_state_dict(tmp_path / "other.pt")


def test_floats_become_fp32_and_the_rest_stays(tmp_path):
    save_file({"a": torch.ones(2).half(), "n": torch.tensor(3)}, tmp_path / "half.safetensors")
    state = read_state_dict(tmp_path / "half.safetensors")
    assert (state["a"].dtype, state["n"].dtype) == (torch.float32, torch.int64)


def test_loads_into_a_module_without_memory():
    with torch.device("meta"):
        module = nn.Linear(3, 2)
    load_strict(module, {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}, "here")
    assert module.weight.device.type == "cpu"


def test_missing_keys_are_listed_and_counted():
    module = nn.Sequential(*[nn.Linear(1, 1) for _ in range(4)])
    with pytest.raises(WeightsError, match=r"here lacks 7 of the 8 .*: 0\.bias, 1\.bias, .* and 3 more"):
        load_strict(module, {"0.weight": torch.ones(1, 1)}, "here")


def test_a_wrong_shape_is_named():
    with pytest.raises(WeightsError, match=r"bias is \(3,\), not \(2,\)"):
        load_strict(nn.Linear(3, 2), {"weight": torch.ones(2, 3), "bias": torch.zeros(3)}, "here")


def test_extra_keys_are_logged(caplog):
    with caplog.at_level(logging.WARNING):
        load_strict(nn.Linear(1, 1), {"weight": torch.ones(1, 1), "bias": torch.zeros(1), "x": torch.ones(1)}, "here")
    assert "here: 1 weights have no place" in caplog.text
