import pickle
from pathlib import Path

import pytest
import torch

from fdsl.checkpoint import HeadFileError, load_head, save_head
from fdsl.score_learning import ScoreHead


def test_safetensors_round_trip(tmp_path: Path):
    head = ScoreHead(2, 8)
    save_head(tmp_path / "head.safetensors", head, {"blocks": [1, 2], "categories": ["a"]})
    loaded = load_head(tmp_path / "head.safetensors")
    assert loaded.trained == {"blocks": [1, 2], "categories": ["a"]}
    assert all(torch.equal(v, head.state_dict()[k]) for k, v in loaded.head.state_dict().items())
    assert not loaded.head.training
    assert load_head(tmp_path / "head.safetensors", nam=False).head.nam is None


def test_a_head_without_nam_cannot_be_tested_with_it(tmp_path: Path):
    save_head(tmp_path / "head.safetensors", ScoreHead(2, 8, nam=False), {})
    assert load_head(tmp_path / "head.safetensors").head.nam is None
    with pytest.raises(HeadFileError, match="nam=false"):
        load_head(tmp_path / "head.safetensors", nam=True)


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt", ".pth"])
def test_damaged_files_are_refused(suffix: str, tmp_path: Path):
    path = tmp_path / f"head{suffix}"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(HeadFileError, match=r"head\..*not a head file that fdsl can read"):
        load_head(path)
    with pytest.raises(HeadFileError, match="no such head file"):
        load_head(tmp_path / f"absent{suffix}")


def test_missing_weights_are_an_error(golden: Path, tmp_path: Path):
    content = torch.load(golden / "upstream_epoch_1.pth", weights_only=True)
    del content["trainable_RR"]["clsList.2.proj.4.running_var"]
    torch.save(content, tmp_path / "less.pth")
    with pytest.raises(HeadFileError, match=r"classifiers\.2\.stages\.5\.running_var"):
        load_head(tmp_path / "less.pth")
    torch.save({"trainable_RR": {}}, tmp_path / "none.pth")
    with pytest.raises(HeadFileError, match="no FDSL head"):
        load_head(tmp_path / "none.pth")


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("evil-was-here"),))


def test_code_in_a_file_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"trainable_RR": Evil()}, tmp_path / "evil.pth")
    (tmp_path / "evil.ckpt").write_bytes(pickle.dumps(Evil()))
    for name in ("evil.pth", "evil.ckpt"):
        with pytest.raises(HeadFileError):
            load_head(tmp_path / name)
    assert not (tmp_path / "evil-was-here").exists()
