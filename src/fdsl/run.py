"""One run: train the head on the auxiliary dataset, test it k-shot on the target, write what was found.

The only place that knows of both datasets and model. Everything that can be refused is refused before a weight is
loaded or an image decoded.
"""

import json
import logging
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from lightning import Trainer, seed_everything
from torch.utils.data import DataLoader

from fdsl import provenance
from fdsl.backbones import Backbone
from fdsl.backbones.weights import sha256_of_file
from fdsl.build import bank_files, built, check_backbone, feature_cache, make_module, make_trainer, prepared
from fdsl.category import CategoryResult, CategoryTest
from fdsl.checkpoint import load_head, save_head
from fdsl.checks import check_disjoint, same_training
from fdsl.config import Config
from fdsl.errors import ConfigError, InterruptedRunError
from fdsl.head_store import HeadStore, key_of
from fdsl.module import FDSLModule
from fdsl.record import Record, of_setting
from fdsl.reference import Shots
from fdsl.results import write_json

log = logging.getLogger(__name__)

HEAD_FILE, BANKS_FOLDER = "head.safetensors", "banks"
CHECKPOINT_FILE, TRAINING_FILE = "checkpoints/last.ckpt", "training.json"
HASHES_FILE = "hashes.sqlite"


class HeadKey(NamedTuple):
    """What identifies the head of a run.

    Attributes:
        key: hash of what it depends on, or of the file it is read from.
        depends_on: what a training depends on; empty where the head is read from a file.
    """

    key: str
    depends_on: dict[str, Any]


def run(config: Config) -> list[dict[str, Any]]:
    """Run one experiment and return the content of ``results.json`` of each of its settings.

    A setting whose result is there already, with the same key, is not tested again unless ``config.force``; if that is
    so of all, nothing is trained either.

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
        backbone: Backbone = built(config.backbone.model)
        seed_everything(config.training.seed, workers=True, verbose=False)
        module = make_module(config, backbone, loaded, aux)
        module.attach_banks(bank_files(config, module.detector, target, folder / BANKS_FOLDER, str(trainer.precision)))
        head = head_key(config, module, aux)
        records = make_records(config, module, target, head)
    found = {shots: None if config.force or config.retrain else record.finished() for shots, record in records.items()}
    if done := [str(records[shots].folder) for shots, content in found.items() if content is not None]:
        log.info("finished before: %s; force=true tests again", ", ".join(done))
    if len(done) < len(found):
        open_ones = {shots: record for shots, record in records.items() if found[shots] is None}
        found.update(executed(config, trainer, module, target, aux, head, open_ones, seconds))
    return [content for content in found.values() if content is not None]


def executed(
    config: Config,
    trainer: Trainer,
    module: FDSLModule,
    target: Any,
    aux: Any,
    head: HeadKey,
    records: dict[Shots, Record],
    seconds: dict[str, float],
) -> dict[Shots, dict[str, Any]]:
    """Train or fetch the head, test the settings that are open, and write their results."""
    folder = Path(config.run_dir)
    features = feature_cache(config, module.backbone, str(trainer.precision), trainer.strategy.root_device.type)
    if features is not None and module.detector.sees_whole:
        module.attach_features(features, config.cache.aux)
        target.use_features(features, load_all=module.detector.local is not None)
    for record in records.values():
        record.begin()
    point_latest(folder)  # only now: a run that was refused is not the newest
    origin: dict[str, Any] = {}
    if aux is not None:
        with timed(seconds, "train"):
            origin = obtain_head(config, trainer, module, aux, folder, head)
    else:
        save_head(folder / HEAD_FILE, module.head, module.hparams["trained"])
    head_file = folder / HEAD_FILE if config.train else Path(str(config.ckpt))
    common = {
        "code": provenance.code_version(),
        "environment": provenance.environment(str(trainer.strategy.root_device)),
        "backbone": {
            **asdict(module.backbone.weights),
            "blocks": list(module.backbone.blocks),
            "image_size": config.backbone.image_size,
        },
        "head": {
            "file": HEAD_FILE if config.train else str(head_file),
            "sha256": sha256_of_file(head_file),
            "trained": module.hparams["trained"],
            **origin,
        },
        "resolution": config.map_size,
        "seconds": seconds,
    }
    for shots, record in records.items():
        record.facts = {"config": asdict(record.config), **common, "references": record.manifest}
        record.facts["bank_bytes"] = module.bank_bytes.setdefault(shots, {})
    with timed(seconds, "test"):
        test(trainer, module, target, records)
    if not all(record.results for record in records.values()):
        raise ConfigError("no image was tested: raise trainer.limit_test_batches or data.limit")
    return {shots: record.finish() for shots, record in records.items()}


def head_key(config: Config, module: FDSLModule, aux: Any) -> HeadKey:
    """Identify the head before it is trained."""
    if aux is None:
        return HeadKey(sha256_of_file(Path(str(config.ckpt))), {})
    digest = aux.content_digest(hashes(config))
    depends_on = provenance.training_dependencies(config, module.hparams["trained"], digest)
    return HeadKey(key_of(depends_on), depends_on)


def make_records(config: Config, module: FDSLModule, target: Any, head: HeadKey) -> dict[Shots, Record]:
    """Make the record of every setting: in the run's folder if there is one, else each in a folder below it."""
    folder = Path(config.run_dir)
    digest = target.content_digest(hashes(config), references=False)
    made: dict[Shots, Record] = {}
    for shots in target.settings:
        own = of_setting(config, shots, folder if len(target.settings) == 1 else folder / shots.name)
        manifest = target.reference_manifest(shots)
        depends_on = provenance.result_dependencies(own, module.backbone, head.key, digest, manifest)
        made[shots] = Record(own, manifest, key_of(depends_on))
    return made


def hashes(config: Config) -> Path | None:
    """Where content hashes are remembered."""
    return None if config.store is None else Path(config.store).expanduser() / HASHES_FILE


def obtain_head(
    config: Config, trainer: Trainer, module: FDSLModule, aux: Any, folder: Path, head: HeadKey
) -> dict[str, Any]:
    """Take the head from the store if it is there, else train it and put it there.

    Returns:
        its key, whether it was reused, and the run that trained it.
    """
    if config.store is None:
        train(config, trainer, module, aux, folder, head.key)
        return {"key": head.key, "reused": False, "trained_by": provenance.trained_by(folder)}
    store = HeadStore(Path(config.store).expanduser())
    with store.lock(head.key):
        found = None if config.retrain or config.training.resume else store.find(head.key)
        reused = found is not None
        if found is None:
            train(config, trainer, module, aux, folder, head.key)
            found = store.publish(head.key, folder / HEAD_FILE, head.depends_on, provenance.trained_by(folder))
        else:
            log.info("head %s was trained by %s; retrain=true trains it again", head.key, found.trained_by["run_dir"])
            shutil.copyfile(found.file, folder / HEAD_FILE)
            stored = load_head(found.file, config.nam)
            module.head.load_state_dict(stored.head.state_dict())
            module.hparams["trained"].update(stored.trained)  # its code may be another commit's
        return {"key": head.key, "reused": reused, "trained_by": found.trained_by}


def train(config: Config, trainer: Trainer, module: FDSLModule, aux: Any, folder: Path, key: str) -> None:
    """Train the head; leaves a Lightning checkpoint and the head's own file in the run's folder.

    A training of the same head that was killed in this folder goes on where its last checkpoint was.
    """
    for category in aux.categories:
        module.attach_references(category, aux.reference_images(category))
    resume = config.training.resume or (None if config.retrain else begun(folder, key, module.hparams["trained"]))
    write_json(folder / TRAINING_FILE, {"key": key})
    try:
        trainer.fit(module, train_dataloaders=aux.train_dataloader(), ckpt_path=resume, weights_only=True)
    except (KeyboardInterrupt, SystemExit):  # Lightning shuts down, then exits without a word
        state = folder / CHECKPOINT_FILE
        hint = (
            f"go on with the same settings and training.resume={state}" if state.is_file() else "nothing is saved yet"
        )
        raise InterruptedRunError(f"training was interrupted at step {trainer.global_step}; {hint}") from None
    trainer.save_checkpoint(folder / CHECKPOINT_FILE, weights_only=False)
    save_head(folder / HEAD_FILE, module.head, module.hparams["trained"])


def begun(folder: Path, key: str, trained: Mapping[str, Any]) -> str | None:
    """Return the checkpoint of a training of this very head that was begun in this folder, or None."""
    state = folder / CHECKPOINT_FILE
    try:
        same = json.loads((folder / TRAINING_FILE).read_text("utf-8"))["key"] == key
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not same or not state.is_file():
        return None
    if (problem := same_training(str(state), trained)) is not None:
        log.warning("training begins anew: %s", problem)
        return None
    log.info("training goes on from %s", state)
    return str(state)


def test(trainer: Trainer, module: FDSLModule, target: Any, records: Mapping[Shots, Record]) -> None:
    """Test every category in every setting, with one pass over the images."""

    def on_category(shots: Shots, category: str, test: CategoryTest, result: CategoryResult) -> None:
        records[shots].add(category, test, result, target.pixels)

    module.settings = list(records)
    for category in target.categories:
        for seed in dict.fromkeys(shots.seed for shots in records):
            module.attach_references(category, target.reference_images(category, seed), seed)
    module.listeners.append(on_category)
    loaders: list[DataLoader[Any]] = target.test_dataloader()
    trainer.test(module, dataloaders=loaders, verbose=False, weights_only=True)


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
