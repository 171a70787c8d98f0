"""Which objective a job has."""

from typing import TYPE_CHECKING, Any

from swiftcore.errors import UsageError
from swiftcore.training.distributed.world import World
from swiftcore.training.job import TrainJob
from swiftcore.training.objectives.causal import CausalObjective
from swiftcore.training.objectives.classifying import ClassifyingObjective
from swiftcore.training.objectives.embedding import EmbeddingObjective
from swiftcore.training.objectives.objective import Objective
from swiftcore.training.objectives.ranking import RankingObjective
from swiftcore.training.scored import pad_id_of
from swiftcore.training.token_figures import TokenFigures

if TYPE_CHECKING:
    from swiftcore.training.token_group import TokenGroup


def objective_for(
    job: TrainJob,
    *,
    tokenizer: Any = None,
    pad_id: int = 0,
    side_by_side: bool = False,
    group: "TokenGroup | None" = None,
    world: World | None = None,
) -> Objective:
    """Return the objective of a job.

    Args:
        job: whose task decides.
        tokenizer: names the token that fills short rows, and has the words by which a generative
            reranker answers.
        pad_id: token that fills short rows, where there is no tokenizer.
        side_by_side: rows of a batch form one sequence, instead of one padded line each.
        group: processes that share the tokens of each sequence.
        world: all processes, for losses that compare the rows of all.

    Raises:
        UsageError: such a word is not one token.
    """
    task, train = job.task, job.train
    pad_id = pad_id if tokenizer is None else pad_id_of(tokenizer)
    separator = getattr(tokenizer, "sep_token_id", None)
    if task.task_type == "seq_cls":
        return ClassifyingObjective(task, train, pad_id=pad_id, separator=separator)
    if task.task_type == "embedding":
        return EmbeddingObjective(task, train, pad_id=pad_id, world=world)
    if task.task_type == "reranker":
        return RankingObjective(task, train, pad_id=pad_id, separator=separator, words=None)
    if task.task_type == "generative_reranker":
        names = ("generative_reranker_positive_token", "generative_reranker_negative_token")
        fits, fits_not = (_token(tokenizer, getattr(train, name), name) for name in names)
        return RankingObjective(task, train, pad_id=pad_id, words=(fits, fits_not))
    figures = TokenFigures.of(job, "val")
    return CausalObjective(
        train, pad_id=pad_id, side_by_side=side_by_side, figures=figures, group=group
    )


def _token(tokenizer: Any, word: str, name: str) -> int:
    ids = tokenizer.encode(word, add_special_tokens=False)
    if len(ids) == 1:
        return ids[0]
    raise UsageError(
        "an answer of a generative reranker has to be one token",
        where=f"train.{name}",
        found=f"{word!r} is {len(ids)} tokens",
        expected="a word that this model's tokenizer keeps whole",
        do="choose another word",
    )
