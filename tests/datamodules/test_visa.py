from pathlib import Path

import pytest

from datamodules import DatasetError, VisADataModule, read_visa
from datamodules.write_meta import main as write_meta
from tests.stand_in import CLIP_MEAN, CLIP_STD


def test_reads_the_official_tree(visa_root: Path):
    samples, problems = read_visa(visa_root)
    assert problems == []
    assert len(samples) == 10
    assert [s.label for s in samples if s.category == "candle" and s.split == "test"] == [1, 1, 0]


def test_meta_json_written_from_the_tree_reads_the_same(visa_root: Path):
    tree = read_visa(visa_root)
    assert write_meta(["visa", str(visa_root)]) == 0
    assert read_visa(visa_root) == tree


def test_small_mask_values_are_defects(visa_root: Path):
    data = VisADataModule(str(visa_root), 28, CLIP_MEAN, CLIP_STD, map_size=32)
    data.setup()
    batch = next(iter(data.test_dataloader()[0]))
    assert batch["label"].tolist() == [1, 1, 0]
    assert batch["mask"][0].sum() == 16 * 16
    assert batch["mask"][2].sum() == 0


def test_wrong_rows_are_reported_with_their_line(visa_root: Path):
    table = visa_root / "split_csv" / "1cls.csv"
    rows = table.read_text().splitlines()
    rows[4] = rows[4].rsplit(",", 1)[0] + ","  # an anomaly without mask
    rows[5] = rows[5].replace(",test,", ",train,")
    rows[1] = rows[1].replace(",normal,", ",odd,")
    table.write_text("\n".join(rows))
    texts = [p.text for p in read_visa(visa_root).problems]
    assert len(texts) == 4
    assert any("Masks/Anomaly/000.png: mask of no image" in t for t in texts)
    assert any("defective, but has no mask (split_csv/1cls.csv, line 5)" in t for t in texts)
    assert any("defective, but in the train split (split_csv/1cls.csv, line 6)" in t for t in texts)
    assert any("unknown label 'odd'" in t for t in texts)


def test_masks_of_no_image_are_reported(visa_root: Path):
    masks = visa_root / "candle" / "Data" / "Masks" / "Anomaly"
    (masks / "999.png").write_bytes((masks / "000.png").read_bytes())
    (problem,) = read_visa(visa_root).problems
    assert problem.text == "candle/Data/Masks/Anomaly/999.png: mask of no image in split_csv/1cls.csv"


def test_an_image_in_both_splits_is_refused(visa_root: Path):
    table = visa_root / "split_csv" / "1cls.csv"
    rows = table.read_text()
    table.write_text(rows + "candle,test,normal,candle/Data/Images/Normal/0000.JPG,\n")
    with pytest.raises(DatasetError, match=r"0000\.JPG: listed 2 times, as test and train"):
        VisADataModule(str(visa_root), 28, CLIP_MEAN, CLIP_STD).setup()


def test_no_dataset_says_how_to_get_one(tmp_path: Path):
    with pytest.raises(DatasetError, match=r"1cls.csv is missing[\s\S]*data.download=true"):
        read_visa(tmp_path)
