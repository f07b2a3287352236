import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from datamodules.mvtec import read_mvtec
from datamodules.synthetic import MVTEC_LIKE, VISA_LIKE, layouts, write_mvtec, write_visa
from datamodules.synthetic.catalogue import CATALOGUE
from datamodules.synthetic.defects import Defect
from datamodules.synthetic.frame import Frame
from datamodules.synthetic.photograph import AREA, defect_kind, photograph
from datamodules.visa import read_visa

SMALL: dict[str, Any] = {"image_size": 64, "train": 2, "good": 1, "defective": 6, "seed": 3}
MVTEC = {**SMALL, "categories": ["hex_nut", "oak"]}
VISA = {**SMALL, "categories": ["connector", "terrazzo"]}
Writer = Callable[..., Path]


def digests(root: Path) -> dict[str, str]:
    files = (p for p in root.rglob("*") if p.is_file())
    return {p.relative_to(root).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def mvtec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mvtec(tmp_path_factory.mktemp("synthetic") / "mvtec", **MVTEC)


@pytest.fixture(scope="module")
def visa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_visa(tmp_path_factory.mktemp("synthetic") / "visa", **VISA)


def test_the_sets_share_no_product_but_kinds_of_defects() -> None:
    assert len(MVTEC_LIKE) >= 5
    assert len(VISA_LIKE) >= 5
    assert not set(MVTEC_LIKE) & set(VISA_LIKE)
    kinds = [{kind for c in names for kind in CATALOGUE[c].defects} for names in (MVTEC_LIKE, VISA_LIKE)]
    assert kinds[0] & kinds[1] >= {"scratch", "crack", "stain", "hole", "dent", "missing", "broken"}


def test_mvtec_layout(mvtec: Path) -> None:
    expected = {"synthetic.json"}
    for category, kinds in (
        ("hex_nut", ["scratch", "broken", "stain", "crack", "dent"]),
        ("oak", ["scratch", "crack", "hole", "stain"]),
    ):
        expected |= {f"{category}/train/good/{i:03d}.png" for i in range(2)} | {f"{category}/test/good/000.png"}
        for i in range(6):
            kind, number = kinds[i % len(kinds)], i // len(kinds)
            expected.add(f"{category}/test/{kind}/{number:03d}.png")
            expected.add(f"{category}/ground_truth/{kind}/{number:03d}_mask.png")
    assert set(digests(mvtec)) == expected
    samples, problems = read_mvtec(mvtec)
    assert not problems
    assert len(samples) == 2 * (2 + 1 + 6)


def test_visa_layout(visa: Path) -> None:
    expected = {"synthetic.json", "split_csv/1cls.csv"}
    for category in VISA["categories"]:
        data = f"{category}/Data"
        expected |= {f"{data}/Images/Normal/{i:04d}.JPG" for i in range(3)}
        expected |= {f"{data}/Images/Anomaly/{i:03d}.JPG" for i in range(6)}
        expected |= {f"{data}/Masks/Anomaly/{i:03d}.png" for i in range(6)}
    assert set(digests(visa)) == expected
    samples, problems = read_visa(visa)
    assert not problems
    assert len(samples) == 2 * (2 + 1 + 6)


def test_visa_table(visa: Path) -> None:
    lines = (visa / "split_csv" / "1cls.csv").read_text().splitlines()
    assert lines[0] == "object,split,label,image,mask"
    rows = [row for row in csv.DictReader(lines) if row["object"] == "connector"]
    assert [(r["split"], r["label"]) for r in rows] == (
        [("train", "normal")] * 2 + [("test", "normal")] + [("test", "anomaly")] * 6
    )
    for row in rows:
        assert (visa / row["image"]).is_file()
        assert bool(row["mask"]) == (row["label"] == "anomaly")
        stem = Path(row["image"]).stem
        assert row["mask"] in ("", f"connector/Data/Masks/Anomaly/{stem}.png")


def test_mvtec_masks_are_0_and_255(mvtec: Path) -> None:
    for path in mvtec.glob("*/ground_truth/*/*_mask.png"):
        with Image.open(path) as mask:
            assert (mask.mode, mask.size) == ("L", (64, 64))
            assert set(np.unique(mask)) == {0, 255}


def test_visa_masks_number_the_kinds(visa: Path) -> None:
    kinds = len(CATALOGUE["connector"].defects)
    for index in range(6):
        with Image.open(visa / f"connector/Data/Masks/Anomaly/{index:03d}.png") as mask:
            assert (mask.mode, mask.size) == ("L", (64, 64))
            assert set(np.unique(mask)) == {0, 1 + index % kinds}


def test_images(mvtec: Path, visa: Path) -> None:
    for path, kind in (
        (mvtec / "oak/train/good/000.png", "PNG"),
        (visa / "terrazzo/Data/Images/Normal/0000.JPG", "JPEG"),
    ):
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size) == (kind, "RGB", (64, 64))


@pytest.mark.parametrize(("write", "settings"), [(write_mvtec, MVTEC), (write_visa, VISA)])
def test_same_parameters_same_bytes(
    write: Writer, settings: dict[str, Any], mvtec: Path, visa: Path, tmp_path: Path
) -> None:
    first = mvtec if write is write_mvtec else visa
    assert digests(write(tmp_path / "again", **settings)) == digests(first)


def test_an_image_does_not_depend_on_the_others(mvtec: Path, tmp_path: Path) -> None:
    more = write_mvtec(tmp_path / "more", **{**MVTEC, "categories": ["oak"], "train": 4, "good": 3, "defective": 9})
    few, many = digests(mvtec), digests(more)
    shared = set(few) & set(many) - {"synthetic.json"}
    assert len(shared) == 2 + 1 + 2 * 6
    assert all(few[name] == many[name] for name in shared)


def test_images_differ_by_seed_split_and_number() -> None:
    shots = [
        photograph("oak", split, index, seed, 64).clean.tobytes()
        for split in ("train", "good", "defective")
        for index in (0, 1)
        for seed in (0, 1)
    ]
    assert len(set(shots)) == len(shots)


@pytest.mark.parametrize("category", CATALOGUE)
def test_defects_are_where_the_mask_is(category: str) -> None:
    for index in range(2 * len(CATALOGUE[category].defects)):
        shot = photograph(category, "defective", index, 5, 96)
        kind = defect_kind(category, index)
        assert shot.image.shape == shot.clean.shape == (96, 96, 3)
        assert AREA[0] <= shot.mask.mean() <= AREA[1], kind
        change = np.abs(shot.image.astype(int) - shot.clean).max(axis=-1)
        assert change[shot.mask].mean() > 7, kind
        # Beyond the mask there is at most the shadow of what is missing or sticks out.
        beyond = change[~ndimage.binary_dilation(shot.mask, iterations=3)]
        assert (beyond > 12).mean() < 0.005, kind


@pytest.mark.parametrize("category", CATALOGUE)
def test_defect_free_images_have_no_mask(category: str) -> None:
    shot = photograph(category, "good", 0, 0, 64)
    assert not shot.mask.any()
    assert np.array_equal(shot.image, shot.clean)


@pytest.mark.parametrize("category", CATALOGUE)
def test_surfaces_are_float32_and_in_range(category: str) -> None:
    surface = CATALOGUE[category].draw(Frame(128), np.random.default_rng(0))
    for name in ("albedo", "height", "gloss", "product", "background"):
        field = getattr(surface, name)
        assert field.dtype == np.float32, name
        assert field.shape[:2] == (128, 128), name
        assert np.isfinite(field).all(), name
    assert surface.product.min() >= 0
    assert surface.product.max() <= 1
    assert surface.product.mean() > 0.2


@pytest.mark.parametrize(
    ("kind", "defect"), sorted({(k, d) for p in CATALOGUE.values() for k, d in p.defects.items()}, key=str)
)
def test_objects_are_not_damaged_beside_themselves(kind: str, defect: Defect) -> None:
    frame = Frame(256)
    category = next(c for c in CATALOGUE if kind in CATALOGUE[c].defects)
    surface = CATALOGUE[category].draw(frame, np.random.default_rng(0))
    near = ndimage.binary_dilation(surface.product > 0, iterations=20)
    for seed in range(3):
        support = defect(surface, frame, np.random.default_rng(seed), 1.0).support
        assert support.min() >= 0
        assert support.max() <= 1 + 1e-5
        assert not support[~near].any()


def test_a_second_run_does_nothing(mvtec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "photograph", None)
    assert write_mvtec(str(mvtec), **MVTEC) == mvtec
    # The order of the categories is of no meaning.
    assert write_mvtec(mvtec, **{**MVTEC, "categories": ["oak", "hex_nut", "oak"]}) == mvtec


@pytest.mark.parametrize(
    "other",
    [{"seed": 4}, {"image_size": 65}, {"train": 3}, {"good": 2}, {"defective": 5}, {"categories": ["oak"]}],
)
def test_other_parameters_are_refused(mvtec: Path, other: dict[str, Any]) -> None:
    before = digests(mvtec)
    with pytest.raises(ValueError, match=f"other parameters, {next(iter(other))}"):
        write_mvtec(mvtec, **{**MVTEC, **other})
    assert digests(mvtec) == before


def test_the_other_layout_is_refused(mvtec: Path) -> None:
    with pytest.raises(ValueError, match="layout"):
        write_visa(mvtec, **VISA)


@pytest.mark.parametrize("name", ["thesis.tex", "synthetic.json"])
def test_a_folder_with_something_else_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("important")
    with pytest.raises(ValueError, match="choose another folder"):
        write_mvtec(tmp_path, **MVTEC)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    write_mvtec(tmp_path / "set", **{**MVTEC, "categories": ["oak"], "defective": 0})
    settings = json.loads((tmp_path / "set" / "synthetic.json").read_text())
    assert settings["categories"] == ["oak"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"categories": ["bottle"]}, "unknown category bottle.*hex_nut"),
        ({"categories": ["connector"]}, "unknown category connector"),
        ({"categories": []}, "categories"),
        ({"image_size": 32}, "image_size"),
        ({"train": 0}, "train"),
        ({"good": -1}, "good"),
        ({"defective": -1}, "defective"),
        ({"seed": -1}, "seed"),
    ],
)
def test_impossible_parameters(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_mvtec(tmp_path / "set", **{**MVTEC, **wrong})
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError("disk full")])
def test_interrupted_writing_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interruption: BaseException
) -> None:
    def interrupted(category: str, split: str, index: int, seed: int, image_size: int) -> Any:
        if split == "defective" and index == 2:
            raise interruption
        return photograph(category, split, index, seed, image_size)

    with monkeypatch.context() as patch:
        patch.setattr(layouts, "photograph", interrupted)
        with pytest.raises((KeyboardInterrupt, OSError)):
            write_mvtec(tmp_path / "set", **MVTEC)
    assert not any(tmp_path.iterdir())
    write_mvtec(tmp_path / "set", **MVTEC)
    assert (tmp_path / "set" / "synthetic.json").is_file()


def test_another_process_may_finish_first(tmp_path: Path, mvtec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished = tmp_path / "set"

    def meanwhile(*args: Any) -> Any:
        if not finished.exists():
            finished.symlink_to(mvtec)
        return photograph(*args)

    monkeypatch.setattr(layouts, "photograph", meanwhile)
    assert write_mvtec(finished, **MVTEC) == finished
    assert [p.name for p in tmp_path.iterdir()] == ["set"]
