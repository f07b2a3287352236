"""A multirun whose jobs fail each on its own: the others go on, and its end says which failed and why."""

import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

ERROR_FILE = "error.txt"
"""In the folder of a job that failed: why."""

OVERRIDES_FILE = Path(".hydra") / "overrides.yaml"


def overrides_of(folder: Path) -> dict[Path, list[str]]:
    """Return the overrides of each job below a multirun's folder, without those that all jobs have."""
    jobs = {path.parent.parent: list(OmegaConf.load(path)) for path in sorted(folder.rglob(str(OVERRIDES_FILE)))}
    common = set.intersection(*(set(given) for given in jobs.values())) if len(jobs) > 1 else set()
    return {job: [override for override in given if override not in common] for job, given in jobs.items()}


class SweepSummary(Callback):
    """Ends a multirun with the list of its failed jobs and exit status 2, if there are any."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Called by Hydra when every job has ended."""
        jobs = overrides_of(Path(config.hydra.sweep.dir))
        failed = {job: given for job, given in jobs.items() if (job / ERROR_FILE).is_file()}
        if not failed:
            return
        lines = [f"error: {len(failed)} of {len(jobs)} jobs failed"]
        for job, given in failed.items():
            reason = (job / ERROR_FILE).read_text("utf-8").strip().replace("\n", "\n    ")
            lines.append(f"  {' '.join(given) or job}: {reason}")
        sys.stderr.write("\n".join(lines) + "\n")
        sys.exit(2)
