"""Runs train.py, or what it calls, with the tiny backbone."""

import subprocess
import sys
from pathlib import Path

from hydra import compose, initialize_config_dir

from fdsl.config import register, typed
from fdsl.run import run

ROOT = Path(__file__).parent.parent
TINY = [
    "backbone=tiny",
    "progress=false",
    "data.num_workers=0",
    "aux.num_workers=0",
    "training.references=2",
    "store=null",
    "cache.features=null",
]


def composed(overrides: list[str]):
    register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("config", overrides)


def ran(folder: Path, *overrides: str) -> dict:
    (content,) = run(typed(composed([*TINY, f"run_dir={folder}", "training.epochs=1", *overrides])))
    return content


def command(folder: Path, *overrides: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, ROOT / "train.py", *TINY, "training.epochs=1", *overrides],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "OMP_NUM_THREADS": "1"},  # so that launchers agree
        capture_output=True,
        text=True,
        timeout=300,
    )
