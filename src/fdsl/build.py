"""From configuration to objects: the only module that instantiates what a configuration names."""

import warnings
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate
from lightning import Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, TQDMProgressBar

from fdsl import provenance
from fdsl.backbones import Backbone, check_blocks, check_image_size
from fdsl.bank_files import BankFiles
from fdsl.checkpoint import HeadFileError, TrainedHead
from fdsl.checks import check_head, check_resume
from fdsl.config import Config
from fdsl.detector import Detector
from fdsl.errors import ConfigError, FDSLError
from fdsl.feature_cache import FeatureCache
from fdsl.local_features import LocalFeatures
from fdsl.module import FDSLModule
from fdsl.reference import DTYPES
from fdsl.score_learning import ScoreHead


def check_backbone(config: Config) -> int:
    """Refuse blocks, image sizes and windows that the backbone cannot have, without building it.

    Returns:
        patches a side, G.

    Raises:
        ConfigError: naming what fits.
    """
    model = dict(config.backbone.model)
    kind: type[Backbone] = get_class(model.pop("_target_"))
    spec = kind.describe(**model)
    check_blocks(model["blocks"], spec.depth)
    grid = check_image_size(config.backbone.image_size, spec.patch_size)
    config.check_grid(grid)
    return grid


def built(node: dict[str, Any], **more: Any) -> Any:
    """Make what a configuration node names.

    Raises:
        ConfigError: saying what its constructor refused.
    """
    try:
        return instantiate(node, **more)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, FDSLError):
            raise cause from None
        raise ConfigError(f"{node['_target_']} cannot be made: {' '.join(str(cause or error).split())}") from cause


def prepared(node: dict[str, Any]) -> Any:
    """Make a datamodule and let it read its folder."""
    made = built(node)
    made.prepare_data()
    made.setup()
    return made


def make_detector(config: Config, backbone: Backbone) -> Detector:
    """Put backbone, a new head and the scoring choices together."""
    memory = config.memory
    local = LocalFeatures(
        size=config.win_size,
        stride=config.win_stride,
        batch_size=config.win_batch_size,
        search=memory.search,
        top_m=memory.top_m,
    )
    return Detector(
        backbone,
        ScoreHead(len(backbone.blocks), backbone.spec.width, config.nam),
        fusion=config.fusion,
        fusion_weight=config.fusion_weight,
        local=None if config.winmode == "nan" else local,
        local_weight=1.0 if config.winmode == "onlywin" else config.win_weight,
        map_size=config.map_size,
        dtype=DTYPES[memory.dtype],
    )


def bank_files(config: Config, detector: Detector, target: Any, folder: Path, precision: str) -> BankFiles:
    """Say where banks are read or written (``folder``), and what they must be made from.

    Raises:
        BankFileError: if they are to be read and are not of these references, weights and settings.
    """
    if config.memory.load is None and not config.memory.save:
        return BankFiles()
    common = {**provenance.of_encoding(config, detector.backbone, precision), "dtype": config.memory.dtype}
    kinds: dict[str, dict[str, Any]] = {"whole": {"kind": "whole"}} if detector.sees_whole else {}
    if detector.local is not None:
        kinds["windows"] = {"kind": "windows", **detector.local.geometry}
    listed: dict[str, list[dict[str, str]]] = target.reference_manifest()["references"]
    files = BankFiles(
        load=None if config.memory.load is None else Path(config.memory.load),
        save=folder if config.memory.save else None,
        made_from={
            category: {
                kind: {**common, **own, "category": category, "references": [entry["sha256"] for entry in entries]}
                for kind, own in kinds.items()
            }
            for category, entries in listed.items()
        },
    )
    files.check()
    return files


def feature_cache(config: Config, backbone: Backbone, precision: str, device: str) -> FeatureCache | None:
    """Open the cache of whole images' features, if one is used."""
    if config.cache.features is None:
        return None
    made_with = {
        **provenance.of_encoding(config, backbone, precision),
        "device": device,
        "code": provenance.encoding_code(),
        "packages": provenance.packages(),
    }
    root = Path(config.cache.features).expanduser()
    return FeatureCache(root, made_with, DTYPES[config.cache.dtype], round(config.cache.limit_gb * 1e9))


def make_module(config: Config, backbone: Backbone, loaded: TrainedHead | None, aux: Any) -> FDSLModule:
    """Make the LightningModule, with the head that was loaded or a new one."""
    trained = provenance.of_training(config, backbone, aux) if loaded is None else loaded.trained
    if config.training.resume is not None:
        check_resume(config.training.resume, trained)
    module = FDSLModule(
        make_detector(config, backbone),
        image_score=config.image_score,
        lr=config.training.lr,
        betas=(config.training.betas[0], config.training.betas[1]),
        trained=trained,
        keep_deviations=config.training.pool is not None,
        progress=config.progress,
    )
    if loaded is not None:
        check_head(str(config.ckpt), trained, backbone, config.backbone.image_size)
        try:
            module.head.load_state_dict(loaded.head.state_dict())
        except RuntimeError as error:
            raise HeadFileError(
                f"{config.ckpt}: trained for {loaded.head.layers} layers of width {loaded.head.width}, this backbone "
                f"gives {len(backbone.blocks)} of width {backbone.spec.width}; choose the backbone it was trained with"
            ) from error
    return module


def make_trainer(config: Config, folder: Path) -> Trainer:
    """Make the Trainer, with its logger, progress bar and, where a head is trained, its checkpoint."""
    callbacks: list[Callback] = [TQDMProgressBar()] if config.progress else []
    if config.train:
        # Each state replaces the one before: the published procedure tests the last, without a validation set.
        callbacks.append(
            ModelCheckpoint(
                folder / "checkpoints",
                filename="last",
                every_n_train_steps=config.training.save_every,
                enable_version_counter=False,
            )
        )
    # Lightning 2.6 asks torch's pytree for a type that newer releases deprecate; nothing a user could mend.
    warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\)", FutureWarning)
    # A job of a multirun that is started again finds what it left.
    warnings.filterwarnings("ignore", r"(Experiment logs|Checkpoint) directory .* exists and is not empty")
    trainer: Trainer = built(
        config.trainer,
        logger=built(config.logger) if config.logger else False,
        callbacks=callbacks,
        default_root_dir=str(folder),
        enable_checkpointing=config.train,
    )
    if trainer.world_size > 1:
        raise ConfigError("several devices or nodes are not in this version yet: set trainer.devices=1")
    return trainer
