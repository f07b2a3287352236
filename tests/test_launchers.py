"""Hydra's launchers: the same multirun, the same table, one training."""

import json
from pathlib import Path

import pytest

from tests.running import command

SWEEP = ["kshots=1,2", "overlays=0"]


def swept(folder: Path, roots: list[str], *launcher: str) -> str:
    folder.mkdir()
    own = [f"store={folder / 'heads'}", f"cache.features={folder / 'features'}"]
    done = command(folder, *roots, *SWEEP, *own, *launcher, "-m")
    assert done.returncode == 0, done.stderr[-3000:]
    results = [json.loads(path.read_text()) for path in folder.glob("outputs/sweeps/*/*/results.json")]
    assert sorted(result["head"]["reused"] for result in results) == [False, True]
    (table,) = folder.glob("outputs/sweeps/*/sweep.csv")
    return table.read_text()


@pytest.mark.slow
def test_every_launcher_gives_the_serial_table(roots: list[str], tmp_path: Path):
    serial = swept(tmp_path / "serial", roots)
    assert len(serial.splitlines()) == 1 + 2 * 2
    assert swept(tmp_path / "joblib", roots, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2") == serial
    assert (
        swept(tmp_path / "submitit", roots, "hydra/launcher=submitit_local", "hydra.launcher.timeout_min=10") == serial
    )
