"""What is known is not computed again: features, several settings in one pass, finished results."""

import json
import logging
from pathlib import Path

import pytest
import torch

from datamodules.dataset import Preprocessing
from fdsl.backbones import RandomViT
from fdsl.config import typed
from fdsl.errors import FDSLError
from fdsl.run import run
from tests.running import TINY, composed, ran

WINDOWS = ["winmode=mul", "win_size=2", "win_stride=1"]


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images or windows the backbone was given, call by call."""
    seen: list[int] = []
    real = RandomViT._encode
    monkeypatch.setattr(RandomViT, "_encode", lambda self, images: seen.append(len(images)) or real(self, images))
    return seen


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    seen: list[Path] = []
    real = Preprocessing.pixels
    monkeypatch.setattr(Preprocessing, "pixels", lambda self, path: seen.append(path) or real(self, path))
    return seen


def figures(content: dict) -> dict:
    return {"fdsl": content["metrics"], "fd": content["baseline"]["fd"]}


def close(a: dict, b: dict) -> bool:
    flat = [torch.tensor([v for m in each.values() for c in m.values() for v in c.values()]) for each in (a, b)]
    return torch.allclose(*flat, atol=1e-6, rtol=0)


def test_known_images_are_neither_decoded_nor_encoded(roots, tmp_path: Path, encoded: list, decoded: list):
    given = [*roots, "overlays=0", f"store={tmp_path / 'heads'}"]
    plain = ran(tmp_path / "plain", *given)
    given.append(f"cache.features={tmp_path / 'features'}")
    first = ran(tmp_path / "first", *given)
    assert figures(first) == figures(plain)
    encoded.clear()
    decoded.clear()
    for k in (1, 2):
        again = ran(tmp_path / f"again{k}", *given, f"kshots={k}")
        assert k > 1 or figures(again) == figures(plain)
    assert sum(encoded) == 2  # the second reference of two categories; nothing else is new
    assert {path.parent.name for path in decoded} == {"good"}
    assert len([path for path in decoded if "test" in path.parts]) == 0


def test_a_changed_image_is_encoded_again(roots, mvtec_root: Path, tmp_path: Path, encoded: list, draw):
    given = [*roots, "overlays=0", f"store={tmp_path / 'heads'}", f"cache.features={tmp_path / 'features'}"]
    ran(tmp_path / "first", *given)
    changed = next(iter(sorted((mvtec_root / "plate/test/good").glob("*.png"))))
    draw(changed, value=7)
    encoded.clear()
    ran(tmp_path / "second", *given)
    assert sum(encoded) == 1


def test_windows_need_the_images_but_not_the_whole_images_again(roots, tmp_path: Path, encoded: list):
    given = [*roots, "overlays=0", f"store={tmp_path / 'heads'}", *WINDOWS]
    plain = ran(tmp_path / "plain", *given)
    given.append(f"cache.features={tmp_path / 'features'}")
    ran(tmp_path / "first", *given)
    encoded.clear()
    assert figures(ran(tmp_path / "second", *given)) == figures(plain)
    assert sum(encoded) == (12 + 2) * 9  # windows of 12 test images and 2 references, no whole image


def test_auxiliary_features_are_kept_if_asked(roots, tmp_path: Path, encoded: list):
    given = [*roots, "overlays=0", "training.pool=1", f"cache.features={tmp_path / 'features'}", "cache.aux=true"]
    first = ran(tmp_path / "first", *given)
    encoded.clear()
    again = ran(tmp_path / "again", *given)
    assert figures(again) == figures(first)
    assert encoded == []
    ran(tmp_path / "other", *given, "training.lr=0.01", "nam=false")
    assert encoded == []


@pytest.mark.parametrize("windows", [[], WINDOWS, [*WINDOWS, "memory.search=union"], [*WINDOWS, "memory=full"]])
@pytest.mark.parametrize("sampling", ["without_replacement", "with_replacement"])
def test_settings_in_one_pass_give_what_separate_jobs_give(windows, sampling, roots, tmp_path: Path, encoded: list):
    given = [*roots, "overlays=0", f"store={tmp_path / 'heads'}", f"reference_sampling={sampling}", *windows]
    separate = {(k, s): ran(tmp_path / f"{k}{s}", *given, f"kshots={k}", f"seed={s}") for s in (0, 1) for k in (1, 2)}
    encoded.clear()
    config = typed(
        composed([*TINY, "training.epochs=1", *given, f"run_dir={tmp_path}/all", "kshots=[1,2]", "seeds=[0,1]"])
    )
    together = {(c["config"]["kshots"], c["config"]["seed"]): c for c in run(config)}
    assert together.keys() == separate.keys()
    for setting, content in together.items():
        assert close(figures(content), figures(separate[setting]))
        assert content["references"] == separate[setting]["references"]
        assert content["key"] == separate[setting]["key"]
        assert content["bank_bytes"] == separate[setting]["bank_bytes"]
        folder = tmp_path / "all" / "{}shot-seed{}".format(*setting)
        assert json.loads((folder / "results.json").read_text()) == content
        assert {p.name for p in folder.iterdir()} == {
            "results.json",
            "results.csv",
            "scores.csv",
            "config.yaml",
            "references.json",
        }
    each = 1 + 9 if windows else 1
    assert sum(encoded) <= (12 + 2 * 2 * 2) * each  # every test image once


def test_what_is_finished_is_not_done_again(roots, tmp_path: Path, encoded: list, caplog: pytest.LogCaptureFixture):
    given = [*roots, "overlays=0"]
    first = ran(tmp_path / "a", *given)
    stamp = (tmp_path / "a" / "results.json").stat().st_mtime_ns
    encoded.clear()
    with caplog.at_level(logging.INFO):
        assert ran(tmp_path / "a", *given, "data.num_workers=1") == first
    assert "finished before" in caplog.text
    assert encoded == []
    assert (tmp_path / "a" / "results.json").stat().st_mtime_ns == stamp
    assert figures(ran(tmp_path / "a", *given, "force=true")) == figures(first)
    assert encoded


def test_a_result_of_other_settings_data_or_code_is_no_result(
    roots, mvtec_root: Path, tmp_path: Path, monkeypatch, draw
):
    given = [*roots, "overlays=0", f"store={tmp_path / 'heads'}"]
    keys = [ran(tmp_path / "a", *given)["key"]]
    more = ["kshots=2", "seed=1", "fusion=fd_asl", "nam=false", "training.lr=0.01", "map_size=100", "data.limit=1"]
    keys += [ran(tmp_path / "a", *given, override)["key"] for override in more]
    draw(next(iter(sorted((mvtec_root / "plate/test/good").glob("*.png")))), value=7)
    keys.append(ran(tmp_path / "a", *given)["key"])
    monkeypatch.setattr("fdsl.provenance.code_of", lambda *_: "other")
    keys.append(ran(tmp_path / "a", *given)["key"])
    assert len(set(keys)) == len(keys)
    (tmp_path / "a" / "results.json").write_text("{")
    assert ran(tmp_path / "a", *given)["key"] == keys[-1]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["kshots=[]"], "a whole number, at least 1, or a list"),
        (["kshots=[1,1]"], "names a value twice"),
        (["kshots=[1,0]"], "a whole number, at least 1, or a list"),
        (["kshots=1.5"], "a whole number, at least 1, or a list"),
        (["kshots=two"], "a whole number, at least 1, or a list"),
        (["seeds=[-1]"], "a whole number, at least 0"),
        (["seeds=[1,2]", "seed=3"], "give one of them"),
        (["kshots=[1,2]", "memory.save=true"], "one set of references"),
        (["seeds=[1,2]", "references=/dev/null"], "references=/dev/null: no such file|references is of one set"),
        (["kshots=[1,99]"], "99 references were asked for"),
        (["cache.dtype=int8"], r"cache\.dtype=int8: must be one of"),
        (["cache.limit_gb=0"], r"cache\.limit_gb=0: must be above 0"),
        (["cache.aux=true"], r"set cache\.features"),
    ],
)
def test_settings_and_caches_that_cannot_be_are_refused(overrides: list[str], said: str, roots, tmp_path: Path):
    with pytest.raises(FDSLError, match=said):
        ran(tmp_path / "a", *roots, *overrides)
