"""Writing a model folder as one GGUF file, and proof that the file holds the same model."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from swiftcore.errors import EnvironmentMissing, GateRefused, UsageError
from swiftcore.export.gguf.vocabulary import Vocabulary, read_vocabulary
from swiftcore.export.gguf.weights import Outtype, WeightReader
from swiftcore.models.files import read_json, require_model_folder
from swiftcore.models.loading import is_quantized, load_model, load_tokenizer
from swiftcore.models.quiet import without_progress_bars
from swiftcore.progress import Progress, Silent

if TYPE_CHECKING:
    import gguf
    from torch import nn
    from transformers import PreTrainedTokenizerBase

MODEL_TYPES = ("llama", "qwen2", "qwen3")
# Largest mean divergence from the unconverted model, in nats a token: rounding stays far below, a
# wrong layout or a missing tensor lies far above.
_MAX_DIVERGENCE = {"f32": 1e-6, "f16": 1e-3, "bf16": 1e-2, "q8_0": 2e-2}
_CHECK_TEXTS = (
    "The quick brown fox jumps over the lazy dog, 1234567 times; isn't it?",
    "def add(a, b):\n    return a + b\n\n\n\tGrüße aus Köln, 東京 и Москва 🙂  end  ",
)


@dataclass(frozen=True)
class GgufReport:
    """What was written: `kl_divergence` is that of the file's model from the folder's, in nats."""

    path: Path
    outtype: str
    pre_tokenizer: str
    num_tensors: int
    size_bytes: int
    kl_divergence: float


def export_gguf(
    model_dir: Path, file: Path, outtype: Outtype = "f16", *, progress: Progress | None = None
) -> GgufReport:
    """Write a model as GGUF, read it back, and compare tokens and next-token distributions.

    Args:
        model_dir: unquantized model folder of the Llama, Qwen2 or Qwen3 family.
        file: where to; replaced whole or not at all.
        outtype: type of the matrices; norms and biases stay in float32.
        progress: told each of the two steps.

    Raises:
        ModelMissing: there is no model in the folder.
        UsageError: the family, its rotary scaling or its tokenizer can't be written.
        EnvironmentMissing: the gguf package is not installed.
        GateRefused: what was read back differs from the model.
    """
    watch = progress or Silent()
    config = _known_config(model_dir)
    vocabulary = read_vocabulary(model_dir, config["vocab_size"])
    tokenizer = load_tokenizer(model_dir)
    weights = WeightReader(model_dir, config, outtype)
    temporary = file.with_name(f".{uuid4().hex[:8]}.{file.name}")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        watch.update(0, 2, f"writing {outtype}")
        count = _write(temporary, model_dir, config, vocabulary, tokenizer, weights, outtype)
        watch.update(1, 2, "comparing")
        _refuse_other_tokens(temporary, tokenizer)
        divergence = _divergence(model_dir, temporary, tokenizer)
        _refuse_divergence(divergence, outtype)
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
    watch.update(2, 2, f"divergence {divergence:.1e}")
    size = file.stat().st_size
    return GgufReport(file, outtype, vocabulary.pre_tokenizer, count, size, divergence)


def _known_config(model_dir: Path) -> dict[str, Any]:
    require_model_folder(model_dir)
    if find_spec("gguf") is None:
        raise EnvironmentMissing(
            "writing GGUF needs the gguf package",
            where="gguf",
            do="pip install 'swiftcore[export]'",
        )
    config = read_json(model_dir / "config.json")
    if is_quantized(model_dir):
        raise UsageError(
            "a quantized model can't be written as GGUF",
            where=model_dir,
            do="give the unquantized model; --to_gguf q8_0 quantizes it",
        )
    if config.get("model_type") not in MODEL_TYPES:
        raise UsageError(
            "this family can't be written as GGUF here",
            where=model_dir,
            found=config.get("model_type"),
            expected=f"one of {', '.join(MODEL_TYPES)}",
            do="convert it with llama.cpp's convert_hf_to_gguf.py",
        )
    rope = _rope(config)
    if rope.get("rope_type", "default") not in ("default", "linear") or _slides(config):
        raise UsageError(
            "the attention of this model can't be written as GGUF here",
            where=model_dir / "config.json",
            found="a sliding window" if _slides(config) else f"rope_type {rope['rope_type']}",
            expected="full attention with rope_type default or linear",
            do="convert it with llama.cpp's convert_hf_to_gguf.py",
        )
    return config


def _slides(config: dict[str, Any]) -> bool:
    return "sliding_attention" in (config.get("layer_types") or ())


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    older = {"rope_theta": config.get("rope_theta", 10000.0)}
    return config.get("rope_parameters") or older | (config.get("rope_scaling") or {})


def _write(
    file: Path,
    model_dir: Path,
    config: dict[str, Any],
    vocabulary: Vocabulary,
    tokenizer: "PreTrainedTokenizerBase",
    weights: WeightReader,
    outtype: Outtype,
) -> int:
    """Write the file and return the number of its tensors."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(file, config["model_type"])
    writer.add_name(model_dir.name)
    writer.add_file_type(_FILE_TYPES[outtype])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_shape(writer, config)
    _add_vocabulary(writer, vocabulary, tokenizer, model_dir)
    entries = list(weights)
    for entry in entries:
        writer.add_tensor_info(
            entry.name, entry.shape, np.dtype(np.float32), entry.num_bytes, raw_dtype=entry.kind
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for entry in entries:
        writer.write_tensor_data(weights.data(entry))
    writer.close()
    return len(entries)


# Values of llama.cpp's enum llama_ftype.
_FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7, "bf16": 32}


def _add_shape(writer: "gguf.GGUFWriter", config: dict[str, Any]) -> None:
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    rope = _rope(config)
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope.get("rope_type") == "linear":
        import gguf

        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])


def _add_vocabulary(
    writer: "gguf.GGUFWriter",
    vocabulary: Vocabulary,
    tokenizer: "PreTrainedTokenizerBase",
    model_dir: Path,
) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre_tokenizer)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types([int(kind) for kind in vocabulary.kinds])
    writer.add_token_merges(vocabulary.merges)
    single: Any = tokenizer  # its types allow several ids for one token
    bos, eos, pad = single.bos_token_id, single.eos_token_id, single.pad_token_id
    if bos is not None:
        writer.add_bos_token_id(bos)
    if eos is not None:
        writer.add_eos_token_id(eos)
    if pad is not None:
        writer.add_pad_token_id(pad)
    end_of_turn = _end_of_turn(model_dir, eos)
    if end_of_turn is not None:
        writer.add_eot_token_id(end_of_turn)
    writer.add_add_bos_token(bos is not None and tokenizer("a").input_ids[:1] == [bos])
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def _end_of_turn(model_dir: Path, eos: object) -> int | None:
    """Return the other token that ends an answer, where generation_config.json names one."""
    path = model_dir / "generation_config.json"
    stops = read_json(path).get("eos_token_id") if path.is_file() else None
    if not isinstance(stops, list):
        return None
    return next((token for token in stops if token != eos), None)


def _refuse_other_tokens(file: Path, tokenizer: "PreTrainedTokenizerBase") -> None:
    from transformers.integrations.gguf.gguf_tokenizer_mapping import (
        convert_gguf_tokenizer,
        get_gguf_tokenizer,
    )

    architecture, content, _ = get_gguf_tokenizer(str(file))
    read_back, _ = convert_gguf_tokenizer(architecture, content)
    for text in _CHECK_TEXTS:
        expected = tokenizer(text, add_special_tokens=False).input_ids
        found = read_back.encode(text, add_special_tokens=False).ids
        if found != expected:
            raise GateRefused(
                "the tokenizer in the GGUF file makes other tokens than the model's",
                where=file.name,
                found=f"{found[:12]} for {text[:30]!r}",
                expected=str(expected[:12]),
                do="report this, with tokenizer.json of the model",
            )


def _divergence(model_dir: Path, file: Path, tokenizer: "PreTrainedTokenizerBase") -> float:
    """Return the mean divergence of the next-token distributions over two texts, in nats."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(model_dir, local_files_only=True, trust_remote_code=False)
    with without_progress_bars():
        # The reader of transformers leaves out head sizes, so the folder's configuration is used.
        converted = AutoModelForCausalLM.from_pretrained(
            file.parent,
            gguf_file=file.name,
            config=config,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
        ).eval()
    original = load_model(model_dir, dtype=torch.float32)
    rows = [tokenizer(text, add_special_tokens=False).input_ids for text in _CHECK_TEXTS]
    return _mean_divergence(original, converted, rows)


def _mean_divergence(
    original: "nn.Module", converted: "nn.Module", rows: Sequence[Sequence[int]]
) -> float:
    import torch
    from torch.nn import functional

    total, count = 0.0, 0
    with torch.no_grad():
        for ids in rows:
            ids_BT = torch.tensor([list(ids)])
            expected_TV = original(ids_BT).logits[0].log_softmax(-1)
            found_TV = converted(ids_BT).logits[0].log_softmax(-1)
            total += float(
                functional.kl_div(found_TV, expected_TV, reduction="sum", log_target=True)
            )
            count += len(ids)
    return total / count


def _refuse_divergence(divergence: float, outtype: Outtype) -> None:
    limit = _MAX_DIVERGENCE[outtype]
    if math.isfinite(divergence) and divergence <= limit:
        return
    raise GateRefused(
        "the model read back from the GGUF file does not answer as the folder does",
        where="gguf",
        found=f"divergence {divergence:.3g} nats a token",
        expected=f"at most {limit:.3g} for {outtype}",
        do="use --to_gguf f16, or f32 to see whether it is rounding",
    )
