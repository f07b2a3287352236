"""One run: train the head on the auxiliary dataset, test it k-shot on the target, write what was found.

The only place that knows of both datasets and model. Everything that can be refused is refused before a weight is
loaded or an image decoded.
"""

import json
import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning import Trainer, seed_everything
from omegaconf import OmegaConf
from rich.console import Console
from torch.utils.data import DataLoader

from fdsl import provenance
from fdsl.backbones import Backbone
from fdsl.backbones.weights import sha256_of_file
from fdsl.build import bank_files, built, check_backbone, make_module, make_trainer, prepared
from fdsl.category import CategoryResult, CategoryTest
from fdsl.checkpoint import load_head, save_head
from fdsl.checks import check_disjoint
from fdsl.config import Config
from fdsl.errors import ConfigError, InterruptedRunError
from fdsl.head_store import HeadStore, key_of
from fdsl.module import FDSLModule
from fdsl.overlay import write_overlays
from fdsl.results import document, remarks, table, write_csv, write_json, write_scores

log = logging.getLogger(__name__)

CONFIG_FILE, MANIFEST_FILE, HEAD_FILE = "config.yaml", "references.json", "head.safetensors"
CHECKPOINT_FILE, BANKS_FOLDER = "checkpoints/last.ckpt", "banks"
RESULTS_FILE, PARTIAL_FILE = "results.json", "partial.json"


def run(config: Config) -> dict[str, Any]:
    """Run one experiment and return the content of its ``results.json``.

    Args:
        config: checked, see :func:`fdsl.config.typed`.

    Raises:
        FDSLError: for anything the user can mend.
    """
    folder = Path(config.run_dir)
    folder.mkdir(parents=True, exist_ok=True)
    seconds: dict[str, float] = {}
    check_backbone(config)
    trainer = make_trainer(config, folder)
    with timed(seconds, "prepare"):
        loaded = None if config.train else load_head(Path(str(config.ckpt)), config.nam)
        target = prepared(config.data)
        aux = prepared(config.aux) if config.train else None
        if aux is not None:
            check_disjoint(target.categories, aux.categories, "aux.categories")
        elif loaded is not None:
            check_disjoint(target.categories, loaded.trained.get("categories", []), "choose another head with ckpt")
        OmegaConf.save(OmegaConf.create(asdict(config)), folder / CONFIG_FILE)
        write_json(folder / MANIFEST_FILE, target.reference_manifest)
        backbone: Backbone = built(config.backbone.model)
        seed_everything(config.training.seed, workers=True, verbose=False)
        module = make_module(config, backbone, loaded, aux)
        module.attach_banks(bank_files(config, module.detector, target, folder / BANKS_FOLDER, str(trainer.precision)))
    point_latest(folder)  # only now: a run that was refused is not the newest
    origin: dict[str, Any] = {}
    if aux is not None:
        with timed(seconds, "train"):
            origin = obtain_head(config, trainer, module, aux, folder)
    else:
        save_head(folder / HEAD_FILE, module.head, module.hparams["trained"])
    head_file = folder / HEAD_FILE if config.train else Path(str(config.ckpt))
    facts = {
        "config": asdict(config),
        "code": provenance.code_version(),
        "environment": provenance.environment(str(trainer.strategy.root_device)),
        "backbone": {
            **asdict(backbone.weights),
            "blocks": list(backbone.blocks),
            "image_size": config.backbone.image_size,
        },
        "head": {
            "file": HEAD_FILE if config.train else str(head_file),
            "sha256": sha256_of_file(head_file),
            "trained": module.hparams["trained"],
            **origin,
        },
        "references": target.reference_manifest,
        "bank_bytes": module.bank_bytes,
        "resolution": config.map_size,
        "seconds": seconds,
    }
    with timed(seconds, "test"):
        test(config, trainer, module, target, folder, facts)
    return finish(config, module.results, folder, facts)


def obtain_head(config: Config, trainer: Trainer, module: FDSLModule, aux: Any, folder: Path) -> dict[str, Any]:
    """Take the head from the store if it is there, else train it and put it there.

    Returns:
        its key, whether it was reused, and the run that trained it.
    """
    if config.store is None:
        train(config, trainer, module, aux, folder)
        return {"key": None, "reused": False, "trained_by": provenance.trained_by(folder)}
    store = HeadStore(Path(config.store).expanduser())
    digest = aux.content_digest(store.folder / "hashes.sqlite")
    depends_on = provenance.training_dependencies(config, module.hparams["trained"], digest)
    key = key_of(depends_on)
    with store.lock(key):
        found = None if config.retrain or config.training.resume else store.find(key)
        reused = found is not None
        if found is None:
            train(config, trainer, module, aux, folder)
            found = store.publish(key, folder / HEAD_FILE, depends_on, provenance.trained_by(folder))
        else:
            log.info("head %s was trained by %s; retrain=true trains it again", key, found.trained_by["run_dir"])
            shutil.copyfile(found.file, folder / HEAD_FILE)
            stored = load_head(found.file, config.nam)
            module.head.load_state_dict(stored.head.state_dict())
            module.hparams["trained"].update(stored.trained)  # its code may be another commit's
        return {"key": key, "reused": reused, "trained_by": found.trained_by}


def train(config: Config, trainer: Trainer, module: FDSLModule, aux: Any, folder: Path) -> None:
    """Train the head; leaves a Lightning checkpoint and the head's own file in the run's folder."""
    for category in aux.categories:
        module.attach_references(category, aux.reference_images(category))
    try:
        trainer.fit(
            module, train_dataloaders=aux.train_dataloader(), ckpt_path=config.training.resume, weights_only=True
        )
    except (KeyboardInterrupt, SystemExit):  # Lightning shuts down, then exits without a word
        state = folder / CHECKPOINT_FILE
        hint = (
            f"go on with the same settings and training.resume={state}" if state.is_file() else "nothing is saved yet"
        )
        raise InterruptedRunError(f"training was interrupted at step {trainer.global_step}; {hint}") from None
    trainer.save_checkpoint(folder / CHECKPOINT_FILE, weights_only=False)
    save_head(folder / HEAD_FILE, module.head, module.hparams["trained"])


def test(
    config: Config, trainer: Trainer, module: FDSLModule, target: Any, folder: Path, facts: dict[str, Any]
) -> None:
    """Test every category; what is finished is on disk before the next category begins."""

    def on_category(category: str, test: CategoryTest, result: CategoryResult) -> None:
        write_json(folder / PARTIAL_FILE, document(module.results, facts))
        if config.overlays:
            write_overlays(folder / "heatmaps", category, test, result, target.pixels, config.overlays)
        for text in remarks(category, result):
            log.warning(text)

    for category in target.categories:
        module.attach_references(category, target.reference_images(category))
    module.listeners.append(on_category)
    loaders: list[DataLoader[Any]] = target.test_dataloader()
    trainer.test(module, dataloaders=loaders, verbose=False, weights_only=True)


def finish(config: Config, results: dict[str, CategoryResult], folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Write the results and print the table."""
    if not results:
        raise ConfigError("no image was tested: raise trainer.limit_test_batches or data.limit")
    content = document(results, facts)
    write_csv(folder / "results.csv", results)
    write_scores(folder / "scores.csv", results)
    write_json(folder / RESULTS_FILE, content)
    (folder / PARTIAL_FILE).unlink(missing_ok=True)
    console = Console()
    console = console if console.is_terminal else Console(width=110)  # a log file is as wide as the table needs
    console.print(table(results, config.title))
    console.print(f"results   {folder / RESULTS_FILE}", soft_wrap=True)
    if config.overlays:
        console.print(f"heatmaps  {folder / 'heatmaps'}", soft_wrap=True)
    reread: dict[str, Any] = json.loads((folder / RESULTS_FILE).read_text("utf-8"))
    return reread


def point_latest(folder: Path) -> None:
    """Let ``outputs/latest`` name the newest run, where the run lies below a folder called outputs."""
    outputs = next((p for p in folder.absolute().parents if p.name == "outputs"), None)
    if outputs is None:
        return
    fresh = outputs / f".latest-{folder.name}"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(folder.absolute().relative_to(outputs), target_is_directory=True)
    fresh.replace(outputs / "latest")


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Record how long a stage takes."""
    start = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - start, 3)
