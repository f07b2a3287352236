"""``fdsl cache``: shows, verifies and clears what runs have kept, and nothing else."""

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from fdsl.backbones import Encoding
from fdsl.commands import app
from fdsl.feature_cache import FeatureCache, entries


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FDSL_CACHE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "160")
    for size in (56, 112):
        cache = FeatureCache(tmp_path / "features", {"backbone": {"name": "ViT-X", "blocks": [1]}, "image_size": size})
        for i in range(3):
            cache.write(f"{i}", Encoding(torch.randn(1, 4, 8), torch.randn(8)))
    return tmp_path / "features"


def run(*arguments: str, answer: str | None = None):
    return CliRunner().invoke(app, ["cache", *arguments], input=answer)


def shelf(root: Path, size: int) -> Path:
    return FeatureCache(root, {"backbone": {"name": "ViT-X", "blocks": [1]}, "image_size": size}).folder


def test_what_is_kept_is_shown(root: Path):
    done = run("show")
    assert done.exit_code == 0
    for text in (shelf(root, 56).name, "ViT-X [1]", "112", "float32", str(root)):
        assert text in done.output
    assert run("show", "--folder", str(root / "none")).exit_code == 0


def test_damage_is_found_and_removed(root: Path):
    assert run("verify").exit_code == 0
    victim = next(entries(shelf(root, 56)))
    victim.write_bytes(victim.read_bytes()[:-1])
    done = run("verify")
    assert done.exit_code == 1
    assert victim.name in done.output
    assert "5 of 6 entries" in done.output
    assert not victim.exists()
    assert run("verify").exit_code == 0


def test_only_shelves_are_cleared(root: Path):
    (root / "notes.txt").write_text("mine")
    (root / "other").mkdir()
    (root / "other" / "x.safetensors").write_bytes(b"mine")
    (shelf(root, 112) / "notes.txt").write_text("mine")
    assert run("clear", answer="n\n").exit_code == 1
    assert shelf(root, 56).is_dir()
    assert run("clear", "nope", "--yes").exit_code == 2
    assert run("clear", shelf(root, 56).name, "--yes").exit_code == 0
    assert not shelf(root, 56).exists()
    assert len(list(entries(shelf(root, 112)))) == 3
    assert run("clear", "--yes").exit_code == 0
    assert {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()} == {
        "notes.txt",
        "other/x.safetensors",
        f"{shelf(root, 112).name}/notes.txt",
    }
