"""Agreement with the published algorithm, on vectors that it made: the proof of correctness."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import Trainer

from datamodules import MVTecDataModule
from fdsl.backbones.weights import sha256_of_file
from fdsl.checkpoint import from_upstream, load_head
from fdsl.detector import Detector
from fdsl.local_features import LocalFeatures
from fdsl.losses import dice_loss, focal_loss, score_loss
from fdsl.module import FDSLModule
from fdsl.reference import References
from fdsl.score_learning import ScoreHead
from fdsl.scoring import AnomalyScore, blend, image_score, score_maps
from fdsl.windows import stitch_windows
from tests.near_ties import Matching, resolve
from tests.stand_in import CLIP_MEAN, CLIP_STD, StandIn

ATOL = 1e-5


@pytest.fixture
def first_images(golden: Path, tmp_path: Path):
    """A manifest that names the first k training images, as the golden vectors were made."""

    def write(k: int) -> Path:
        names = {c: [f"{c}/train/good/{i:03d}.png" for i in range(k)] for c in ("plate", "tiles")}
        listed = {
            c: [{"path": p, "sha256": sha256_of_file(golden / "mvtec" / p)} for p in ps] for c, ps in names.items()
        }
        path = tmp_path / "references.json"
        path.write_text(json.dumps({"schema": 1, "references": listed}))
        return path

    return write


FILES = ("nan_nam0_k1", "nan_nam1_k1", "nan_nam1_k2")
WINDOWED = ("mul_nam1_k1_stride8", "onlywin_nam1_k1_stride8", "mul_nam1_k2_stride8_index")


def detector_of(name: str, golden: Path, backbone: StandIn, batch_size: int = 32) -> Detector:
    """The detector that a golden file was made with."""
    head = load_head(golden / "upstream_epoch_1.pth", "nam1" in name).head
    search = "union" if name.endswith("index") else "full"
    local = None if name.startswith("nan") else LocalFeatures(13, 8, batch_size, search, top_m=1)
    return Detector(backbone, head, local=local, local_weight=1.0 if name.startswith("onlywin") else 0.5)


def data_of(name: str, golden: Path, manifest: Callable[[int], Path], batch_size: int = 1) -> MVTecDataModule:
    k = int(name.split("_k")[1][0])
    references = str(manifest(k))
    root = str(golden / "mvtec")
    data = MVTecDataModule(root, 518, CLIP_MEAN, CLIP_STD, kshots=k, references=references, batch_size=batch_size)
    data.setup()
    return data


def matchings(detector: Detector, references: References, image: torch.Tensor) -> list[Matching]:
    """Match one image (1, 3, S, S) branch by branch, windows picked by a plain search."""
    made = []
    if references.whole is not None:
        tokens = detector.backbone(image).tokens
        made.append(Matching.of(detector.head, tokens, references.whole.tokens.flatten(1, 2)))
    if references.windows is not None:
        query = detector.backbone(torch.cat(list(detector.local.cut(detector.backbone, image[0]))))
        tokens = references.windows.tokens
        if detector.local.search == "union":
            picked = (query.image_feature @ references.windows.image_feature.T).argmax(dim=1)
            tokens = tokens[:, sorted(set(picked.tolist()))]
        made.append(Matching.of(detector.head, query.tokens, tokens.flatten(1, 2)))
    return made


def rendered(detector: Detector, probabilities: list[torch.Tensor]) -> AnomalyScore:
    """From token probabilities (L, U, N) of whole image and windows to the score."""
    scores = []
    for p in probabilities:
        tokens = p[:, 0].view(-1, 37, 37) if p.shape[1] == 1 else stitch_windows(p, 37, 13, 8)  # L G G
        scores.append(score_maps(detector.head.aggregate(tokens[:, None]), 240))
    return scores[0] if len(scores) == 1 else blend(*scores, 0.5)


@pytest.mark.parametrize("name", FILES + WINDOWED)
def test_scores_of_the_published_algorithm(name: str, golden: Path, first_images, stand_in: StandIn):
    data = data_of(name, golden, first_images)
    detector = detector_of(name, golden, stand_in)
    expected = np.load(golden / "scores" / f"{name}.npz")
    with torch.inference_mode():
        for category, loader in zip(data.categories, data.test_dataloader(), strict=True):
            references = detector.encode_references(data.reference_images(category))
            published = torch.from_numpy(expected[f"{category}/pixel_map"])
            maps, peaks = [], []
            for i, batch in enumerate(loader):
                found = matchings(detector, references, batch["image"])
                own = detector(batch["image"], references)["fdsl"]
                plain = rendered(detector, [m.probability for m in found])
                torch.testing.assert_close(own, plain, atol=1e-6, rtol=0)
                # And with near ties resolved as published, every pixel agrees.
                score = resolve(
                    detector.head, found, partial(rendered, detector), lambda m, p=published[i]: m[:, ::4, ::4] - p
                )
                maps.append(score.map[0])
                peaks.append(score.peak[0])
            made = torch.stack(maps)
            torch.testing.assert_close(made[:, ::4, ::4], published, atol=ATOL, rtol=0)
            s1, s2 = torch.stack(peaks).double(), made.flatten(1).amax(dim=1).double()
            # Min-max normalisation divides a rounding of the maxima (2^-24, fp32 below 1) by their spread, which with
            # NAM and this random head is as little as 0.0019.
            atol = max(ATOL, 2**-24 / float(s2.max() - s2.min()))
            scores = image_score(s1, s2, "transductive")
            np.testing.assert_allclose(scores, expected[f"{category}/image_score"], atol=atol, rtol=0)


@pytest.mark.parametrize("name", ["nan_nam1_k2", "mul_nam1_k2_stride8_index"])
def test_a_test_run_gives_the_detectors_scores(name: str, golden: Path, first_images, stand_in: StandIn):
    data = data_of(name, golden, first_images, batch_size=4)
    detector = detector_of(name, golden, stand_in, batch_size=7)
    module = FDSLModule(detector, progress=False)
    seen = {}
    module.listeners.append(lambda shots, category, test, result: seen.update({category: (test, result)}))
    for category in data.categories:
        module.attach_references(category, data.reference_images(category))
    Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False).test(
        module, data.test_dataloader(), verbose=False
    )
    expected = np.load(golden / "scores" / f"{name}.npz")
    assert set(seen) == {"plate", "tiles"}
    for category, loader in zip(data.categories, data.test_dataloader(), strict=True):
        test, result = seen[category]
        with torch.inference_mode():
            references = detector.encode_references(data.reference_images(category))
            scores = [detector(batch["image"], references)["fdsl"] for batch in loader]
        maps, peaks = (torch.cat(parts) for parts in zip(*scores, strict=True))
        assert torch.equal(torch.cat(test.maps["fdsl"]), maps)
        of_images = image_score(peaks.double(), maps.flatten(1).amax(dim=1).double(), "transductive")
        torch.testing.assert_close(result.image_scores["fdsl"], of_images)
        np.testing.assert_array_equal(torch.cat(test.masks)[:, ::4, ::4], expected[f"{category}/mask"])
        np.testing.assert_array_equal(result.labels, expected[f"{category}/label"])


@pytest.mark.parametrize("nam", [False, True])
def test_training_step_of_the_published_algorithm(nam: bool, golden: Path):
    step = {k: torch.as_tensor(v) for k, v in np.load(golden / "train_step.npz").items()}
    upstream = torch.load(golden / "upstream_epoch_1.pth", weights_only=True)["trainable_RR"]
    state, _ = from_upstream(upstream)
    head = ScoreHead(layers=4, width=64, nam=nam)
    head.load_state_dict({k: v for k, v in state.items() if nam or not k.startswith("nam.")})
    head.train()
    optimiser = torch.optim.Adam(head.parameters(), lr=1e-3, betas=(0.5, 0.999))

    # few_features holds the matched reference token of every query token.
    maps = head((step["features"][:, :, 1:] - step["few_features"]).abs()).all()
    mask = step["mask"][:, 0]
    big = [torch.nn.functional.interpolate(m, size=70, mode="bilinear", align_corners=True) for m in maps]
    loss = score_loss(maps, mask)
    loss.backward()
    optimiser.step()

    part = f"nam{int(nam)}"
    torch.testing.assert_close(
        torch.stack(maps).flatten(3).transpose(2, 3), step[f"{part}/maps_tokens"], atol=ATOL, rtol=0
    )
    focal = torch.stack([focal_loss(m, mask) for m in big]).double()
    dice = torch.stack([dice_loss(m[:, 1], mask) for m in big]).double()
    torch.testing.assert_close(focal, step[f"{part}/focal"], atol=ATOL, rtol=0)
    torch.testing.assert_close(dice, step[f"{part}/dice"], atol=ATOL, rtol=0)
    torch.testing.assert_close(loss.double(), step[f"{part}/loss"], atol=ATOL, rtol=0)
    after, _ = from_upstream({k.removeprefix(f"{part}/after/"): v for k, v in step.items() if f"{part}/after/" in k})
    ours = head.state_dict()
    assert len(after) == 3 + nam
    for name, value in after.items():
        torch.testing.assert_close(ours[name][: len(value)], value, atol=ATOL, rtol=0, msg=name)


def test_upstream_checkpoints_load_and_name_what_is_ignored(golden: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", "fdsl")
    loaded = load_head(golden / "upstream_epoch_1.pth")
    assert loaded.head.nam is not None
    assert (loaded.head.layers, loaded.head.width) == (4, 64)
    assert "rAttn.fc.0.weight" in caplog.text
    assert "resfus.conv.bias" in caplog.text
    assert "clsList" not in caplog.text
