import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from fdsl.metrics import auroc, average_precision, f1_max, ranked_counts, ranking_metrics

# Few distinct values make heavy ties, many make almost none.
EXAMPLES = st.integers(2, 40).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 4).map(lambda k: k / 4) | st.floats(-1e6, 1e6, width=32), min_size=n, max_size=n),
        st.lists(st.integers(0, 1), min_size=n, max_size=n).filter(lambda labels: 0 < sum(labels) < len(labels)),
    )
)


def sklearn_metrics(scores, labels):
    precision, recall, _ = precision_recall_curve(labels, scores)
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    return {
        "auroc": roc_auc_score(labels, scores),
        "f1max": f1.max(),
        "ap": average_precision_score(labels, scores),
    }


@settings(max_examples=200, deadline=None)
@given(EXAMPLES)
def test_equals_scikit_learn(example):
    scores, labels = (np.array(part) for part in example)
    actual = ranking_metrics(torch.from_numpy(scores), torch.from_numpy(labels))
    assert actual == pytest.approx(sklearn_metrics(scores, labels), abs=1e-12)


@pytest.mark.parametrize("levels", [2, 7, 1000, None])
def test_equals_scikit_learn_on_many_pixels(levels):
    rng = np.random.default_rng(0)
    labels = (rng.random((20, 50, 50)) < 0.03).astype(np.uint8)
    scores = (rng.random(labels.shape) + 0.3 * labels).astype(np.float32)
    if levels is not None:
        scores = np.floor(scores * levels).astype(np.float32)
    actual = ranking_metrics(torch.from_numpy(scores), torch.from_numpy(labels))
    assert actual == pytest.approx(sklearn_metrics(scores.ravel(), labels.ravel()), abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("label_dtype", [torch.bool, torch.uint8, torch.int64, torch.float32])
def test_types(dtype, label_dtype):
    scores = torch.tensor([0.5, 0.25, 0.5, 1.0], dtype=dtype)
    labels = torch.tensor([1, 0, 0, 1]).to(label_dtype)
    assert ranking_metrics(scores, labels) == pytest.approx({"auroc": 0.875, "f1max": 0.8, "ap": 5 / 6})


def test_counts_by_hand():
    scores = torch.tensor([0.9, 0.5, 0.7, 0.5, 0.1])
    labels = torch.tensor([1, 1, 0, 0, 1])
    counts = ranked_counts(scores, labels)
    assert counts.true_positives.tolist() == [0, 1, 1, 2, 3]
    assert counts.false_positives.tolist() == [0, 0, 1, 2, 2]
    assert counts.ranked_positives.tolist() == [0, 1, 4]
    assert counts.true_positives.dtype == torch.float64


def test_thresholds_between_negatives_are_left_out():
    scores = torch.arange(10.0)
    labels = (scores == 5).long()
    counts = ranked_counts(scores, labels)
    assert counts.true_positives.tolist() == [0, 0, 1, 1]
    assert counts.false_positives.tolist() == [0, 4, 4, 9]


def test_counts_stay_exact_beyond_float32():
    # float32 has no 2**24 + 1: a single-precision count of the negatives would stop there.
    n = 2**24 + 3
    scores, labels = torch.zeros(n), torch.zeros(n, dtype=torch.uint8)
    scores[-1], labels[-1] = -1.0, 1
    counts = ranked_counts(scores, labels)
    assert counts.false_positives[-1].item() == n - 1
    assert average_precision(counts) == 1 / n
    assert auroc(counts) == 0.0


def test_perfect_and_constant_scores():
    labels = torch.tensor([0, 1, 0, 1])
    assert ranking_metrics(labels.float(), labels) == {"auroc": 1.0, "f1max": 1.0, "ap": 1.0}
    assert ranking_metrics(torch.zeros(4), labels) == pytest.approx({"auroc": 0.5, "f1max": 2 / 3, "ap": 0.5})


def test_signed_zeros_tie():
    assert auroc(ranked_counts(torch.tensor([0.0, -0.0]), torch.tensor([1, 0]))) == 0.5


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("n", [1, 3])
def test_one_class_is_nan(label, n):
    counts = ranked_counts(torch.rand(n), torch.full((n,), label))
    assert all(math.isnan(metric(counts)) for metric in (auroc, f1_max, average_precision))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_refuses_scores_without_rank(value):
    scores = torch.zeros(2, 3)
    scores[1, 2] = value
    with pytest.raises(ValueError, match=r"1 NaN or infinite values of 6, the first at index \(1, 2\)"):
        ranked_counts(scores, torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (torch.zeros(3), torch.zeros(2), "same shape"),
        (torch.zeros(0), torch.zeros(0), "empty"),
        (torch.zeros(2, dtype=torch.int64), torch.zeros(2), "floating point"),
        (torch.zeros(2), torch.tensor([0, 255]), "values from 0 to 255"),
        (torch.zeros(2), torch.tensor([0.0, 0.5]), "values from 0.0 to 0.5"),
    ],
)
def test_refuses_bad_input(scores, labels, message):
    with pytest.raises(ValueError, match=message):
        ranked_counts(scores, labels)


def test_leaves_its_input_alone():
    scores, labels = torch.rand(9), torch.arange(9) % 2
    before = scores.clone(), labels.clone()
    ranking_metrics(scores, labels)
    assert torch.equal(scores, before[0])
    assert torch.equal(labels, before[1])
