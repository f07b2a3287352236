from pathlib import Path

import pytest

from datamodules import SyntheticDataModule
from fdsl.errors import ConfigError
from tests.stand_in import CLIP_MEAN, CLIP_STD

SMALL = {"image_size": 64, "train": 2, "good": 1, "defective": 2}


@pytest.mark.parametrize(("layout", "category"), [("mvtec", "fabric"), ("visa", "terrazzo")])
def test_it_writes_a_layout_and_then_is_that_dataset(layout: str, category: str, tmp_path: Path):
    write = {**SMALL, "categories": [category]}
    data = SyntheticDataModule(
        str(tmp_path / "set"), layout, write, image_size=28, mean=CLIP_MEAN, std=CLIP_STD, progress=False
    )
    data.prepare_data()
    data.setup()
    assert data.categories == (category,)
    batch = next(iter(data.test_dataloader()[0]))
    assert sorted(batch["label"].tolist()) == [0, 1, 1]
    assert batch["mask"].sum() > 0


def test_a_foreign_folder_is_refused(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("precious")
    data = SyntheticDataModule(str(tmp_path), "mvtec", SMALL, image_size=28, mean=CLIP_MEAN, std=CLIP_STD)
    with pytest.raises(ConfigError, match="something other than a synthetic dataset"):
        data.prepare_data()
    with pytest.raises(ConfigError, match="layout must be one of"):
        SyntheticDataModule(str(tmp_path), "coco", image_size=28, mean=CLIP_MEAN, std=CLIP_STD)
