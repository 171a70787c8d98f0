"""Models of every task type: which class loads them, what of them is a head, how they are read.

A folder that training wrote says in `swift_task.json` what its model was trained to do; one without
the file is a causal language model.
"""

import shutil
from pathlib import Path
from typing import Any

from swiftcore.models.files import read_json, write_json
from swiftcore.models.generating import generating_class
from swiftcore.recipe.tasks import TEXT, Pooling, Task

TASK_FILE = "swift_task.json"
# How sentence-transformers, whose folders say it, names what we call last, mean and cls.
_POOLING_FILE = Path("1_Pooling") / "config.json"
_POOLING_KEYS: dict[Pooling, str] = {
    "last": "pooling_mode_lasttoken",
    "mean": "pooling_mode_mean_tokens",
    "cls": "pooling_mode_cls_token",
}


def read_task(folder: Path) -> Task:
    """Return what the model of a folder was trained to do."""
    file = folder / TASK_FILE
    return Task.model_validate(read_json(file)) if file.is_file() else TEXT


def write_task(folder: Path, task: Task) -> None:
    """Write what a model was trained to do beside its weights; nothing for text."""
    if task.is_text:
        return
    write_json(folder / TASK_FILE, task.model_dump(mode="json", exclude_none=True))


def copy_task(source: Path, target: Path) -> None:
    """Copy what a model was trained to do, and how it pools, from folder to folder."""
    for name in (Path(TASK_FILE), _POOLING_FILE):
        if (source / name).is_file():
            (target / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(source / name, target / name)


def auto_class(task: Task, folder: Path) -> Any:
    """Return the class of transformers that loads the model in a folder for a task."""
    import transformers

    if task.has_head:
        return transformers.AutoModelForSequenceClassification
    if task.task_type == "embedding":
        return transformers.AutoModel
    return generating_class(folder)


def head_options(task: Task) -> dict[str, Any]:
    """Return what a configuration is told about the head."""
    if not task.has_head:
        return {}
    options: dict[str, Any] = {"num_labels": task.num_labels}
    return options | ({"problem_type": task.problem_type} if task.problem_type else {})


def head_modules(model: Any) -> list[str]:
    """Return the names of the modules that make scores of hidden states, in a model with a head.

    They may be new, with random weights, so they are trained and saved whole beside any tuner.
    """
    body = model.base_model_prefix
    heads = [
        name
        for name, child in model.named_children()
        if name != body and any(True for _ in child.parameters())
    ]
    has_pooler = getattr(getattr(model, body, None), "pooler", None) is not None
    return [*heads, *(["pooler"] if has_pooler else [])]


def is_new_head(name: str, model: Any, task: Task) -> bool:
    """Tell whether a weight that a checkpoint lacks is one that training makes."""
    if task.is_text or task.task_type == "generative_reranker":
        return False
    inside = name.removeprefix(f"{model.base_model_prefix}.")
    return inside.startswith("pooler.") or (task.has_head and inside == name)


def resolve_pooling(model: Any, folder: Path, task: Task) -> Pooling:
    """Return how an embedding model pools: as asked for, as its folder says, or as it was built.

    Without a word, the last token stands for the text in a model that sees the past alone, and the
    mean of all tokens in one that sees both sides.
    """
    if task.pooling is not None:
        return task.pooling
    file = folder / _POOLING_FILE
    if file.is_file():
        said = read_json(file)
        for pooling, key in _POOLING_KEYS.items():
            if said.get(key):
                return pooling
    return "last" if sees_past_alone(model) else "mean"


def write_pooling(folder: Path, pooling: Pooling, width: int) -> None:
    """Write the files by which sentence-transformers reads a folder as an embedding model."""
    target = folder / _POOLING_FILE
    target.parent.mkdir(exist_ok=True)
    chosen = {key: name == pooling for name, key in _POOLING_KEYS.items()}
    write_json(target, {"word_embedding_dimension": width, **chosen})


def sees_past_alone(model: Any) -> bool:
    """Tell whether a token's hidden state is independent of the tokens after it."""
    import torch

    training = model.training
    model.eval()
    ids_BT = torch.tensor([[1, 2, 3], [1, 2, 4]], device=model.device)
    with torch.no_grad():
        states_BTD = model(input_ids=ids_BT).last_hidden_state
    model.train(training)
    first, second = states_BTD[:, 0].float()
    return bool(torch.allclose(first, second, atol=1e-3, rtol=1e-3))
