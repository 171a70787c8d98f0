"""Models that score texts learn, report their figures, and load with plain transformers."""

import pytest
import torch
from tokenizers import processors
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from swiftcore.errors import DataError, UsageError
from swiftcore.export import merge_adapter
from swiftcore.models import load_model, load_tokenizer
from swiftcore.recipe import TrainSection
from swiftcore.recipe.sections import MergeSection
from swiftcore.template import load_encoded
from swiftcore.training.metrics import read_lines
from swiftcore.training.objectives.embedding import pool
from swiftcore.training.objectives.ranking import RankingObjective
from swiftcore.training.objectives.samples import texts_of
from swiftcore.tuners import load_adapter
from tests.task_setup import (
    CLASSES,
    EMBEDDING,
    LABELS,
    LETTERS,
    NUMBERS,
    RERANKER,
    WRITER,
    class_rows,
    encode,
    likeness_rows,
    scoring_job,
    tiny_bert,
    user,
)
from tests.training_setup import folder_bytes, tiny_base, train_in_this_process

LORA = {"train_type": "lora", "lora_rank": 4, "lora_dropout": 0.0}


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("decoder") / "base")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return tiny_bert(tmp_path_factory.mktemp("encoder") / "base")


def first_text(job) -> torch.Tensor:
    return torch.tensor([texts_of(load_encoded(job.encoded_dir, "val")[0])[0]])


@pytest.mark.parametrize("base", ["decoder", "encoder"])
@pytest.mark.parametrize(
    ("task", "label", "figure", "least"),
    [
        (CLASSES, lambda number: number, "eval_acc", 0.9),
        (NUMBERS, lambda number: number / 2, "eval_pearson", 0.8),
        (LABELS, lambda number: [number, 2], "eval_f1", 0.6),
    ],
    ids=["classes", "numbers", "several"],
)
def test_a_classifier_learns_and_loads(base, task, label, figure, least, tmp_path, request):
    folder = request.getfixturevalue(base)
    rows = class_rows(96, label=label), class_rows(24, seed=1, label=label)
    rate = 3e-3 if base == "decoder" else 1e-2
    job = scoring_job(tmp_path / "job", folder, task, *rows, max_steps=40, learning_rate=rate)
    result = train_in_this_process(job)
    assert result.metrics["last_loss"] < 0.9 * result.metrics["first_loss"]
    # The encoder starts from weights so small that 40 steps teach it less.
    assert result.metrics[figure] > (least if base == "decoder" else 0.2)
    loaded = AutoModelForSequenceClassification.from_pretrained(job.out_dir)
    assert loaded.config.problem_type == task.problem_type
    ours = load_model(job.out_dir)(first_text(job)).logits
    assert torch.equal(loaded.eval()(first_text(job)).logits, ours)
    assert ours.shape == (1, task.num_labels)


@pytest.mark.parametrize("base", ["decoder", "encoder"])
def test_an_adapter_with_a_head_merges_into_a_plain_classifier(base, tmp_path, request):
    folder = request.getfixturevalue(base)
    job = scoring_job(
        tmp_path / "job", folder, CLASSES, class_rows(32), class_rows(8, 1), tuner=LORA
    )
    train_in_this_process(job)
    adapted = load_adapter(folder, job.out_dir)
    ids = first_text(job)
    report = merge_adapter(
        folder, job.out_dir, tmp_path / "merged", MergeSection(), sample_ids=ids.tolist()
    )
    assert report.max_logit_difference < 1e-5
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(merged(ids).logits, adapted(ids).logits, atol=1e-5, rtol=0)


def test_equal_seeds_give_equal_heads_and_others_do_not(decoder, tmp_path):
    made = []
    for name, seed in (("first", 3), ("second", 3), ("third", 4)):
        torch.rand(7)  # whatever ran before in this process
        rows = class_rows(16), class_rows(8, 1)
        job = scoring_job(
            tmp_path / name, decoder, CLASSES, *rows, tuner=LORA, max_steps=2, seed=seed
        )
        train_in_this_process(job)
        made.append(folder_bytes(job.out_dir)["adapter_model.safetensors"])
    assert made[0] == made[1]
    assert made[0] != made[2]


@pytest.mark.parametrize("tuner", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("base", ["decoder", "encoder"])
def test_embeddings_find_their_documents(base, tuner, tmp_path, request):
    """Seven documents: chance finds them at a reciprocal rank of 0.37."""
    folder = request.getfixturevalue(base)
    rows = likeness_rows(64), likeness_rows(14, 1)
    rate = 3e-3 if tuner is None else 5e-3
    job = scoring_job(
        tmp_path / "job", folder, EMBEDDING, *rows, tuner=tuner, learning_rate=rate, max_steps=30
    )
    found = train_in_this_process(job).metrics
    assert found["eval_mrr"] > 0.75
    assert found["eval_margin"] == pytest.approx(found["eval_mean_pos"] - found["eval_mean_neg"])
    assert (job.out_dir / "1_Pooling" / "config.json").is_file()
    if tuner is None:
        ids = first_text(job)
        with torch.no_grad():
            vector = AutoModel.from_pretrained(job.out_dir).eval()(ids).last_hidden_state
        pooling = "last" if base == "decoder" else "mean"
        assert pool(vector, torch.ones_like(ids), pooling).norm() == pytest.approx(1)


@pytest.mark.parametrize("loss", ["cosine_similarity", "contrastive", "online_contrastive"])
def test_losses_of_pairs_bring_like_texts_together(loss, decoder, tmp_path):
    rows = likeness_rows(32), likeness_rows(7, 1)
    job = scoring_job(tmp_path / "job", decoder, EMBEDDING, *rows, loss_type=loss, max_steps=40)
    result = train_in_this_process(job)
    assert result.metrics["last_loss"] < 0.7 * result.metrics["first_loss"]


@pytest.mark.parametrize("loss", ["pointwise_reranker", "listwise_reranker"])
@pytest.mark.parametrize("task", [RERANKER, WRITER], ids=["head", "words"])
def test_rerankers_put_fitting_documents_first(task, loss, decoder, tmp_path):
    rows = likeness_rows(64), likeness_rows(14, 1)
    words = LETTERS if task is WRITER else {}
    job = scoring_job(
        tmp_path / "job", decoder, task, *rows, loss_type=loss, learning_rate=1e-2, **words
    )
    result = train_in_this_process(job)
    assert result.metrics["last_loss"] < result.metrics["first_loss"]
    assert 0 < result.metrics["eval_mrr"] <= 1
    assert result.metrics["eval_margin"] > 0
    kind = AutoModelForCausalLM if task is WRITER else AutoModelForSequenceClassification
    assert kind.from_pretrained(job.out_dir).config.vocab_size


def test_an_encoder_is_told_which_text_of_a_pair_a_token_belongs_to(encoder):
    """The scores are those of plain transformers for what the tokenizer makes of the pair."""
    tokenizer = load_tokenizer(encoder)
    torch.manual_seed(0)
    words = tokenizer.backend_tokenizer
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    pairs = [("tell me about fox", "dog is here"), ("train", "Paris and weather is here")]
    rows = [
        {"messages": [user(query)], "positive_messages": [[user(document)]]}
        for query, document in pairs
    ]
    samples = [sample._asdict() for sample in encode(encoder, RERANKER, rows, template="bert")]
    given = [
        {**row, "input_ids": row["texts"][0], "sequence_lengths": [len(row["texts"][0])]}
        for row in samples
    ]
    model = AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=1).eval()
    # Untrained, all but nothing depends on the type.
    model.bert.embeddings.token_type_embeddings.weight.data.normal_()
    objective = RankingObjective(
        RERANKER, TrainSection(), pad_id=0, separator=tokenizer.sep_token_id, words=None
    )
    objective.install(model)
    batch = objective.collate(given)
    with torch.no_grad():
        found = model(**objective.inputs(batch))["scores"]
        plain = tokenizer(
            *zip(*pairs, strict=True), padding=True, return_tensors="pt", return_token_type_ids=True
        )
        assert plain["token_type_ids"].sum() == 4 + 6
        expected = type(model).forward(model, **plain).logits[:, 0]
        untyped = type(model).forward(model, **{**plain, "token_type_ids": None}).logits[:, 0]
    assert batch["input_ids"].equal(plain["input_ids"])
    assert torch.allclose(found, expected, atol=1e-6)
    assert not torch.allclose(found, untyped, atol=1e-4)


def test_accumulation_is_one_large_batch(decoder, tmp_path):
    """Of pointwise and listwise lists, which are not as many in each batch as there are rows."""
    rows = likeness_rows(16)
    del rows[3]["negative_messages"]
    losses = []
    for name, size, steps in (("whole", 8, 1), ("parts", 2, 4)):
        job = scoring_job(
            tmp_path / name,
            decoder,
            RERANKER,
            rows,
            likeness_rows(4),
            loss_type="listwise_reranker",
            per_device_train_batch_size=size,
            gradient_accumulation_steps=steps,
            max_steps=2,
        )
        train_in_this_process(job)
        lines = read_lines(job.work_dir / "metrics.jsonl")
        losses.append([line["loss"] for line in lines if "loss" in line])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_what_a_loss_can_not_learn_from_is_refused(decoder, tmp_path):
    alone = [{k: v for k, v in row.items() if k != "negative_messages"} for row in likeness_rows(4)]
    job = scoring_job(
        tmp_path / "one", decoder, EMBEDDING, alone, alone, per_device_train_batch_size=1
    )
    with pytest.raises(UsageError, match="nothing to tell a positive"):
        train_in_this_process(job)
    halves = [{**row, "label": 0.5} for row in alone]
    job = scoring_job(tmp_path / "two", decoder, EMBEDDING, halves, halves, loss_type="contrastive")
    with pytest.raises(DataError, match="not what the loss compares with"):
        train_in_this_process(job)
    job = scoring_job(tmp_path / "three", decoder, WRITER, likeness_rows(4), likeness_rows(4))
    with pytest.raises(UsageError, match="one token"):
        train_in_this_process(job)
