"""Building models, loading them, and refusing what is no model."""

import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from training_setup import SHAPE, TEXTS, folder_bytes, tiny_base

from swiftcore.errors import ArtifactDamaged, DataError, ModelMissing, UsageError
from swiftcore.models import (
    build_scratch,
    load_adapted_model,
    load_model,
    load_tokenizer,
    model_facts,
)
from swiftcore.models.files import same_tokenizer
from swiftcore.recipe import ScratchModel

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture
def copy(base, tmp_path):
    return Path(shutil.copytree(base, tmp_path / "copy"))


def test_scratch_models_are_equal_byte_for_byte_in_another_process(base, tmp_path):
    code = (
        "import json, sys; from pathlib import Path\n"
        "from swiftcore.models import build_scratch; from swiftcore.recipe import ScratchModel\n"
        "folder, shape, texts = sys.argv[1], *map(json.loads, sys.argv[2:])\n"
        "build_scratch(ScratchModel(**shape), Path(folder), texts=texts)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "RAYON_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-c", code, tmp_path / "again", json.dumps(SHAPE), json.dumps(TEXTS)],
        env=environment,
        check=True,
        capture_output=True,
    )
    assert folder_bytes(base) == folder_bytes(tmp_path / "again")


@pytest.mark.parametrize("architecture", ["qwen3", "qwen2", "llama"])
@pytest.mark.parametrize("tied", [True, False])
def test_scratch_model_loads_with_plain_from_pretrained(tmp_path, architecture, tied):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tiny_base(tmp_path / "m", architecture=architecture, tie_word_embeddings=tied)
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert model.config.model_type == architecture
    assert model.config.eos_token_id == tokenizer.eos_token_id == stop
    assert tokenizer.pad_token == "<|endoftext|>"
    assert model.generation_config.eos_token_id == [stop, tokenizer.pad_token_id]
    facts = model_facts(folder)
    assert facts["parameters"] == sum(p.numel() for p in model.parameters())
    assert facts["tied_embeddings"] is tied
    assert facts["vocab_size"] == len(tokenizer)
    assert facts["max_position_embeddings"] == 256
    assert facts["dtype"] == "float32"


def test_another_seed_gives_other_weights_and_leaves_the_global_generator_alone(base, tmp_path):
    import torch

    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    other = tiny_base(tmp_path / "other", seed=1)
    assert torch.equal(torch.rand(1), expected)
    name = "model.safetensors"
    assert (other / name).read_bytes() != (base / name).read_bytes()
    assert (other / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()


def test_tokenizer_round_trips_any_text_and_keeps_its_own_words_whole(base):
    tokenizer = load_tokenizer(base)
    text = "Überraschung 🚀\r\n\tnull\x00 中文 12345 <b>"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    special = set(tokenizer.all_special_tokens)
    for word in ("<think>", "</tool_call>", "<tool_response>"):
        assert len(tokenizer.encode(word)) == 1
        assert word not in special
    assert {"<|im_start|>", "<|im_end|>", "<|endoftext|>"} <= set(tokenizer.get_added_vocab())


TOOL = {"type": "function", "function": {"name": "add", "parameters": {"z": 1, "a": "ä"}}}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"b": 2, "a": 1}}}
CONVERSATIONS = {
    "plain": {"conversation": [{"role": "user", "content": "hi"}], "add_generation_prompt": True},
    "system": {
        "conversation": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "hi"},
            {"role": "system", "content": "Now be long."},
            {"role": "assistant", "content": "ok"},
        ]
    },
    "tools": {
        "tools": [TOOL, TOOL],
        "conversation": [
            {"role": "user", "content": "1+2?"},
            {"role": "assistant", "content": "", "tool_calls": [CALL, CALL]},
            {"role": "tool", "content": "3"},
            {"role": "tool", "content": "4"},
            {"role": "assistant", "content": "3 and 4"},
            {"role": "user", "content": "again"},
            {"role": "assistant", "content": "Sure.", "tool_calls": [CALL]},
            {"role": "tool", "content": "5"},
        ],
        "add_generation_prompt": True,
    },
    "tools with system": {
        "tools": [TOOL],
        "conversation": [{"role": "system", "content": "S"}, {"role": "user", "content": "u"}],
    },
}


def test_chat_template_renders_tools_as_published(base):
    text = load_tokenizer(base).apply_chat_template(**CONVERSATIONS["tools"], tokenize=False)
    assert text.startswith(
        "<|im_start|>system\n\n\n# Tools\n\n"
        "You may call one or more functions to assist with the user query.\n\n"
    )
    assert '\n{"type": "function", "function": {"name": "add", "parameters": {"z": 1' in text
    assert (
        '<|im_start|>assistant\n<tool_call>\n{"name": "add", "arguments": {"b": 2, "a": 1}}\n'
        "</tool_call>\n<tool_call>" in text
    )
    assert (
        "<|im_start|>user\n<tool_response>\n3\n</tool_response>\n<tool_response>\n4\n"
        "</tool_response><|im_end|>\n" in text
    )
    assert text.endswith("</tool_response><|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_chat_template_equals_the_published_one(base, name):
    published = SHARED / "chat_templates/qwen2.5/llamacpp__Qwen-Qwen2.5-7B-Instruct.jinja"
    if not published.is_file():
        pytest.skip("../shared/data is not here")
    tokenizer = load_tokenizer(base)
    case = dict(CONVERSATIONS[name])
    if case["conversation"][0]["role"] != "system":  # theirs would add Qwen's own system prompt
        case["conversation"] = [{"role": "system", "content": "S"}, *case["conversation"]]
    ours = tokenizer.apply_chat_template(**case, tokenize=False)
    theirs = tokenizer.apply_chat_template(
        **case, tokenize=False, chat_template=published.read_text()
    )
    assert ours == theirs


def test_word_pattern_that_is_no_regex_is_refused(tmp_path):
    with pytest.raises(UsageError, match="impossible") as caught:
        tiny_base(tmp_path / "m", word_pattern="[")
    assert "word_pattern" in (caught.value.found or "")


def test_packed_tokenizer_is_adopted_with_its_ids(base, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    with gzip.open(source / "tokenizer.json.gz", "wb") as packed:
        packed.write((base / "tokenizer.json").read_bytes())
    shutil.copyfile(base / "tokenizer_config.json", source / "tokenizer_config.json")
    folder = build_scratch(ScratchModel(**SHAPE, tokenizer=str(source)), tmp_path / "model")
    adopted, original = load_tokenizer(folder), load_tokenizer(base)
    assert adopted.get_vocab() == original.get_vocab()
    config = json.loads((folder / "config.json").read_text())
    assert config["vocab_size"] % 64 == 0
    assert config["vocab_size"] >= len(original)


def test_tokenizers_are_the_same_when_all_their_files_are(base, copy):
    assert same_tokenizer(base, base)
    assert same_tokenizer(base, copy)
    (copy / "chat_template.jinja").write_text("{{ messages }}")
    assert not same_tokenizer(base, copy)
    (copy / "chat_template.jinja").unlink()
    assert not same_tokenizer(base, copy)
    assert not same_tokenizer(copy, base)


def test_impossible_shapes_are_refused_all_at_once(tmp_path):
    spec = ScratchModel(hidden_size=30, num_attention_heads=4, num_key_value_heads=3)
    with pytest.raises(UsageError) as caught:
        build_scratch(spec, tmp_path / "m", texts=TEXTS)
    assert "no multiple of num_attention_heads" in str(caught.value)
    assert "no multiple of num_key_value_heads" in str(caught.value) or "num_key_value" in str(
        caught.value
    )


def test_tokenizer_without_text_is_refused(tmp_path):
    with pytest.raises(DataError, match="without text"):
        build_scratch(ScratchModel(**SHAPE), tmp_path / "m", texts=["", ""])


def test_missing_model_says_what_to_do(tmp_path):
    with pytest.raises(ModelMissing) as caught:
        load_model(tmp_path / "nowhere")
    assert caught.value.do
    assert "nowhere" in caught.value.where
    with pytest.raises(ModelMissing, match=r"config\.json is missing"):
        load_model(tmp_path)
    with pytest.raises(ModelMissing, match="no tokenizer"):
        load_tokenizer(tmp_path)


def test_pickled_weights_are_refused(copy):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(UsageError, match="only safetensors"):
        load_model(copy)


def test_model_without_a_tensor_is_refused(copy):
    from safetensors.torch import load_file, save_file

    tensors = load_file(copy / "model.safetensors")
    removed = "model.layers.1.mlp.up_proj.weight"
    del tensors[removed]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ArtifactDamaged, match="1 weights are missing") as caught:
        load_model(copy)
    assert removed in caught.value.found


def test_cut_off_weights_are_refused(copy):
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ArtifactDamaged):
        load_model(copy)
    with pytest.raises(ArtifactDamaged, match="cut off"):
        model_facts(copy)


def test_code_in_a_model_folder_is_never_run(copy):
    config = json.loads((copy / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoModelForCausalLM": "evil.Evil"}}
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "evil.py").write_text("from pathlib import Path\nPath('ran').touch()\nclass Evil: pass")
    with pytest.raises(UsageError, match="never run"):
        load_model(copy)
    assert not Path("ran").exists()


def test_adapter_of_another_shape_is_refused(base, tmp_path):
    from swiftcore.recipe import TunerSection
    from swiftcore.tuners import prepare_model

    other = tiny_base(tmp_path / "other", hidden_size=48, num_hidden_layers=1)
    adapted = prepare_model(load_model(other), TunerSection())
    adapted.save_pretrained(tmp_path / "adapter")
    with pytest.raises(UsageError, match="does not fit"):
        load_adapted_model(base, tmp_path / "adapter")
    fitting = load_adapted_model(other, tmp_path / "adapter")
    assert not fitting.training
    with pytest.raises(ModelMissing, match="no adapter here"):
        load_adapted_model(base, base)


def test_importing_the_packages_does_not_import_torch():
    code = (
        "import sys, swiftcore.models, swiftcore.tuners, swiftcore.training, swiftcore.export;"
        "heavy = {'torch', 'transformers', 'peft', 'pyarrow', 'matplotlib'} & set(sys.modules);"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
