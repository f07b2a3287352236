"""What one few-shot setting of a run leaves in its folder, and how a finished one is recognised.

``results.json`` is written last and in one step, and holds a key: a hash of everything its figures depend on. A run
that finds a result with its own key has nothing to do.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console

from fdsl.category import CategoryResult, CategoryTest
from fdsl.config import Config
from fdsl.overlay import LoadPixels, write_overlays
from fdsl.reference import Shots
from fdsl.results import document, remarks, table, write_csv, write_json, write_scores

log = logging.getLogger(__name__)

CONFIG_FILE, MANIFEST_FILE = "config.yaml", "references.json"
RESULTS_FILE, PARTIAL_FILE = "results.json", "partial.json"
HEATMAPS_FOLDER = "heatmaps"


def of_setting(config: Config, shots: Shots, folder: Path) -> Config:
    """Return the configuration of the run that tests one setting alone."""
    data = {**config.data, "kshots": shots.kshots, "seed": shots.seed, "seeds": None}
    return replace(config, kshots=shots.kshots, seed=shots.seed, seeds=None, data=data, run_dir=str(folder))


@dataclass
class Record:
    """The record of one setting.

    Attributes:
        config: as if the setting were tested alone; ``run_dir`` is this record's folder.
        manifest: of its references.
        key: see :func:`fdsl.provenance.result_dependencies`.
        facts: what its figures depend on, known before the test.
        results: of each category tested so far.
    """

    config: Config
    manifest: Mapping[str, Any]
    key: str
    facts: dict[str, Any] = field(default_factory=dict)
    results: dict[str, CategoryResult] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where it is written."""
        return Path(self.config.run_dir)

    def finished(self) -> dict[str, Any] | None:
        """Return the content of ``results.json`` if it is there and is of this very setting."""
        path = self.folder / RESULTS_FILE
        try:
            content: dict[str, Any] = json.loads(path.read_text("utf-8"))
            same = content["key"] == self.key
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            same = False
        if not same:
            log.warning("%s is of other settings, data, weights or code: tested again", path)
            return None
        return content

    def begin(self) -> None:
        """Write what is known before the test."""
        self.folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(OmegaConf.create(asdict(self.config)), self.folder / CONFIG_FILE)
        write_json(self.folder / MANIFEST_FILE, self.manifest)

    def add(self, category: str, test: CategoryTest, result: CategoryResult, load: LoadPixels) -> None:
        """Take in a category; what is finished is on disk before the next one begins."""
        self.results[category] = result
        write_json(self.folder / PARTIAL_FILE, self._document())
        if self.config.overlays:
            write_overlays(self.folder / HEATMAPS_FOLDER, category, test, result, load, self.config.overlays)
        for text in remarks(category, result):
            log.warning(text)

    def finish(self) -> dict[str, Any]:
        """Write the results, print the table, and return the content of ``results.json``."""
        write_csv(self.folder / "results.csv", self.results)
        write_scores(self.folder / "scores.csv", self.results)
        write_json(self.folder / RESULTS_FILE, self._document())
        (self.folder / PARTIAL_FILE).unlink(missing_ok=True)
        console = Console()
        console = console if console.is_terminal else Console(width=110)  # a log file is as wide as the table needs
        console.print(table(self.results, self.config.title))
        console.print(f"results   {self.folder / RESULTS_FILE}", soft_wrap=True)
        if self.config.overlays:
            console.print(f"heatmaps  {self.folder / HEATMAPS_FOLDER}", soft_wrap=True)
        reread: dict[str, Any] = json.loads((self.folder / RESULTS_FILE).read_text("utf-8"))
        return reread

    def _document(self) -> dict[str, Any]:
        return document(self.results, {"key": self.key, **self.facts})
