"""A multirun that is killed at random moments, over and over, ends with the table of one that was left alone."""

import multiprocessing
import os
import random
import signal
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from tests.running import ROOT, TINY

KILLS = 20
SWEEP = ["kshots=1,2", "fusion=asl,fd_asl", "training.epochs=2", "training.save_every=1", "training.batch_size=2"]


def _train(folder: Path, given: list[str]) -> None:
    os.setsid()
    os.chdir(folder)
    sys.path.insert(0, str(ROOT))
    sys.argv = ["train.py", *given, "-m"]
    sys.stdout = sys.stderr = Path("printed.txt").open("a")  # noqa: SIM115 - closed with the process
    import train

    train.cli.call(train.main)


@pytest.fixture
def start(roots: list[str]):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["fdsl.run", "datamodules", "open_clip", "timm", "matplotlib.figure", "rich.console"]
    )

    def begin(folder: Path) -> BaseProcess:
        folder.mkdir(exist_ok=True)
        own = [f"store={folder / 'heads'}", f"cache.features={folder / 'features'}"]
        process = context.Process(target=_train, args=(folder, [*TINY, *roots, *SWEEP, *own]))
        process.start()
        return process

    return begin


def table(folder: Path) -> str:
    (path,) = folder.glob("outputs/sweeps/*/sweep.csv")
    return path.read_text()


@pytest.mark.slow
def test_a_killed_multirun_ends_as_if_it_had_been_left_alone(start, tmp_path: Path):
    begun = time.perf_counter()
    process = start(tmp_path / "alone")
    process.join(300)
    assert process.exitcode == 0, (tmp_path / "alone/printed.txt").read_text()[-2000:]
    duration = time.perf_counter() - begun
    expected = table(tmp_path / "alone")
    assert len(expected.splitlines()) == 1 + 4 * 2

    moments = random.Random(0)
    kills = rounds = 0
    reached: set[str] = set()
    while kills < KILLS:
        folder = tmp_path / f"round{rounds}"
        process = start(folder)
        process.join(moments.uniform(0, duration / 2))
        if process.is_alive() and kills < KILLS:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
            process.join()
            reached |= {p.name for p in folder.rglob("*") if p.is_file()}
            continue
        process.join(300)
        assert process.exitcode == 0, (folder / "printed.txt").read_text()[-2000:]
        assert table(folder) == expected
        rounds += 1
    process = start(tmp_path / f"round{rounds}")
    process.join(300)
    assert process.exitcode == 0, (tmp_path / f"round{rounds}" / "printed.txt").read_text()[-2000:]
    assert table(tmp_path / f"round{rounds}") == expected
    print(f"{kills} kills, {rounds + 1} rounds, one undisturbed run takes {duration:.1f} s")  # noqa: T201
    assert {"last.ckpt", "head.safetensors", "results.json"} <= reached  # in training, and between jobs
