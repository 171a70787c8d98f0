"""Losses of scored texts, each the sum over its targets.

Shapes: B rows, N texts or pairs, C outputs, D width of an embedding. Embeddings have length 1, so
that products are cosines.
"""

import torch
from torch import Tensor
from torch.nn import functional

from swiftcore.recipe.sections import TrainSection

# Of sentence-transformers, in cosine distance.
_CONTRASTIVE_MARGIN = 0.5


def classification(logits_BC: Tensor, targets_BC: Tensor, problem_type: str | None) -> Tensor:
    """Return cross-entropy of a class, squared error, or binary cross-entropy of each class.

    The latter two are means over the outputs of a row.
    """
    if problem_type == "regression":
        return (logits_BC - targets_BC).square().mean(dim=1).sum()
    if problem_type == "multi_label_classification":
        losses_BC = functional.binary_cross_entropy_with_logits(
            logits_BC, targets_BC, reduction="none"
        )
        return losses_BC.mean(dim=1).sum()
    return functional.cross_entropy(logits_BC, targets_BC[:, 0].long(), reduction="sum")


def cosine_similarity(cosine_N: Tensor, likeness_N: Tensor) -> Tensor:
    """Return the squared error of cosines. Source: Sentence-BERT, arXiv:1908.10084."""
    return (cosine_N - likeness_N).square().sum()


def contrastive(cosine_N: Tensor, likeness_N: Tensor) -> Tensor:
    """Pull like pairs together, push others apart up to a margin.

    Source: Hadsell, Chopra, LeCun 2006, with cosine distance as in sentence-transformers.
    """
    distance_N = 1 - cosine_N
    pushed_N = functional.relu(_CONTRASTIVE_MARGIN - distance_N).square()
    return 0.5 * (likeness_N * distance_N.square() + (1 - likeness_N) * pushed_N).sum()


def online_contrastive(cosine_N: Tensor, likeness_N: Tensor) -> Tensor:
    """Return the contrastive loss of a batch's hard pairs.

    Hard are like pairs farther apart than the nearest unlike pair, and unlike pairs nearer than the
    farthest like one. Source: sentence-transformers' OnlineContrastiveLoss.
    """
    distance_N = 1 - cosine_N
    like, unlike = distance_N[likeness_N == 1], distance_N[likeness_N == 0]
    if not len(like) or not len(unlike):
        hard_like, hard_unlike = like, unlike
    else:
        hard_like = like[like > (unlike.min() if len(unlike) > 1 else like.mean())]
        hard_unlike = unlike[unlike < (like.max() if len(like) > 1 else unlike.mean())]
    pushed = functional.relu(_CONTRASTIVE_MARGIN - hard_unlike).square()
    return hard_like.square().sum() + pushed.sum()


def infonce(
    anchors_BD: Tensor,
    documents_ND: Tensor,
    owners_N: Tensor,
    keys_N: Tensor,
    train: TrainSection,
    counted: slice = slice(None),
) -> Tensor:
    """Return -log softmax of each anchor's positive among its negatives.

    Negatives are the row's own and, with `infonce_use_batch`, the documents of the other rows; on
    request also the other anchors, and other rows' documents against the positive. A negative that
    beats the positive by more than a margin, or equals it token by token, can be left out as false.

    Args:
        anchors_BD: embeddings of the anchors.
        documents_ND: embeddings of all documents; the first of each row is its positive.
        owners_N: row of each document, rising.
        keys_N: equal for equal documents.
        train: temperature and which negatives.
        counted: the anchors that the loss is summed over.

    Source: InfoNCE, arXiv:1807.03748; the mask and the further negatives, arXiv:2506.05176.
    """
    others_BD, all_rows_B = anchors_BD, torch.arange(len(anchors_BD), device=anchors_BD.device)
    anchors_BD, rows_B = anchors_BD[counted], all_rows_B[counted]
    positives_B = torch.searchsorted(owners_N, rows_B)
    is_own_BN = owners_N[None] == rows_B[:, None]
    is_positive_BN = torch.zeros_like(is_own_BN)
    is_positive_BN.scatter_(1, positives_B[:, None], True)
    cosines_BN = anchors_BD @ documents_ND.t()
    left_out_BN = torch.zeros_like(is_own_BN) if train.infonce_use_batch else ~is_own_BN
    parts = [(cosines_BN, left_out_BN)]
    if train.infonce_use_batch and train.infonce_include_qq:
        parts.append((anchors_BD @ others_BD.t(), all_rows_B[None] == rows_B[:, None]))
    if train.infonce_use_batch and train.infonce_include_dd:
        parts.append((documents_ND[positives_B] @ documents_ND.t(), is_own_BN))
    if train.infonce_mask_fake_negative:
        limit_B1 = cosines_BN[is_positive_BN][:, None] + train.infonce_fake_neg_margin
        parts = [(cosine, left_out | (cosine > limit_B1)) for cosine, left_out in parts]
        equals_BN = (keys_N[None] == keys_N[positives_B][:, None]) & ~is_positive_BN
        parts[0] = (cosines_BN, parts[0][1] | equals_BN)
    logits = [cosine.masked_fill(left_out, -torch.inf) for cosine, left_out in parts]
    all_logits = torch.cat(logits, dim=1) / train.infonce_temperature
    return functional.cross_entropy(all_logits.float(), positives_B, reduction="sum")


def pointwise(scores_N: Tensor, fits_N: Tensor) -> Tensor:
    """Return binary cross-entropy of each document on its own."""
    return functional.binary_cross_entropy_with_logits(scores_N, fits_N, reduction="sum")


def listwise(
    scores_N: Tensor, fits_N: Tensor, sizes_B: list[int], temperature: float, min_size: int
) -> Tensor:
    """Return -log softmax of each fitting document among those of its row that don't fit.

    Source: the top-one probability of ListNet (Cao et al. 2007), one list a fitting document.
    """
    total = scores_N.sum() * 0.0
    for scores, fits in zip(scores_N.split(sizes_B), fits_N.split(sizes_B), strict=True):
        against = scores[fits == 0]
        for score in scores[fits == 1]:
            if 1 + len(against) >= min_size:
                logits = torch.cat([score[None], against]) / temperature
                total = total - functional.log_softmax(logits, dim=0)[0]
    return total


def num_lists(fits_N: Tensor, sizes_B: list[int], min_size: int) -> int:
    """Return how many lists `listwise` adds up."""
    parts = [(int((fits == 1).sum()), int((fits == 0).sum())) for fits in fits_N.split(sizes_B)]
    return sum(like for like, unlike in parts if 1 + unlike >= min_size)
