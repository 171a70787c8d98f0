"""GGUF: the file that is read back answers and cuts text as the model does."""

import json

import pytest
import torch
from training_setup import SHAPE, TEXTS, counting_model, tiny_base

from swiftcore.errors import GateRefused, UsageError
from swiftcore.export.gguf.vocabulary import TokenKind, read_vocabulary
from swiftcore.export.gguf.weights import interleaved
from swiftcore.models import load_model, load_tokenizer, model_facts

pytestmark = pytest.mark.road


@pytest.fixture(scope="module", params=["llama", "qwen2", "qwen3"])
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    base = tiny_base(
        folder / "base",
        architecture=request.param,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=request.param != "qwen2",
    )
    return counting_model(base, folder / "model")


@pytest.mark.parametrize("outtype", ["f32", "f16", "q8_0"])
def test_the_file_answers_as_the_model(model, tmp_path, outtype):
    gguf = pytest.importorskip("gguf")
    from swiftcore.export.gguf import export_gguf

    report = export_gguf(model, tmp_path / "m.gguf", outtype)
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    assert report.pre_tokenizer == "qwen2"
    assert report.num_tensors == len(reader.tensors)
    assert [file.name for file in tmp_path.iterdir()] == ["m.gguf"]
    embedding = next(t for t in reader.tensors if t.name == "token_embd.weight")
    expected = load_model(model).model.embed_tokens.weight.detach()
    found = torch.tensor(gguf.dequantize(embedding.data, embedding.tensor_type))
    # Half a step of the type: 11 bits of mantissa, or 127 to a block's largest, whose scale
    # is a 16-bit float.
    steps = {"f32": 0.0, "f16": 2.0**-11, "q8_0": 0.5 / 127 + 2.0**-11}[outtype]
    block_largest = expected.reshape(-1, 32).abs().amax(-1, keepdim=True).expand(-1, 32)
    limit = block_largest.reshape(expected.shape) * steps
    assert ((found - expected).abs() <= limit).all()
    has_head = any(tensor.name == "output.weight" for tensor in reader.tensors)
    assert has_head is not model_facts(model)["tied_embeddings"]
    assert report.kl_divergence < {"f32": 1e-9, "f16": 1e-5, "q8_0": 1e-2}[outtype]


def test_a_wrong_layout_is_refused(tmp_path, monkeypatch):
    pytest.importorskip("gguf")
    from swiftcore.export.gguf import export_gguf, weights

    model = tiny_base(tmp_path / "m", architecture="llama", initializer_range=0.5)
    monkeypatch.setattr(weights, "_ROTARY_INTERLEAVED", ())
    with pytest.raises(GateRefused, match="does not answer as the folder does"):
        export_gguf(model, tmp_path / "out" / "m.gguf", "f32")
    assert list((tmp_path / "out").iterdir()) == []


def test_rotary_pairs_become_neighbours():
    # Two heads of four rows: pairs (0, 2), (1, 3) within a head.
    weight = torch.arange(8.0).reshape(8, 1)
    assert interleaved(weight, 2).flatten().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_tokens_have_the_kind_that_llama_cpp_needs(tmp_path):
    base = tiny_base(tmp_path / "m")
    tokenizer = load_tokenizer(base)
    vocabulary = read_vocabulary(base, SHAPE["vocab_size"] + 2)
    kinds = dict(zip(vocabulary.tokens, vocabulary.kinds, strict=True))
    assert kinds["<|im_end|>"] == TokenKind.CONTROL
    assert kinds["<think>"] == TokenKind.USER_DEFINED
    assert vocabulary.tokens[-1] == f"[PAD{SHAPE['vocab_size'] + 1}]"
    assert vocabulary.kinds[-1] == TokenKind.UNUSED
    ids = tokenizer(TEXTS[0]).input_ids
    assert [vocabulary.tokens[index] for index in ids] == tokenizer.convert_ids_to_tokens(ids)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("pre_tokenizer", "pretokenizers", 0, "pattern", "Regex"), "pattern that llama.cpp"),
        (("model", "byte_fallback"), "no byte-level BPE"),
    ],
)
def test_a_tokenizer_that_llama_cpp_lacks_is_refused(tmp_path, change, words):
    base = tiny_base(tmp_path / "m")
    content = json.loads((base / "tokenizer.json").read_text())
    *path, last = change
    place = content
    for key in path:
        place = place[key]
    place[last] = "[a-z]+"
    (base / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=words):
        read_vocabulary(base, SHAPE["vocab_size"])
    with pytest.raises(UsageError, match="more tokens than the model"):
        read_vocabulary(tiny_base(tmp_path / "n"), 10)
