"""Writing a model folder as one GGUF file, and proof that the file holds the same model."""

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

from swiftcore.errors import EnvironmentMissing, UsageError
from swiftcore.export.folder import weight_bytes
from swiftcore.export.gguf.checking import (
    CHECK_TEXTS,
    check_rows,
    deviation,
    logits_of,
    refuse_divergence,
    refuse_other_tokens,
)
from swiftcore.export.gguf.outtypes import K_QUANTS, KQuant, Outtype
from swiftcore.export.gguf.vocabulary import Vocabulary, read_vocabulary
from swiftcore.export.gguf.weights import WeightReader
from swiftcore.models.files import read_json, require_model_folder
from swiftcore.models.loading import is_quantized, load_model, load_tokenizer
from swiftcore.models.quiet import without_progress_bars
from swiftcore.progress import Progress, Silent
from swiftcore.recipe import Runtime

if TYPE_CHECKING:
    import gguf
    from torch import nn
    from transformers import PreTrainedTokenizerBase

MODEL_TYPES = ("llama", "qwen2", "qwen3")


@dataclass(frozen=True)
class GgufReport:
    """What was written, and how far the file's model is from the folder's on two texts.

    `kl_divergence` is a token's mean, in nats; both perplexities are of these texts.
    """

    path: Path
    outtype: str
    pre_tokenizer: str
    num_tensors: int
    size_bytes: int
    unquantized_size_bytes: int
    kl_divergence: float
    perplexity: float
    unquantized_perplexity: float


def export_gguf(
    model_dir: Path,
    file: Path,
    outtype: Outtype | KQuant = "f16",
    *,
    runtime: Runtime | None = None,
    progress: Progress | None = None,
) -> GgufReport:
    """Write a model as GGUF, read it back, and compare tokens and next-token distributions.

    Args:
        model_dir: unquantized model folder of the Llama, Qwen2 or Qwen3 family.
        file: where to; replaced whole or not at all.
        outtype: type of the matrices; norms and biases stay in float32. llama.cpp itself makes and
            reads back q4_k_m, q5_k_m and q6_k, in an environment of its own.
        runtime: says where that environment is, and whether it may be installed.
        progress: told each step.

    Raises:
        ModelMissing: there is no model in the folder.
        UsageError: the family, its rotary scaling or its tokenizer can't be written.
        EnvironmentMissing: the gguf package, or the backend llama_cpp, is not installed.
        GateRefused: what was read back differs from the model.
    """
    watch = progress or Silent()
    if outtype in K_QUANTS:
        from swiftcore.export.gguf.k_quants import export_k_quant

        return export_k_quant(model_dir, file, outtype, runtime or Runtime(), watch)
    return _export_plain(model_dir, file, cast(Outtype, outtype), watch)


def _export_plain(model_dir: Path, file: Path, outtype: Outtype, watch: Progress) -> GgufReport:
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
        refuse_other_tokens(_tokens_read_back(temporary), tokenizer, file.name)
        rows = check_rows(tokenizer)
        model = _read_back(model_dir, temporary)
        found = deviation(
            logits_of(load_model(model_dir, dtype="float32"), rows), logits_of(model, rows), rows
        )
        refuse_divergence(found.kl_divergence, outtype)
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
    watch.update(2, 2, f"divergence {found.kl_divergence:.1e}")
    return GgufReport(
        path=file,
        outtype=outtype,
        pre_tokenizer=vocabulary.pre_tokenizer,
        num_tensors=count,
        size_bytes=file.stat().st_size,
        unquantized_size_bytes=weight_bytes(model_dir),
        kl_divergence=found.kl_divergence,
        perplexity=found.perplexity,
        unquantized_perplexity=found.unquantized_perplexity,
    )


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


def _tokens_read_back(file: Path) -> list[list[int]]:
    from transformers.integrations.gguf.gguf_tokenizer_mapping import (
        convert_gguf_tokenizer,
        get_gguf_tokenizer,
    )

    architecture, content, _ = get_gguf_tokenizer(str(file))
    read_back, _ = convert_gguf_tokenizer(architecture, content)
    return [read_back.encode(text, add_special_tokens=False).ids for text in CHECK_TEXTS]


def _read_back(model_dir: Path, file: Path) -> "nn.Module":
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(model_dir, local_files_only=True, trust_remote_code=False)
    with without_progress_bars():
        # The reader of transformers leaves out head sizes, so the folder's configuration is used.
        return AutoModelForCausalLM.from_pretrained(
            file.parent,
            gguf_file=file.name,
            config=config,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
        ).eval()
