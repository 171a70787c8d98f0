"""Tiny models, rows and jobs for the tests of models that score texts."""

import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from swiftcore.models import load_tokenizer
from swiftcore.recipe import TemplateSection
from swiftcore.recipe.tasks import Task
from swiftcore.template.dataset import resolve_template
from swiftcore.template.tasks.encoder import SampleEncoder
from swiftcore.template.tasks.folder import EncodedSample, SampleWriter
from tests.training_setup import make_job

WORDS = ("fox", "dog", "train", "Paris", "weather", "book", "seats")
PLAIN = ("tell", "me", "about", "is", "here", "and")
CLASSES = Task(task_type="seq_cls", num_labels=3, problem_type="single_label_classification")
NUMBERS = Task(task_type="seq_cls", num_labels=1, problem_type="regression")
LABELS = Task(task_type="seq_cls", num_labels=3, problem_type="multi_label_classification")
EMBEDDING = Task(task_type="embedding")
RERANKER = Task(task_type="reranker", num_labels=1)
WRITER = Task(task_type="generative_reranker")
# "yes" and "no" are no tokens of a vocabulary of 330.
LETTERS = {
    "generative_reranker_positive_token": "y",
    "generative_reranker_negative_token": "n",
}


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def class_rows(num_rows: int, seed: int = 0, label=lambda number: number) -> list[dict]:
    """Rows whose class is the word they begin with."""
    rng = random.Random(seed)
    numbers = [rng.randrange(3) for _ in range(num_rows)]
    return [
        {
            "messages": [user(f"{WORDS[number]} and {rng.choice(WORDS)}")],
            "label": label(number),
        }
        for number in numbers
    ]


def likeness_rows(num_rows: int, seed: int = 0) -> list[dict]:
    """Rows whose documents name the anchor's word, or another one."""
    rng = random.Random(seed)
    rows = []
    for number in range(num_rows):
        word = WORDS[number % len(WORDS)]
        others = rng.sample([other for other in WORDS if other != word], 2)
        rows.append(
            {
                "messages": [user(f"tell me about {word} {rng.randrange(9)}")],
                "positive_messages": [[user(f"{word} is here")]],
                "negative_messages": [[user(f"{other} is here")] for other in others],
            }
        )
    return rows


def tiny_bert(folder: Path) -> Path:
    """An encoder of two layers with a tokenizer of whole words and random weights."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    # Given, not learned: training a WordPiece model gives other pieces in each process.
    pieces = [*special, *(word.lower() for word in (*WORDS, *PLAIN)), *map(str, range(10))]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    words = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    words.normalizer = normalizers.BertNormalizer()
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.add_special_tokens(special)
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad", "unk", "cls", "sep", "mask"), special, strict=True))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, **{f"{name}_token": token for name, token in names.items()}
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=words.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def encode(base: Path, task: Task, rows: list[dict], **section) -> list[EncodedSample]:
    """Encode rows with the template of a base model; none of them may be dropped."""
    outcomes = list(outcomes_of(base, task, rows, **section))
    assert all(isinstance(outcome, EncodedSample) for outcome in outcomes), outcomes
    return outcomes


def outcomes_of(base: Path, task: Task, rows: list[dict], **section) -> list:
    """What becomes of rows: their tokens, or the reason they have none."""
    template = resolve_template(
        TemplateSection(**section),
        load_tokenizer(base),
        method="sft",
        model_type="bert" if (base / "vocab.txt").exists() else None,
        max_model_length=None,
    )
    return [outcome for _, outcome in SampleEncoder(template, task).encode([rows])]


def scoring_job(
    root: Path, base: Path, task: Task, rows: list[dict], val: list[dict], *, tuner=None, **train
):
    """A job on rows encoded with ChatML, or as plain text where the tokenizer has no ChatML."""
    root.mkdir(parents=True)
    tokens = load_tokenizer(base).get_vocab()
    section = {"template": "chatml" if "<|im_start|>" in tokens else "bert"}
    for split, given in (("train", rows), ("val", val)):
        with SampleWriter(root / f"{split}.parquet") as writer:
            for sample in encode(base, task, given, **section):
                writer.add(sample)
    settings = {
        "learning_rate": 3e-3,
        "per_device_train_batch_size": 8,
        "per_device_eval_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "max_steps": 20,
        "save_steps": 20,
        "logging_steps": 1,
        **train,
    }
    job = make_job(root, base, root, tuner=tuner or {"train_type": "full"}, **settings)
    return job.model_copy(update={"task": task})
