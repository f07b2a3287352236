import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from fdsl.category import CategoryTest
from fdsl.scoring import anomaly_map, score_maps


def test_figures_are_those_of_scikit_learn_however_images_are_batched():
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(3, 10, 5, 5, generator=generator)
    masks = (torch.rand(10, 20, 20, generator=generator) > 0.8).to(torch.uint8)
    labels = torch.tensor([0, 1] * 5)
    masks[labels == 0] = 0
    visible = torch.ones(10, dtype=torch.bool)
    results = []
    for size in (10, 3):
        test = CategoryTest(("fdsl",), "transductive")
        for i in range(0, 10, size):
            part = slice(i, i + size)
            paths = [f"{j}.png" for j in range(10)][part]
            test.update({"fdsl": score_maps(maps[:, part], 20)}, paths, labels[part], masks[part], visible[part])
        results.append(test.finish())
    assert results[0].metrics == results[1].metrics
    figures = results[0].metrics["fdsl"]
    pixels = anomaly_map(maps, 20)
    s1 = maps.amax(dim=(2, 3)).mean(0).double()
    s2 = pixels.amax(dim=(1, 2)).double()
    score = (s1 + (s2 - s2.min()) / (s2.max() - s2.min())) / 2
    assert figures["image_auroc"] == pytest.approx(roc_auc_score(labels, score))
    assert figures["pixel_auroc"] == pytest.approx(roc_auc_score(masks.flatten(), pixels.flatten()))
    assert figures["pixel_ap"] == pytest.approx(average_precision_score(masks.flatten(), pixels.flatten()))
