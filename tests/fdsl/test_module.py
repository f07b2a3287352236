"""The LightningModule: training is deterministic, learns, and can be taken up again; the rest is checked elsewhere."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from datamodules import MVTecDataModule
from datamodules.augment import Mosaic
from fdsl.backbones import RandomViT
from fdsl.checkpoint import load_head, save_head
from fdsl.detector import Detector
from fdsl.local_features import LocalFeatures
from fdsl.losses import score_loss
from fdsl.module import FDSLModule
from fdsl.reference import Shots
from fdsl.score_learning import ScoreHead
from tests.stand_in import CLIP_MEAN, CLIP_STD

TWO = Shots(2, 0)


def data(root: Path, **kwargs) -> MVTecDataModule:
    made = MVTecDataModule(str(root), 56, CLIP_MEAN, CLIP_STD, kshots=2, augment=Mosaic(), batch_size=4, **kwargs)
    made.setup()
    return made


def detector() -> Detector:
    return Detector(RandomViT(), ScoreHead(4, 32))


def trainer(folder: Path, epochs: int = 2, callbacks: tuple[Callback, ...] = (), **kwargs) -> Trainer:
    return Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        enable_checkpointing=bool(callbacks),
        **kwargs,
    )


def module(source: MVTecDataModule, seed: int = 0) -> FDSLModule:
    torch.manual_seed(seed)
    made = FDSLModule(detector(), trained={"categories": ["a"]}, progress=False)
    for category in source.categories:
        made.attach_references(category, source.reference_images(category))
    return made


def fitted(root: Path, folder: Path, callbacks: tuple[Callback, ...] = (), resume: Path | None = None) -> FDSLModule:
    source = data(root)
    made = module(source)
    trainer(folder, callbacks=callbacks).fit(made, source.train_dataloader(), ckpt_path=resume)
    return made


def digest(head: torch.nn.Module, folder: Path) -> str:
    save_head(folder / "head.safetensors", head, {"categories": ["a"]})
    return hashlib.sha256((folder / "head.safetensors").read_bytes()).hexdigest()


class KilledError(RuntimeError):
    pass


class StopAfter(Callback):
    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_end(self, trainer: Trainer, *args) -> None:
        if trainer.global_step == self.steps:
            raise KilledError


def test_two_trainings_give_the_same_file(mvtec_root: Path, tmp_path: Path):
    digests = {digest(fitted(mvtec_root, tmp_path).head, tmp_path) for _ in range(2)}
    assert len(digests) == 1


@pytest.mark.parametrize("steps", [2, 3, 4])  # in the middle of an epoch, at its end, in the next
def test_training_taken_up_again_ends_the_same(steps: int, mvtec_root: Path, tmp_path: Path):
    undisturbed = fitted(mvtec_root, tmp_path)
    save = ModelCheckpoint(tmp_path / "every", filename="{step}", every_n_train_steps=1, save_top_k=-1)
    with pytest.raises(KilledError):
        fitted(mvtec_root, tmp_path, (StopAfter(steps), save))
    saved = max((tmp_path / "every").glob("*.ckpt"), key=lambda p: int(p.stem.split("=")[1]))
    assert torch.load(saved, weights_only=True)["global_step"] in (steps - 1, steps)
    again = fitted(mvtec_root, tmp_path, resume=saved)
    assert digest(again.head, tmp_path) == digest(undisturbed.head, tmp_path)


def test_one_batch_can_be_learned_by_heart(mvtec_root: Path):
    source = data(mvtec_root)
    made = module(source)
    batch = next(iter(source.train_dataloader()))
    optimiser = made.configure_optimizers()
    made.train()
    tokens = made.backbone(batch["image"]).tokens
    deviation = made.compare(tokens, batch["category"]).deviation
    pattern = torch.rand(len(deviation[0]), 4, 4, generator=torch.Generator().manual_seed(0)) > 0.7  # on the grid
    losses = []
    for _ in range(150):
        loss = score_loss(made.head(deviation).all(), pattern)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.25 * losses[0]


def test_the_checkpoint_holds_the_head_alone_and_loads(mvtec_root: Path, tmp_path: Path):
    keep = ModelCheckpoint(tmp_path, filename="last")
    made = fitted(mvtec_root, tmp_path, (keep,))
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert all(name.startswith("head.") for name in content["state_dict"])
    again = FDSLModule.load_from_checkpoint(tmp_path / "last.ckpt", detector=detector())
    assert again.hparams["trained"] == {"categories": ["a"]}
    assert digest(again.head, tmp_path) == digest(made.head, tmp_path)
    assert digest(load_head(tmp_path / "last.ckpt").head, tmp_path) == digest(made.head, tmp_path)

    content["state_dict"].pop("head.nam.spread.bias")
    torch.save(content, tmp_path / "less.ckpt")
    with pytest.raises(RuntimeError, match=r"nam\.spread\.bias"):
        FDSLModule.load_from_checkpoint(tmp_path / "less.ckpt", detector=detector())


def test_the_backbone_stays_frozen_and_in_eval_mode(mvtec_root: Path, tmp_path: Path):
    made = fitted(mvtec_root, tmp_path)
    assert not any(p.requires_grad for p in made.backbone.parameters())
    assert not made.train().backbone.training
    fresh = dict(RandomViT().named_parameters())
    for name, parameter in made.backbone.named_parameters():
        assert torch.equal(parameter, fresh[name])


def test_each_image_is_matched_with_its_own_category(mvtec_root: Path):
    source = data(mvtec_root)
    made = module(source)
    tokens = made.backbone(torch.cat([source.reference_images(c) for c in source.categories])).tokens
    together = made.compare(tokens, ["plate", "plate", "tiles", "tiles"])
    assert together.discrepancy.abs().max() < 1e-5  # every image is its own reference
    alone = made.compare(tokens[:, 2:], ["tiles", "tiles"])
    torch.testing.assert_close(together.deviation[:, 2:], alone.deviation)
    with pytest.raises(ValueError, match="no references of screw"):
        made.compare(tokens, ["screw"] * 4)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_windows_run_in_the_trainers_precision(precision: str, mvtec_root: Path, tmp_path: Path):
    source = data(mvtec_root)
    results = []
    for chosen in (precision, "32-true"):
        made = FDSLModule(replace(detector(), local=LocalFeatures(2, 1)), progress=False)
        made.head.load_state_dict(module(source).head.state_dict())
        for category in source.categories:
            made.attach_references(category, source.reference_images(category))
        trainer(tmp_path, precision=chosen).test(made, source.test_dataloader(), verbose=False)
        results.append(made.results[TWO])
    for category, result in results[0].items():
        fd = [r.image_scores["fd"] for r in (result, results[1][category])]
        torch.testing.assert_close(*fd, atol=0.1, rtol=0)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_precision_is_the_trainers(precision: str, mvtec_root: Path, tmp_path: Path):
    source = data(mvtec_root)
    made = module(source)
    trainer(tmp_path, epochs=1, precision=precision).fit(made, source.train_dataloader())
    half = module(source)
    half.head.load_state_dict({k: v.float() for k, v in made.head.state_dict().items()})
    trainer(tmp_path, precision=precision).test(half, source.test_dataloader(), verbose=False)
    full = module(source)
    full.head.load_state_dict({k: v.float() for k, v in made.head.state_dict().items()})
    trainer(tmp_path).test(full, source.test_dataloader(), verbose=False)
    for category, result in full.results[TWO].items():
        fd = [r.image_scores["fd"] for r in (result, half.results[TWO][category])]
        torch.testing.assert_close(*fd, atol=0.1, rtol=0)


def test_figures_do_not_depend_on_the_batch_size(mvtec_root: Path, tmp_path: Path):
    made = []
    for size in (1, 4):
        source = data(mvtec_root)
        source.batch_size = size
        tested = module(source)
        trainer(tmp_path).test(tested, source.test_dataloader(), verbose=False)
        made.append(tested.results[TWO])
    for category in made[0]:
        for method in ("fdsl", "fd"):
            scores = [r[category].image_scores[method] for r in made]
            torch.testing.assert_close(*scores, atol=1e-4, rtol=0)


def test_kept_deviations_train_the_same_head(mvtec_root: Path, tmp_path: Path):
    digests = set()
    for keep in (False, True):
        source = data(mvtec_root, pool=1)
        torch.manual_seed(0)
        made = FDSLModule(detector(), keep_deviations=keep, progress=False)
        for category in source.categories:
            made.attach_references(category, source.reference_images(category))
        calls = []
        made.backbone.register_forward_hook(lambda m, i, o, calls=calls: calls.append(len(i[0])))
        trainer(tmp_path, epochs=3).fit(made, source.train_dataloader())
        assert sum(calls) == 4 + (12 if keep else 36)  # references, and each image once or in every epoch
        digests.add(tuple(round(float(v.double().sum()), 3) for v in made.head.state_dict().values()))
    assert len(digests) == 1
