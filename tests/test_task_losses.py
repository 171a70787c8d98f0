"""Losses and figures of scored texts, against their formulas written out in plain Python."""

import math

import pytest
import torch
from scipy import stats
from sklearn import metrics as sklearn_metrics

from swiftcore.recipe import TrainSection
from swiftcore.training.objectives import figures, losses


def unit(rows: list[list[float]]) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.tensor(rows), dim=-1)


ANCHORS = unit([[1.0, 0.2, 0.0], [0.0, 1.0, 0.3]])
# Positive and two negatives of the first row, positive and one negative of the second.
DOCUMENTS = unit([[0.9, 0.1, 0.3], [0.8, 0.3, 0.1], [0.0, 0.4, 1], [0.1, 1, 0.2], [1, 0.3, 0]])
OWNERS = torch.tensor([0, 0, 0, 1, 1])
POSITIVES = [0, 3]


def by_hand(train: TrainSection, keys: list[int]) -> float:
    """InfoNCE with every option, from its definition, one exponential at a time."""

    def cosine(first, second) -> float:
        return sum(float(a) * float(b) for a, b in zip(first, second, strict=True))

    total = 0.0
    for row, anchor in enumerate(ANCHORS):
        positive = DOCUMENTS[POSITIVES[row]]
        own = cosine(anchor, positive)
        others: list[float] = []
        for place, document in enumerate(DOCUMENTS):
            if place == POSITIVES[row]:
                continue
            if not train.infonce_use_batch and OWNERS[place] != row:
                continue
            if train.infonce_mask_fake_negative and keys[place] == keys[POSITIVES[row]]:
                continue
            others.append(cosine(anchor, document))
        if train.infonce_include_qq:
            others += [cosine(anchor, other) for at, other in enumerate(ANCHORS) if at != row]
        if train.infonce_include_dd:
            others += [
                cosine(positive, document)
                for place, document in enumerate(DOCUMENTS)
                if OWNERS[place] != row
            ]
        if train.infonce_mask_fake_negative:
            others = [other for other in others if other <= own + train.infonce_fake_neg_margin]
        scale = train.infonce_temperature
        normaliser = sum(math.exp(value / scale) for value in [own, *others])
        total -= math.log(math.exp(own / scale) / normaliser)
    return total


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"infonce_temperature": 0.05, "infonce_use_batch": False},
        {"infonce_include_qq": True, "infonce_include_dd": True},
        {"infonce_mask_fake_negative": True, "infonce_fake_neg_margin": 0.01},
        {
            "infonce_mask_fake_negative": True,
            "infonce_fake_neg_margin": 0.0,
            "infonce_include_qq": True,
            "infonce_include_dd": True,
        },
    ],
    ids=str,
)
def test_infonce_is_its_definition(settings):
    train = TrainSection(**settings)
    keys = [7, 8, 9, 6, 7]  # the last document is the first row's positive, word by word
    found = losses.infonce(ANCHORS, DOCUMENTS, OWNERS, torch.tensor(keys), train)
    assert float(found) == pytest.approx(by_hand(train, keys), rel=1e-5)


def test_each_infonce_option_changes_the_loss():
    options = [
        {},
        {"infonce_use_batch": False},
        {"infonce_include_qq": True},
        {"infonce_include_dd": True},
        {"infonce_mask_fake_negative": True, "infonce_fake_neg_margin": 0.0},
    ]
    values = [by_hand(TrainSection(**option), [1, 2, 3, 4, 5]) for option in options]
    assert len({round(value, 6) for value in values}) == len(options)


COSINES = [0.9, 0.2, 0.6, 0.1, 0.75]
LIKENESS = [1.0, 1.0, 0.0, 0.0, 0.0]


def test_losses_of_pairs_are_their_formulas():
    cosine, likeness = torch.tensor(COSINES), torch.tensor(LIKENESS)
    pairs = list(zip(COSINES, LIKENESS, strict=True))
    squared = sum((c - y) ** 2 for c, y in pairs)
    assert float(losses.cosine_similarity(cosine, likeness)) == pytest.approx(squared)
    # Distances 0.1, 0.8 (like) and 0.4, 0.9, 0.25 (unlike); margin 0.5.
    expected = 0.5 * (0.1**2 + 0.8**2 + (0.5 - 0.4) ** 2 + 0 + (0.5 - 0.25) ** 2)
    assert float(losses.contrastive(cosine, likeness)) == pytest.approx(expected)
    # Hard: like pairs beyond 0.25, unlike pairs within 0.8.
    expected = 0.8**2 + (0.5 - 0.4) ** 2 + (0.5 - 0.25) ** 2
    assert float(losses.online_contrastive(cosine, likeness)) == pytest.approx(expected)


def test_classification_losses_are_their_formulas():
    logits, classes = [[0.5, -1.0, 2.0], [0.1, 0.2, -0.3]], [2, 0]
    expected = sum(
        math.log(sum(map(math.exp, row))) - row[label]
        for row, label in zip(logits, classes, strict=True)
    )
    targets = torch.tensor(classes)[:, None].float()
    found = losses.classification(torch.tensor(logits), targets, "single_label_classification")
    assert float(found) == pytest.approx(expected)
    several = [[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]
    expected = sum(
        -math.log(1 / (1 + math.exp(-x if y else x))) / 3
        for row, labels in zip(logits, several, strict=True)
        for x, y in zip(row, labels, strict=True)
    )
    found = losses.classification(
        torch.tensor(logits), torch.tensor(several), "multi_label_classification"
    )
    assert float(found) == pytest.approx(expected)
    found = losses.classification(
        torch.tensor([[1.5], [0.0]]), torch.tensor([[1.0], [2.0]]), "regression"
    )
    assert float(found) == pytest.approx(0.25 + 4.0)


def test_reranker_losses_are_their_formulas():
    scores = [2.0, 0.5, -1.0, 0.3, 0.7, 1.1]
    fits = [1.0, 1.0, 0.0, 0.0, 1.0, 1.0]
    sizes = [4, 2]
    given = (torch.tensor(scores), torch.tensor(fits))
    expected = sum(
        math.log(1 + math.exp(-s if f else s)) for s, f in zip(scores, fits, strict=True)
    )
    assert float(losses.pointwise(*given)) == pytest.approx(expected)
    # Two lists of the first query; the second query has nothing that does not fit.
    expected = sum(
        math.log(sum(math.exp(other / 0.5) for other in (own, -1.0, 0.3))) - own / 0.5
        for own in (2.0, 0.5)
    )
    assert float(losses.listwise(*given, sizes, 0.5, 2)) == pytest.approx(expected, rel=1e-6)
    assert losses.num_lists(given[1], sizes, 2) == 2
    assert losses.num_lists(given[1], sizes, 4) == 0


def test_figures_agree_with_scipy_and_sklearn():
    first = torch.tensor([0.1, 0.4, 0.4, 0.9, 0.2, 0.5], dtype=torch.float64)
    second = torch.tensor([1.0, 3.0, 2.0, 5.0, 2.0, 2.0], dtype=torch.float64)
    assert figures.pearson(first, second) == pytest.approx(stats.pearsonr(first, second)[0])
    assert figures.spearman(first, second) == pytest.approx(stats.spearmanr(first, second)[0])
    assert figures.spearman(first, torch.ones(6).double()) is None
    predicted, expected = torch.tensor([0, 2, 1, 1, 0, 2]), torch.tensor([0, 2, 1, 0, 0, 1])
    classes = torch.arange(4)
    found = figures.macro_f1(predicted[:, None] == classes, expected[:, None] == classes)
    assert found == pytest.approx(sklearn_metrics.f1_score(expected, predicted, average="macro"))
    assert figures.accuracy(predicted, expected) == pytest.approx(4 / 6)
    scores = torch.tensor([0.3, 0.9, 0.1, 0.5], dtype=torch.float64)
    fits = torch.tensor([True, False, True, False])
    found = figures.ndcg(scores, fits, 3)
    assert found == pytest.approx(sklearn_metrics.ndcg_score([fits.int().numpy()], [scores], k=3))
    assert figures.reciprocal_rank(scores, fits) == pytest.approx(1 / 3)


def test_a_score_that_tells_nothing_apart_ranks_last():
    fits = torch.tensor([True, False, False])
    assert figures.reciprocal_rank(torch.zeros(3), fits) == pytest.approx(1 / 3)
    assert figures.ndcg(torch.zeros(3), fits) == pytest.approx(1 / math.log2(4))
