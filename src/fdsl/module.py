"""FDSL as a LightningModule: the training step, the test step and the optimiser; the maths is in the modules beside.

References are attached by an explicit call. Device and precision are the Trainer's business; the search for nearest
references and the losses run in fp32 whatever the precision, because half precision picks other neighbours.
"""

import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from lightning import LightningModule
from torch import Tensor
from tqdm.auto import tqdm

from fdsl.backbones import Encoding
from fdsl.bank_files import BankFiles
from fdsl.category import CategoryResult, CategoryTest
from fdsl.detector import METHODS, Detector
from fdsl.discrepancy import Discrepancy
from fdsl.feature_cache import FeatureCache
from fdsl.losses import score_loss
from fdsl.reference import Encode, ReferenceBank, References, Shots, distinct
from fdsl.score_learning import ScoreMaps


class RunningTest(NamedTuple):
    """The category that is being tested, held until its last image: one test for each setting."""

    category: str
    references: dict[Shots, References]
    tests: dict[Shots, CategoryTest]


CategoryListener = Callable[[Shots, str, CategoryTest, CategoryResult], None]


class FDSLModule(LightningModule):
    """Few-shot anomaly detection by feature discrepancy guided score learning.

    Args:
        detector: backbone, head and scoring choices. A checkpoint holds the head's weights alone, so it is given again
            when one is loaded.
        image_score: ``transductive`` or ``independent``, see :mod:`fdsl.scoring`.
        lr: Adam's learning rate.
        betas: Adam's betas.
        trained: plain description of what the head is trained on, kept in the checkpoint.
        keep_deviations: keep each training image's deviation in memory, by path and variant, so that epochs after the
            first need no backbone. Only sensible with a small, fixed pool of augmentations.
        progress: show a progress bar while references are encoded.
    """

    def __init__(
        self,
        detector: Detector,
        image_score: str = "transductive",
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.5, 0.999),
        trained: dict[str, Any] | None = None,
        keep_deviations: bool = False,
        progress: bool = True,
    ) -> None:
        super().__init__()
        trained = dict(trained or {})
        self.save_hyperparameters(ignore=["detector"])
        self.detector = detector
        self.backbone = detector.backbone
        self.head = detector.head
        self.listeners: list[CategoryListener] = []
        self.settings: list[Shots] | None = None
        self.results: dict[Shots, dict[str, CategoryResult]] = {}
        self.bank_bytes: dict[Shots, dict[str, int]] = {}
        self._images: dict[str, dict[int, Tensor]] = {}  # of each category, by seed
        self._features: FeatureCache | None = None
        self._auxiliary_features: FeatureCache | None = None
        self._banks: dict[str, ReferenceBank] = {}  # of training
        self._bank_files = BankFiles()
        self._deviations: dict[tuple[str, int], Tensor] = {}  # (path, variant) -> (L, N, C)
        self._running: RunningTest | None = None

    def attach_references(self, category: str, images: Tensor, seed: int = 0) -> None:
        """Give the preprocessed reference images (k, 3, S, S) of a category, in place of any given before.

        They are encoded where the module then is, when they are first needed. A test may be given several draws, by
        their seeds; ``settings`` then says which are tested with how many of their first images. Without settings a
        test uses all images.
        """
        self._images.setdefault(category, {})[seed] = images
        self._banks.pop(category, None)

    def attach_features(self, cache: FeatureCache, auxiliary: bool = False) -> None:
        """Keep and recall the features of whole images: of references, of test images, and if asked of a training's."""
        self._features, self._auxiliary_features = cache, cache if auxiliary else None

    def attach_banks(self, files: BankFiles) -> None:
        """Read the references' banks of a test from files, or write them there."""
        self._bank_files = files

    def training_bank(self, category: str) -> ReferenceBank:
        """Return the bank of a category's whole references, encoding it the first time: windows are not trained on.

        Raises:
            ValueError: if no references were attached.
        """
        if category not in self._banks:
            (images,) = self._taken(category).values()
            encode = self._encoder(self._auxiliary_features)
            with self._precision():
                self._banks[category] = ReferenceBank.encode(encode, self._placed(images))
        return self._banks[category]

    def test_references(self, category: str) -> dict[Shots, References]:
        """Return all banks of a category that a test needs, by setting, read from files or encoded.

        Raises:
            ValueError: if no references were attached.
            FDSLError: if files were to be read and are not these references'.
        """
        draws = self._taken(category)
        settings = self.settings or [Shots(len(images), seed) for seed, images in draws.items()]
        encoded: dict[int, References] = {}
        made: dict[Shots, References] = {}
        for shots in settings:
            images = draws[shots.seed]
            if shots.seed not in encoded:
                encoded[shots.seed] = self._encoded_references(category, images)
            made[shots] = encoded[shots.seed].first(len(distinct(images[: shots.kshots])), len(distinct(images)))
        return made

    def _encoded_references(self, category: str, images: Tensor) -> References:
        if (found := self._bank_files.read(category)) is not None:
            return found.to(self.device)
        with self._precision():
            encode = self._encoder(self._features)
            made = self.detector.encode_references(self._placed(images), self.hparams["progress"], encode)
        self._bank_files.write(category, made)
        return made

    def _encoder(self, cache: FeatureCache | None) -> Encode:
        return self.backbone if cache is None else cache.encoder(self.backbone)

    def _taken(self, category: str) -> dict[int, Tensor]:
        if category not in self._images:
            raise ValueError(f"no references of {category}: call attach_references first")
        return self._images.pop(category)

    def _placed(self, images: Tensor) -> Tensor:
        return images.to(self.device, self.head.dtype)

    def _precision(self) -> AbstractContextManager[Any]:
        """The Trainer's precision, if there is one: references and queries must be encoded alike."""
        return self._trainer.precision_plugin.forward_context() if self._trainer else nullcontext()

    def compare(self, tokens: Tensor, categories: list[str]) -> Discrepancy:
        """Match training tokens (L, B, N, C) with the bank of each image's own category, in fp32."""
        with torch.autocast(self.device.type, enabled=False):
            tokens = tokens.float()
            deviation, discrepancy = torch.empty_like(tokens), tokens.new_empty(tokens.shape[:3])
            for category in sorted(set(categories)):
                rows = [i for i, c in enumerate(categories) if c == category]
                deviation[:, rows], discrepancy[:, rows] = self.training_bank(category).match(tokens[:, rows])
            return Discrepancy(deviation, discrepancy)

    def training_deviation(self, batch: Mapping[str, Any]) -> Tensor:
        """Deviation of a training batch (L, B, N, C), recalled where it is kept."""
        if not self.hparams["keep_deviations"]:
            return self.compare(
                self._encoder(self._auxiliary_features)(batch["image"]).tokens, batch["category"]
            ).deviation
        keys = list(zip(batch["path"], batch["variant"].tolist(), strict=True))
        if new := [i for i, key in enumerate(keys) if key not in self._deviations]:
            tokens = self._encoder(self._auxiliary_features)(batch["image"][new]).tokens
            found = self.compare(tokens, [batch["category"][i] for i in new]).deviation.cpu()
            self._deviations.update(zip((keys[i] for i in new), found.unbind(dim=1), strict=True))
        return torch.stack([self._deviations[key] for key in keys], dim=1).to(self.device)

    def on_fit_start(self) -> None:
        """Encode all references first, so that the first steps do not stall without a word."""
        # Lightning takes a module in eval mode for an oversight; the frozen backbone is meant to stay in it.
        warnings.filterwarnings("ignore", r"Found \d+ module\(s\) in eval mode", module="lightning")
        for category in tqdm(sorted(self._images), desc="references", disable=not self.hparams["progress"]):
            self.training_bank(category)

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """Loss of the head on one batch of augmented, labelled auxiliary images."""
        deviation = self.training_deviation(batch)
        with torch.autocast(self.device.type, enabled=False):
            maps: ScoreMaps = self.head(deviation)
            loss = score_loss([m.float() for m in maps.all()], batch["mask"])
        self.log("train/loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=len(batch["image"]))
        return loss

    def on_train_end(self) -> None:
        """Let go of the auxiliary references and deviations."""
        self._banks.clear()
        self._deviations.clear()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam on the head, as published."""
        return torch.optim.Adam(self.head.parameters(), lr=self.hparams["lr"], betas=tuple(self.hparams["betas"]))

    def on_test_start(self) -> None:
        """Begin with no results."""
        self.results.clear()
        self._running = None

    def running_test(self, category: str) -> RunningTest:
        """Return the test of a category, a new one with its first batch."""
        if self._running is None:
            references = self.test_references(category)
            tests = {shots: CategoryTest(METHODS, self.hparams["image_score"]) for shots in references}
            self._running = RunningTest(category, references, tests)
            for shots, banks in references.items():
                self.bank_bytes.setdefault(shots, {})[category] = banks.nbytes
        return self._running

    def finish_category(self) -> None:
        """Turn the running category into its results, one for each setting, and tell the listeners."""
        if self._running is None:
            raise RuntimeError("no category is being tested")
        category, _, tests = self._running
        self._running = None  # and with it the references
        while tests:  # each lets go of its maps before the next one sorts its own
            shots = next(iter(tests))
            test = tests.pop(shots)
            result = self.results.setdefault(shots, {})[category] = test.finish()
            for listener in self.listeners:
                listener(shots, category, test, result)

    def test_step(self, batch: Mapping[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        """Score one batch; a loader holds the images of one category."""
        running = self.running_test(batch["category"][0])
        scored = self.detector.score(batch["image"], list(running.references.values()), self._whole(batch))
        for test, scores in zip(running.tests.values(), scored, strict=True):
            test.update(scores, batch["path"], batch["label"], batch["mask"], batch["defect_visible"])

    def _whole(self, batch: Mapping[str, Any]) -> Encoding | None:
        """Features of the whole images of a test batch, where the batch says what is known of them."""
        if self._features is None or "known" not in batch:
            return None
        return self._features.complete(self.backbone, batch["image"], batch["content"], batch["known"])

    def on_test_batch_end(
        self, outputs: Any, batch: Mapping[str, Any], batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Finish a category with its last batch, before anything of the next one is loaded."""
        if batch_idx + 1 == self.trainer.num_test_batches[dataloader_idx]:
            self.finish_category()

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Return the head alone: the backbone is frozen and has its own file."""
        state: dict[str, Any] = super().state_dict(*args, **kwargs)
        return {name: value for name, value in state.items() if not name.startswith("backbone.")}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load the head; a missing or unknown entry is an error."""
        prefix = "head."
        foreign = [name for name in state_dict if not name.startswith(prefix)]
        if foreign:
            raise RuntimeError(f"entries that are no part of the head: {', '.join(foreign[:5])}")
        state = {name.removeprefix(prefix): value for name, value in state_dict.items()}
        return self.head.load_state_dict(state, strict=True, assign=assign)
