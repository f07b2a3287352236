"""The benchmark runs with any backbone and writes every figure; what the figures are is for a quiet machine to say."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
TINY = ["backbone=tiny", "win_size=2", "win_stride=1", "win_batch_size=4"]


def ran(out: Path, *more: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "experiments/benchmark_scoring.py", "--out", str(out), "--repeats", "1"]
    return subprocess.run([*command, "--device", "cpu", *more], cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_every_ratio_is_measured_and_written(tmp_path: Path):
    done = ran(tmp_path, "--images", "2,4", *TINY)
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "benchmark.json").read_text())
    assert len(content["rows"]) == 15
    for row in content["rows"]:
        assert row["measured"] > 0
        assert row["met"] == (row["measured"] <= row["bar"] if row["at_most"] else row["measured"] >= row["bar"])
    assert set(content["growth"]) >= {"images: scoring, nan", "k: scoring, own", "windows: encoding", "side: backbone"}
    assert content["peak_gigabytes"]["mul, 4-shot"] > 0
    assert (tmp_path / "benchmark.png").stat().st_size > 10_000
    assert "| exact full search / matmul rate |" in (tmp_path / "benchmark.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "said"),
    [("win_size=13", "win_size=13: larger than the 4 x 4"), ("memory.search=union", "compares own with full")],
)
def test_what_cannot_be_measured_is_refused(override: str, said: str, tmp_path: Path):
    done = ran(tmp_path, *TINY, override) if "memory" in override else ran(tmp_path, "backbone=tiny", override)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_peak_memory_is_the_process_own_and_not_its_parents():
    script = f"import sys; sys.path.insert(0, {str(ROOT / 'experiments')!r}); import benchmark_metrics as b; "
    held = bytearray(2_000_000_000)  # this process holds more than the other ever will
    held[::4096] = b"x" * len(held[::4096])
    done = subprocess.run([sys.executable, "-c", script + "print(b.peak_gigabytes())"], capture_output=True, text=True)
    assert 0.05 < float(done.stdout) < 1.9, done.stderr
    assert len(held) > 0
