from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fdsl.backbones import RandomViT
from fdsl.bank_files import BankFileError, BankFiles, load_bank, save_bank
from fdsl.detector import Detector
from fdsl.local_features import LocalFeatures
from fdsl.reference import ReferenceBank
from fdsl.score_learning import ScoreHead

MADE_FROM = {"weights_sha256": "ab", "blocks": (1, 2), "references": ["01", "02"]}


def bank(dtype: torch.dtype = torch.float32) -> ReferenceBank:
    generator = torch.Generator().manual_seed(0)
    return ReferenceBank(torch.randn(2, 3, 4, 5, generator=generator).to(dtype), torch.randn(3, 6, generator=generator))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_bank_comes_back_as_it_was(dtype: torch.dtype, tmp_path: Path):
    path = tmp_path / "deep" / "nut.whole.safetensors"
    save_bank(path, bank(dtype), MADE_FROM)
    again = load_bank(path, MADE_FROM)
    assert again.tokens.dtype == dtype
    assert torch.equal(again.tokens, bank(dtype).tokens)
    assert torch.equal(again.image_feature, bank(dtype).image_feature)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("key", MADE_FROM)
def test_a_bank_of_something_else_is_refused(key: str, tmp_path: Path):
    path = tmp_path / "bank.safetensors"
    save_bank(path, bank(), MADE_FROM)
    with pytest.raises(BankFileError, match=f"made with {key} "):
        load_bank(path, {**MADE_FROM, key: "other"})


def test_missing_damaged_and_foreign_files_are_refused(tmp_path: Path):
    path = tmp_path / "bank.safetensors"
    with pytest.raises(BankFileError, match="no such bank"):
        load_bank(path, MADE_FROM)
    save_bank(path, bank(), MADE_FROM)
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    with pytest.raises(BankFileError, match="damaged"):
        load_bank(path, MADE_FROM)
    path.write_bytes(content[:-40])
    with pytest.raises(BankFileError, match="not a bank file"):
        load_bank(path, MADE_FROM)
    path.write_text("{}")
    with pytest.raises(BankFileError, match="not a bank file"):
        load_bank(path, MADE_FROM)


def test_files_of_a_test_are_read_where_they_fit(tmp_path: Path):
    detector = Detector(RandomViT(), ScoreHead(4, 32), local=LocalFeatures(2, 2))
    references = detector.encode_references(torch.rand(2, 3, 56, 56))
    common = {"weights_sha256": "ab"}
    BankFiles(save=tmp_path, common=common, references={"nut": ["01"]}).write("nut", references, detector)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["nut.whole.safetensors", "nut.windows.safetensors"]

    files = BankFiles(load=tmp_path, common=common, references={"nut": ["01"]})
    files.check(detector)
    again = files.read("nut", detector)
    assert torch.equal(again.windows.tokens, references.windows.tokens)
    assert files.read("nut", replace(detector, local=None)).windows is None

    finer = replace(detector, local=LocalFeatures(2, 1))
    with pytest.raises(BankFileError, match="made with win_stride 2, this run has 1"):
        files.check(finer)
    with pytest.raises(BankFileError, match="made with references"):
        replace(files, references={"nut": ["02"]}).check(detector)
    with pytest.raises(BankFileError, match="no such bank"):
        replace(files, references={"screw": ["01"]}).check(detector)
    assert BankFiles().read("nut", detector) is None
