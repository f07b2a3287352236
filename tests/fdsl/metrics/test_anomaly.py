import json
import math

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from fdsl.metrics import ImageMetrics, PixelMetrics, aupro, ranking_metrics

N = 8
SPLITS = [(3, 5), (0, 8), (8, 0), (1, 7), (0, 0)]  # images of rank 0 and of rank 1


def images():
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 1, 1, 0, 1, 0, 1, 1], dtype=torch.uint8)
    masks = (torch.rand(N, 12, 10, generator=generator) < 0.2) * labels[:, None, None]
    # Rounded, so that ties run across the processes.
    maps = (10 * (torch.rand(N, 12, 10, generator=generator) + 0.5 * masks)).round() / 10
    scores = maps.mean(dim=(1, 2)).double() + 1e-9 * torch.arange(N)  # steps that float32 would lose
    return scores, labels, maps, masks


def expected():
    scores, labels, maps, masks = images()
    values = {f"image_{k}": v for k, v in ranking_metrics(scores, labels).items()}
    values |= {f"pixel_{k}": v for k, v in ranking_metrics(maps, masks).items()}
    return values | {"pixel_aupro": aupro(maps, masks)}


def fed(selection, batch=1):
    image_metrics, pixel_metrics = ImageMetrics(), PixelMetrics()
    scores, labels, maps, masks = (part[selection] for part in images())
    for start in range(0, len(scores), batch):
        stop = start + batch
        image_metrics.update(scores[start:stop], labels[start:stop])
        pixel_metrics.update(maps[start:stop], masks[start:stop])
    return image_metrics, pixel_metrics


def compute_in_process(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    results = []
    for counts in SPLITS:
        # Rank 0 takes the last images, so that the gathered order differs from that of one process.
        selection = slice(N - counts[0], N) if rank == 0 else slice(0, counts[1])
        pair = fed(selection)
        try:
            values = pair[0].compute() | pair[1].compute()
        except ValueError as error:
            values = str(error)
        results.append((values, len(pair[1].masks)))
    (folder / f"{rank}.json").write_text(json.dumps(results))
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    mp.spawn(compute_in_process, args=(tmp_path,), nprocs=2)
    for rank in range(2):
        results = json.loads((tmp_path / f"{rank}.json").read_text())
        for counts, (values, kept) in zip(SPLITS, results, strict=True):
            if sum(counts) == 0:
                assert "has seen no image" in values
            else:
                assert values == pytest.approx(expected(), abs=1e-12)
                assert kept == counts[rank], "the local state comes back after the sync"


@pytest.mark.parametrize("batch", [1, 3, N])
def test_accumulates_batches(batch):
    image_metrics, pixel_metrics = fed(slice(None), batch)
    assert image_metrics.compute() | pixel_metrics.compute() == pytest.approx(expected(), abs=1e-12)


def test_options_reach_aupro():
    _, _, maps, masks = images()
    metric = PixelMetrics(fpr_limit=0.1, connectivity=4)
    metric.update(maps, masks)
    assert metric.compute()["pixel_aupro"] == aupro(maps, masks, 0.1, 4)


def test_states_are_small():
    _, pixel_metrics = fed(slice(None))
    assert pixel_metrics.maps[0].dtype == torch.float32
    assert pixel_metrics.masks[0].dtype == torch.uint8


def test_reset_forgets():
    image_metrics, pixel_metrics = fed(slice(None))
    for metric in (image_metrics, pixel_metrics):
        metric.reset()
        with (
            pytest.warns(UserWarning, match="before the ``update``"),
            pytest.raises(ValueError, match="no image"),
        ):
            metric.compute()


def test_normal_images_only_is_nan():
    image_metrics, pixel_metrics = ImageMetrics(), PixelMetrics()
    image_metrics.update(torch.rand(2), torch.zeros(2))
    pixel_metrics.update(torch.rand(2, 4, 4), torch.zeros(2, 4, 4))
    assert all(math.isnan(value) for value in (image_metrics.compute() | pixel_metrics.compute()).values())


@pytest.mark.parametrize(
    ("metric", "values", "labels", "message"),
    [
        (ImageMetrics, torch.rand(2, 1), torch.zeros(2, 1), r"shape \(B,\)"),
        (ImageMetrics, torch.rand(2), torch.zeros(3), r"\(2,\) and \(3,\)"),
        (ImageMetrics, torch.rand(2), torch.tensor([0, 2]), "0 .normal. or 1"),
        (PixelMetrics, torch.rand(2, 1, 4, 4), torch.zeros(2, 1, 4, 4), "squeeze"),
        (PixelMetrics, torch.rand(2, 4, 4), torch.zeros(2, 4, 5), r"\(2, 4, 4\) and \(2, 4, 5\)"),
        (PixelMetrics, torch.rand(1, 4, 4), torch.full((1, 4, 4), 255), "mask > 0"),
    ],
)
def test_update_refuses_bad_input(metric, values, labels, message):
    with pytest.raises(ValueError, match=message):
        metric().update(values, labels)


def test_refuses_two_image_sizes():
    metric = PixelMetrics()
    metric.update(torch.rand(1, 4, 4), torch.zeros(1, 4, 4))
    with pytest.raises(ValueError, match="one size"):
        metric.update(torch.rand(1, 5, 4), torch.zeros(1, 5, 4))


def test_refuses_nan_maps():
    metric = PixelMetrics()
    metric.update(torch.full((1, 4, 4), math.nan), torch.zeros(1, 4, 4))
    with pytest.raises(ValueError, match="16 NaN or infinite"):
        metric.compute()


@pytest.mark.parametrize("options", [{"fpr_limit": 2.0}, {"connectivity": 5}])
def test_refuses_bad_options(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        PixelMetrics(**options)
