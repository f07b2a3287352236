"""A multirun that can be started again: its folder follows from its command, its end is one table.

Jobs fail each on its own; the end of the multirun says which did and why.
"""

import re
import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from rich.console import Console

from fdsl import summary

ERROR_FILE = "error.txt"
"""In the folder of a job that failed: why."""

TABLE_FILE = "sweep.csv"
OVERRIDES_FILE = Path(".hydra") / "overrides.yaml"
SAME_SWEEP = ("force", "retrain", "progress", "store", "cache.", "data.num_workers", "aux.num_workers", "logger")
"""Overrides that make no other multirun: how it is run, not what is tested."""

NAME_LENGTH = 60


def sweep_name(overrides: Sequence[str]) -> str:
    """Name a multirun by its command: what it sweeps, to be read, and a hash of all that matters."""
    kept = [each for each in overrides if not each.lstrip("+~").startswith(SAME_SWEEP)]
    shown = [each for each in kept if "," in each or each.startswith("+sweep=")]
    readable = re.sub(r"[^A-Za-z0-9=,._-]+", "", "-".join(shown).replace("+", ""))[:NAME_LENGTH].replace("=", "_")
    return f"{readable.replace(',', '+') or 'sweep'}-{sha256(repr(kept).encode()).hexdigest()[:8]}"


def overrides_of(folder: Path) -> dict[Path, list[str]]:
    """Return the overrides of each job below a multirun's folder, without those that all jobs have."""
    jobs = {path.parent.parent: list(OmegaConf.load(path)) for path in sorted(folder.rglob(str(OVERRIDES_FILE)))}
    common = set.intersection(*(set(given) for given in jobs.values())) if len(jobs) > 1 else set()
    return {job: [override for override in given if override not in common] for job, given in jobs.items()}


class Sweep(Callback):
    """Gives a multirun its folder, and ends it with its table and the list of its failed jobs."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra: the same command finds the same folder, unless it names one itself."""
        given = config.hydra.overrides
        if any(each.startswith("hydra.sweep.dir=") for each in given.hydra):
            return
        swept = [each for each in given.hydra if each.startswith("hydra.sweeper")]
        folder = f"{config.hydra.sweep.dir}/{sweep_name([*given.task, *swept])}"
        with read_write(config), open_dict(config):
            config.hydra.sweep.dir = folder
            given.hydra.append(f"hydra.sweep.dir='{folder}'")  # the jobs compose their configuration anew

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra when every job has ended; exit status 2 if one failed."""
        folder = Path(config.hydra.sweep.dir)
        if found := summary.rows(summary.collect([folder])):
            summary.write_table(folder / TABLE_FILE, found)
            console = Console()
            console = console if console.is_terminal else Console(width=160)
            console.print(summary.table(found, folder.name))
            console.print(f"table     {folder / TABLE_FILE}", soft_wrap=True)
        jobs = overrides_of(folder)
        failed = {job: given for job, given in jobs.items() if (job / ERROR_FILE).is_file()}
        if not failed:
            return
        lines = [f"error: {len(failed)} of {len(jobs)} jobs failed"]
        for job, given in failed.items():
            reason = (job / ERROR_FILE).read_text("utf-8").strip().replace("\n", "\n    ")
            lines.append(f"  {' '.join(given) or job}: {reason}")
        lines.append("start the same command again: what is finished is not done again")
        sys.stderr.write("\n".join(lines) + "\n")
        sys.exit(2)
