"""New tokens and stretched positions: in the base, so that everything after it has them."""

import json

import pytest
import torch
from training_setup import folder_bytes, make_job, tiny_base, train_in_this_process, write_encoded
from transformers import GPT2Config, GPT2LMHeadModel

from swiftcore.artifacts import Store
from swiftcore.errors import RecipeError, UsageError
from swiftcore.export import merge_adapter
from swiftcore.models import load_model, load_tokenizer
from swiftcore.models.extension import Extension, extend_model, listed_tokens, rope_extension
from swiftcore.recipe import MergeSection, build_recipe
from swiftcore.stages import build_road
from swiftcore.stages.graph import STAGES

WORDS = ("<plan>", "</plan>")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("extension") / "base", vocab_size=330)


@pytest.fixture(scope="module")
def wider(base):
    figures = extend_model(base, base.parent / "wider", Extension(tokens=WORDS))
    assert figures["added_tokens"] == 2
    return base.parent / "wider"


def logits(model, ids, positions=None):
    with torch.no_grad():
        return model(
            input_ids=torch.tensor([ids]),
            position_ids=None if positions is None else torch.tensor([positions]),
            # With a mask, transformers takes a leap in positions for no border of rows.
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            use_cache=False,
        ).logits


def test_new_words_are_one_token_and_old_answers_stay(base, wider, tmp_path):
    tokenizer = load_tokenizer(wider)
    for word in WORDS:
        assert len(tokenizer.encode(word, add_special_tokens=False)) == 1
        encoded = tokenizer.encode(f"a {word} b")
        assert word in tokenizer.decode(encoded, skip_special_tokens=True)
    before, after = load_model(base), load_model(wider)
    rows = after.get_input_embeddings().weight.shape[0]
    assert rows % 128 == 0
    assert rows >= len(tokenizer) == len(load_tokenizer(base)) + 2
    assert after.config.vocab_size == rows
    ids = [40, 41, 42, 43]
    old = before.config.vocab_size
    assert torch.equal(logits(before, ids), logits(after, ids)[..., :old])
    extend_model(base, tmp_path / "again", Extension(tokens=WORDS))
    assert folder_bytes(tmp_path / "again") == folder_bytes(wider)
    with pytest.raises(UsageError, match="knows these tokens already"):
        extend_model(wider, tmp_path / "twice", Extension(tokens=WORDS))


def test_a_new_token_is_trained_and_merged(wider, tmp_path):
    new = load_tokenizer(wider).convert_tokens_to_ids(WORDS[0])
    ids = [40, 41, new, 42, 43]
    row = {"input_ids": ids, "labels": ids, "loss_scale": None, "row": 0}
    encoded = write_encoded(tmp_path / "encoded", [row] * 2)
    (encoded / "swift_template.json").unlink()
    job = make_job(
        tmp_path, wider, encoded, tuner={"modules_to_save": ["embed_tokens"]}, max_steps=2
    )
    train_in_this_process(job)
    merge_adapter(wider, job.out_dir, tmp_path / "merged", MergeSection(), sample_ids=[ids])
    tokenizer, merged = load_tokenizer(tmp_path / "merged"), load_model(tmp_path / "merged")
    assert tokenizer.convert_tokens_to_ids(WORDS[0]) == new
    row_before = load_model(wider).get_input_embeddings().weight[new]
    row_after = merged.get_input_embeddings().weight[new]
    assert not torch.equal(row_before, row_after)


def test_linear_stretching_divides_positions(base, tmp_path):
    extension = Extension(rope=rope_extension("linear"), max_positions=500)
    assert extend_model(base, tmp_path / "long", extension) == {"rope_factor": 2.0}
    plain, long = load_model(base), load_model(tmp_path / "long")
    assert long.config.max_position_embeddings == 500
    ids = [40, 41, 42, 43]
    stretched = logits(long, ids, [0, 2, 4, 6])
    assert torch.allclose(stretched, logits(plain, ids, [0, 1, 2, 3]), atol=1e-5)
    assert not torch.allclose(logits(long, ids), logits(plain, ids), atol=1e-3)


def test_yarn_dynamic_and_json(base, tmp_path):
    extend_model(base, tmp_path / "yarn", Extension((), rope_extension("yarn"), 1024))
    yarn = load_model(tmp_path / "yarn").config
    assert yarn.rope_parameters["factor"] == 4.0
    assert yarn.rope_parameters["original_max_position_embeddings"] == 256
    assert yarn.max_position_embeddings == 1024
    extend_model(base, tmp_path / "dynamic", Extension((), rope_extension("dynamic"), 512))
    dynamic = load_model(tmp_path / "dynamic").config
    assert dynamic.rope_parameters["rope_type"] == "dynamic"
    assert dynamic.max_position_embeddings == 256
    given = rope_extension('{"rope_type": "linear", "factor": 3.0}')
    extend_model(base, tmp_path / "json", Extension((), given))
    assert load_model(tmp_path / "json").config.max_position_embeddings == 768
    theta = {load_model(base).config.rope_parameters["rope_theta"]}
    assert theta == {yarn.rope_parameters["rope_theta"], dynamic.rope_parameters["rope_theta"]}


def test_positions_that_can_not_be_stretched_are_refused(base, tmp_path):
    with pytest.raises(UsageError, match="transformers refuses") as caught:
        extend_model(base, tmp_path / "a", Extension((), rope_extension("lineal"), 512))
    assert "linear" in caught.value.expected
    with pytest.raises(UsageError, match="no JSON object"):
        rope_extension("{linear}")
    GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=16)).save_pretrained(
        tmp_path / "gpt2"
    )
    with pytest.raises(UsageError, match="no rotary positions"):
        extend_model(tmp_path / "gpt2", tmp_path / "b", Extension((), rope_extension("linear"), 9))


def recipe(base, **model):
    rows = base.parent / "rows.jsonl"
    rows.write_text(json.dumps({"messages": [{"role": "user", "content": "hi"}]}))
    values = {"name": "more", "data": {"dataset": [str(rows)]}, "merge": {}}
    return build_recipe({**values, "model": {"model": str(base), **model}})


def test_every_later_step_starts_from_the_extended_base(base, tmp_path):
    (tmp_path / "words.txt").write_text("<plan> </plan>\n<plan>")
    loaded = recipe(base, new_special_tokens=[str(tmp_path / "words.txt"), "<note>"])
    road = build_road(loaded, Store(tmp_path / "store"))
    names = [step.stage.name for step in road.steps]
    assert names == ["ingest", "extend", "template", "train", "merge"]
    extend = road.step("extend")
    for stage in ("train", "merge"):
        assert road.step(stage).inputs["model"].step is extend
    assert road.step("template").inputs["tokenizer"].step is extend
    config = STAGES["extend"].config(loaded.recipe)
    assert config == {"tokens": ["<plan>", "</plan>", "<note>"]}
    plain = recipe(base).recipe
    assert STAGES["train"].config(loaded.recipe) == STAGES["train"].config(plain)
    with pytest.raises(UsageError, match="can't be read"):
        listed_tokens(["nowhere.txt"])


def test_a_stretch_without_a_length_and_a_length_without_a_stretch_are_refused(base):
    with pytest.raises(RecipeError, match=r"needs model\.max_model_len"):
        recipe(base, rope_scaling="yarn")
    with pytest.raises(RecipeError, match="does nothing without"):
        recipe(base, max_model_len=512)
