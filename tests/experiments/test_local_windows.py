"""The experiment on local windows, end to end on a tiny dataset."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SETTINGS = ["backbone=tiny", "win_size=2", "training.epochs=1", "training.references=2", "progress=false"]
WORKERS = ["data.num_workers=0", "aux.num_workers=0"]


def ran(root: Path, out: Path, *more: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "experiments/local_windows.py", str(root), "--out", str(out), "--folds", "2"]
    command += ["--strides", "1,2", "--memory-stride", "1", "--kshots", "1,2", *more]
    return subprocess.run([*command, *SETTINGS, *WORKERS], cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_every_variant_is_measured_once_and_tables_are_written(mvtec_root: Path, tmp_path: Path):
    done = ran(mvtec_root, tmp_path)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "local_windows.json").read_text())
    assert set(figures) == {"plate", "tiles"}
    assert figures["plate"]["trained_on"] == ["tiles"]
    metrics = figures["plate"]["metrics"]
    assert {"1/nan//fd", "2/stride2/own1/mul/asl", "2/stride1/full/only/fd", "1/stride1/own8/mul/asl"} <= set(metrics)
    table = (tmp_path / "local_windows.md").read_text()
    assert "| 2 | union 1 |" in table
    assert "| 1 | onlywin 2 | fd |" in table
    assert (tmp_path / "local_windows.png").stat().st_size > 10_000

    before = (tmp_path / "plate" / "plate.json").stat().st_mtime_ns
    assert ran(mvtec_root, tmp_path).returncode == 0
    assert (tmp_path / "plate" / "plate.json").stat().st_mtime_ns == before
    refused = ran(mvtec_root, tmp_path, "win_weight=0.7")
    assert refused.returncode == 2
    assert "begun with other settings" in refused.stderr
