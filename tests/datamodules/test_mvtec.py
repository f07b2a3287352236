from pathlib import Path

from PIL import Image

from datamodules import read_mvtec
from datamodules.mvtec import read_mvtec_tree
from datamodules.write_meta import main as write_meta


def test_reads_the_official_tree(mvtec_root: Path):
    samples, problems = read_mvtec(mvtec_root)
    assert problems == []
    assert {s.category for s in samples} == {"plate", "tiles"}
    assert sum(s.split == "train" for s in samples) == 8
    tested = [s for s in samples if s.split == "test" and s.category == "plate"]
    assert [s.label for s in tested] == [0, 0, 0, 1, 1, 1]
    assert tested[3].mask == "plate/ground_truth/scratch/000_mask.png"
    assert tested[3].defect == "scratch"
    assert tested[0].mask is None


def test_upstreams_texture_names_are_aliases(mvtec_root: Path):
    (mvtec_root / "tiles").rename(mvtec_root / "tile_textture")
    samples, problems = read_mvtec(mvtec_root)
    assert problems == []
    assert {s.category for s in samples} == {"plate", "tile"}
    assert all((mvtec_root / s.path).is_file() for s in samples)


def test_every_mismatch_of_masks_is_reported_at_once(mvtec_root: Path):
    truth = mvtec_root / "plate" / "ground_truth" / "scratch"
    (truth / "001_mask.png").rename(truth / "009_mask.png")
    (mvtec_root / "tiles" / "ground_truth" / "scratch" / "000_mask.png").unlink()
    _, problems = read_mvtec(mvtec_root)
    texts = [p.text for p in problems]
    assert len(texts) == 3
    assert any("scratch/001.png: defective (scratch) but has no mask 001_mask.png" in t for t in texts)
    assert any("009_mask.png: mask without an image" in t for t in texts)
    assert any(p.category == "tiles" and "tiles/test/scratch/000.png" in p.text for p in problems)


def test_meta_json_written_from_the_tree_reads_the_same(mvtec_root: Path, golden: Path, capsys):
    tree = read_mvtec_tree(mvtec_root)
    assert write_meta(["mvtec", str(mvtec_root)]) == 0
    assert read_mvtec(mvtec_root) == tree
    assert read_mvtec(golden / "mvtec") == tree  # a meta.json that upstream's own script wrote
    assert write_meta(["mvtec", str(mvtec_root)]) == 2
    assert "--force" in capsys.readouterr().err
    assert write_meta(["mvtec", str(mvtec_root), "--force"]) == 0


def test_a_meta_json_is_not_written_over_a_broken_dataset(mvtec_root: Path, capsys):
    assert write_meta(["mvtec", str(mvtec_root)]) == 0
    before = (mvtec_root / "meta.json").read_bytes()
    (mvtec_root / "plate" / "ground_truth" / "scratch" / "000_mask.png").unlink()
    assert write_meta(["mvtec", str(mvtec_root), "--force"]) == 2
    assert "has no mask" in capsys.readouterr().err
    assert (mvtec_root / "meta.json").read_bytes() == before


def test_an_image_that_is_no_sample_is_left_alone(mvtec_root: Path):
    (mvtec_root / "plate" / "test" / "good" / "notes.txt").write_text("hello")
    Image.new("RGB", (8, 8)).save(mvtec_root / "plate" / "test" / "good" / ".hidden.png")
    assert len(read_mvtec(mvtec_root).samples) == 8 + 12
