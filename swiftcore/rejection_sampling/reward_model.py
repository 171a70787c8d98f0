"""A reward model: a head with one output that says how good an answer to a conversation is."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swiftcore.errors import ArtifactDamaged, DataError, UsageError
from swiftcore.models.facts import safetensors_header
from swiftcore.models.files import read_json, require_model_folder
from swiftcore.models.tasks import read_task
from swiftcore.recipe.tasks import Task

if TYPE_CHECKING:
    from swiftcore.inference.scored import ModelInFolders, Scorer

Conversation = Sequence[dict[str, Any]]

_TASK = Task(task_type="seq_cls", num_labels=1, problem_type="regression")


class RewardModel:
    """Scores conversations that end with an answer.

    Args:
        scorer: the loaded model and its template.
        batch_size: conversations scored together.
    """

    def __init__(self, scorer: "Scorer", batch_size: int) -> None:
        config = scorer.model.config.get_text_config()
        self._scorer = scorer
        self._longest: int | None = getattr(config, "max_position_embeddings", None)
        # Without a token to pad with the model can't tell where a shorter text ends.
        self._batch_size = 1 if config.pad_token_id is None else batch_size

    @classmethod
    def load(
        cls,
        asked: "ModelInFolders",
        *,
        device: str = "cpu",
        num_threads: int | None = None,
        batch_size: int,
    ) -> "RewardModel":
        """Load a model's folder, with an adapter over it where there is one.

        Raises:
            ModelMissing: there is no model in the folder.
            UsageError: it has another task than to give one score.
            ArtifactDamaged: its head is missing; loading alone would make up a random one.
        """
        import torch

        from swiftcore.inference.scored import Scorer
        from swiftcore.models import load_model
        from swiftcore.models.tasks import head_modules

        if num_threads:
            torch.set_num_threads(num_threads)
        task = require_one_output(asked.model_dir, asked.adapter_dir)
        if asked.adapter_dir is not None or not read_task(asked.model_dir).is_text:
            return cls(Scorer.load(asked, task, device=device), batch_size)
        model = load_model(asked.model_dir, device=device, dtype=asked.dtype, task=task)
        _require_head(asked.model_dir, head_modules(model))
        return cls(Scorer(model, task, asked.template), batch_size)

    def score(self, conversations: Sequence[Conversation]) -> list[float | None]:
        """Return a score of each conversation; None for one that the model can't read whole."""
        encoded = [self._ids(conversation) for conversation in conversations]
        places = [place for place, ids in enumerate(encoded) if ids]
        # Conversations of a length are scored together, the longest first.
        places.sort(key=lambda place: -len(encoded[place]))
        scores: list[float | None] = [None] * len(encoded)
        for start in range(0, len(places), self._batch_size):
            group = places[start : start + self._batch_size]
            found = self._scorer.scores([encoded[place] for place in group])
            for place, values in zip(group, found, strict=True):
                scores[place] = float(values[0])
        return scores

    def _ids(self, conversation: Conversation) -> list[int]:
        """Return the tokens of a conversation; none where it is longer than the model reads."""
        from swiftcore.template.tasks.encoder import SampleEncoder

        try:
            (ids,) = SampleEncoder(self._scorer.template, _TASK).tokens([[*conversation]])
        except DataError:
            return []
        return [] if self._longest is not None and len(ids) > self._longest else ids


def require_one_output(folder: Path, adapter: Path | None = None) -> Task:
    """Return the task of a reward model.

    A folder that was trained here says its task; of others their configuration tells.

    Raises:
        ModelMissing: there is no model in the folder.
        UsageError: it has another task.
    """
    config = read_json(require_model_folder(folder) / "config.json")
    said = read_task(adapter or folder)
    named = [str(name) for name in config.get("architectures") or ()]
    # transformers leaves the labels out where there are two, its default.
    num_labels = said.num_labels or len(config.get("id2label") or (0, 1))
    classifies = any(name.endswith("ForSequenceClassification") for name in named)
    if num_labels == 1 and (said == _TASK or (said.is_text and classifies and adapter is None)):
        return _TASK
    raise UsageError(
        "This is no reward model.",
        where=f"prm_model: {adapter or folder}",
        found=f"{', '.join(named) or 'no architecture'}, trained for {said.kind}"
        + ("" if num_labels == 1 else f", {num_labels} outputs"),
        expected="a sequence classifier with one output",
        do="train one with task_type seq_cls and num_labels 1, or name a registered reward",
    )


def _require_head(folder: Path, names: Sequence[str]) -> None:
    stored = {key for file in folder.glob("*.safetensors") for key in safetensors_header(file)}
    if not any(key.startswith(f"{name}.") for key in stored for name in names):
        raise ArtifactDamaged(
            "The reward model has no head.",
            where=f"prm_model: {folder}",
            found=f"no weight of {', '.join(names)}",
            expected="the weights of the output beside those of the body",
            do="complete the copy, or train the model",
        )
