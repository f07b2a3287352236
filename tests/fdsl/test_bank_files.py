from pathlib import Path

import pytest
import torch

from fdsl.bank_files import BankFileError, BankFiles, load_bank, save_bank
from fdsl.reference import ReferenceBank, References

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


def test_a_description_may_neither_lack_nor_add_anything(tmp_path: Path):
    path = tmp_path / "bank.safetensors"
    save_bank(path, bank(), {**MADE_FROM, "win_stride": 2})
    with pytest.raises(BankFileError, match="made with win_stride 2, this run has None"):
        load_bank(path, MADE_FROM)


def test_files_of_a_test_are_read_where_they_fit(tmp_path: Path):
    references = References(bank(), bank(torch.float16))
    made_from = {"nut": {"whole": MADE_FROM, "windows": {**MADE_FROM, "win_stride": 2}}}
    BankFiles(save=tmp_path, made_from=made_from).write("nut", references)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["nut.whole.safetensors", "nut.windows.safetensors"]

    files = BankFiles(load=tmp_path, made_from=made_from)
    files.check()
    assert torch.equal(files.read("nut").windows.tokens, references.windows.tokens)
    whole = BankFiles(load=tmp_path, made_from={"nut": {"whole": MADE_FROM}}).read("nut")
    assert whole.windows is None
    assert torch.equal(whole.whole.tokens, references.whole.tokens)

    with pytest.raises(BankFileError, match="made with win_stride 2, this run has 1"):
        BankFiles(tmp_path, made_from={"nut": {"windows": {**MADE_FROM, "win_stride": 1}}}).check()
    with pytest.raises(BankFileError, match="no such bank"):
        BankFiles(tmp_path, made_from={"screw": {"whole": MADE_FROM}}).check()
    assert BankFiles().read("nut") is None
