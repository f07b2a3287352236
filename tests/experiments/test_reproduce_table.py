"""The paper's table: published figures, ours beside them, and the command that makes it."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from fdsl.results import METRICS

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"
SCRIPT = ROOT / "experiments" / "reproduce_table.py"


def result(folder: Path, dataset: str, k: int, seed: int, shift: float) -> None:
    """A made-up result: every metric of the learned map is 0.9 + shift + 0.01 for each of its place, FD's 0.5."""
    own = {name: 0.9 + shift - 0.01 * i for i, name in enumerate(METRICS)}
    content = {
        "config": {"kshots": k, "seed": seed, "winmode": "mul"},
        "references": {"dataset": dataset},
        "head": {"trained": {"dataset": "other"}},
        "metrics": {"mean": own, "a": own},
        "baseline": {"fd": {c: dict.fromkeys(METRICS, 0.5) for c in ("mean", "a")}},
    }
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(content))


def table(out: Path, *more: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(SCRIPT), "--out", str(out), *more]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)


def test_a_partial_table_is_the_golden_one_and_says_what_is_missing(tmp_path: Path):
    for seed, shift in enumerate((0.0, 0.01, 0.02)):
        result(tmp_path / "runs" / f"m{seed}", "mvtec", 1, seed, shift)
    result(tmp_path / "runs" / "v", "visa", 4, 2, 0.03)
    done = table(tmp_path, "--preset", "paper", "--table-only")
    assert done.returncode == 0, done.stderr
    for name in ("table.md", "table.csv", "table.tex"):
        assert (tmp_path / name).read_text() == (GOLDEN / name).read_text(), name
    assert (tmp_path / "table.png").stat().st_size > 10_000
    for line in ("mvtec, 1-shot: no result of seed 3, 4", "visa, 4-shot: no result of seed 0, 1, 3, 4"):
        assert line in done.stdout


def test_the_golden_table_is_right():
    """Checked by hand against published.csv: FDSL 1-shot MVTec AD image AUROC 94.4 +- 0.5; ours 91 +- 1."""
    with (GOLDEN / "table.csv").open() as file:
        lines = list(csv.DictReader(file))
    with (ROOT / "experiments" / "published.csv").open() as file:
        published = list(csv.DictReader(file))
    key = ("kshots", "method", "dataset", "metric")
    found = {tuple(line[k] for k in key): line for line in lines}
    for line in published:
        same = found[tuple(line[k] for k in key)]
        assert (float(same["mean"]), float(same["std"])) == (float(line["mean"]), float(line["std"]))
    assert len(published) == 230
    ours = found["1", "FDSL (this run)", "mvtec", "image_auroc"]
    assert (ours["mean"], ours["std"], ours["seeds"]) == ("91.00", "1.00", "3")
    assert (ours["difference"], ours["beyond_2_std"]) == ("-3.40", "true")
    near = found["4", "FDSL (this run)", "visa", "image_auroc"]
    assert (near["mean"], near["std"], near["difference"], near["beyond_2_std"]) == ("93.00", "", "-0.80", "true")
    assert found["1", "FDSL (this run)", "mvtec", "pixel_aupro"]["difference"] == ""


def test_two_setups_in_one_cell_are_refused(tmp_path: Path):
    result(tmp_path / "runs" / "a", "mvtec", 1, 0, 0.0)
    result(tmp_path / "runs" / "b", "mvtec", 1, 1, 0.0)
    path = tmp_path / "runs" / "b" / "results.json"
    path.write_text(path.read_text().replace('"mul"', '"nan"'))
    done = table(tmp_path, "--table-only")
    assert done.returncode == 2
    assert "results of several setups, which differ in winmode" in done.stderr


def test_what_is_missing_is_said_before_anything_starts(tmp_path: Path):
    done = table(tmp_path / "out", f"data.root={tmp_path}/none", "backbone.model.weights=/nowhere/clip.pt")
    assert done.returncode == 2
    assert "paper_mvtec, data: " in done.stderr
    assert "there is no such folder" in done.stderr
    assert "weights: there is no weight file /nowhere/clip.pt" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_quick_preset_does_all_of_the_same(tmp_path: Path):
    tiny = [
        "backbone=tiny",
        "backbone.image_size=112",
        "win_size=4",
        "win_stride=2",
        "training.epochs=1",
        "aux.limit=2",
    ]
    small = [
        "data.limit=2",
        "aux.limit=2",
        f"store={tmp_path}/heads",
        f"cache.features={tmp_path}/features",
        "progress=false",
    ]
    done = table(tmp_path / "out", "--preset", "quick", *tiny, *small)
    assert done.returncode == 0, done.stderr
    assert "test images, each encoded once" in done.stdout
    with (tmp_path / "out" / "table.csv").open() as file:
        ours = [line for line in csv.DictReader(file) if line["method"] == "FDSL (this run)"]
    assert {(line["kshots"], line["dataset"], line["seeds"]) for line in ours} == {
        (k, dataset, "2") for k in "12" for dataset in ("mvtec", "visa")
    }
    assert "Missing" not in (tmp_path / "out" / "table.md").read_text()
    again = table(tmp_path / "out", "--preset", "quick", *tiny, *small)
    assert again.stdout.count("results   ") == 0  # nothing was tested again
