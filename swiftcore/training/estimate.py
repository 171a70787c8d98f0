"""What a training will need, before it starts: memory by what holds it, and operations.

Weights, gradients and optimizer state follow from shapes and types. Activations are what autograd
keeps of a block of the Llama kind; other architectures differ. `tests/test_training_estimate.py`
holds them within a factor of 1.5 of what torch keeps.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from swiftcore.models.shape import ModelShape, model_shape
from swiftcore.training.flops import ModelWork, attention_width, expert_share
from swiftcore.training.held_state import state_bytes, trained_at_once
from swiftcore.training.job import TrainJob
from swiftcore.training.trained_size import trained_size
from swiftcore.tuners.kinds import KINDS

# A started process with torch, transformers and peft in it; on a GPU nothing of it counts.
_PROCESS_BYTES = 700 * 2**20
# `loss` makes logits of so many label tokens at a time, in three copies of float32.
_LOGIT_CHUNK = 256
_LOGIT_BYTES = 12
_TYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class RowSizes:
    """Lengths of the training rows, in tokens."""

    num_rows: int
    longest: int
    tokens: int
    squares: float

    @classmethod
    def of(cls, lengths: Sequence[int]) -> "RowSizes":
        """Return the sizes of rows of these lengths."""
        squares = float(sum(length * length for length in lengths))
        return cls(len(lengths), max(lengths, default=0), sum(lengths), squares)


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes that training holds at its peak, and the number of parameters it trains."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    process: int
    trained_parameters: int
    tokens_a_forward: int
    saving: int = 0

    @property
    def fixed(self) -> int:
        """Return what does not depend on the batch."""
        return self.weights + self.gradients + self.optimizer + self.process + self.saving

    @property
    def total(self) -> int:
        """Return the sum of all parts."""
        return self.fixed + self.activations + self.logits

    def as_dict(self) -> dict[str, int]:
        """Return the parts and their sum as JSON-ready values."""
        return {**asdict(self), "total": self.total}


def estimate_memory(job: TrainJob, longest: int, shape: ModelShape | None = None) -> MemoryEstimate:
    """Return what a job will hold in memory.

    Args:
        job: what would be trained.
        longest: tokens of the longest row, or of a packed sequence; 0 leaves activations out.
        shape: of the model in `job.model_dir`, where it is known already.

    Raises:
        ModelMissing: there is no model.
        ArtifactDamaged: a file of the model can't be read.
    """
    shape = shape or model_shape(job.model_dir)
    full = job.tuner.train_type == "full"
    stored = shape.entry_bytes
    computed = _TYPE_BYTES[job.torch_dtype] if job.torch_dtype else stored
    # Full training with a type keeps float32 masters; peft keeps adapters in float32.
    held = 4 if full and job.torch_dtype else computed
    trained_bytes = held if full else 4
    weights = _weight_bytes(job, shape, held)
    trained = trained_size(shape, job.tuner).entries
    at_once = trained_at_once(shape, job.tuner, trained)
    tokens = job.batch_plan()[0] * math.ceil(longest / job.train.sequence_parallel_size)
    optimizer = state_bytes(shape, job.train, job.tuner, at_once, trained_bytes)
    on_host = not job.device.startswith("cuda")
    return MemoryEstimate(
        weights=weights + (0 if full else trained * trained_bytes),
        gradients=at_once * trained_bytes,
        optimizer=optimizer,
        activations=_activation_bytes(job, shape, tokens, longest, computed),
        logits=_logit_bytes(job, shape, tokens, computed),
        process=_PROCESS_BYTES if on_host else 0,
        trained_parameters=trained,
        tokens_a_forward=tokens,
        saving=trained * trained_bytes + optimizer if job.async_save and on_host else 0,
    )


def _weight_bytes(job: TrainJob, shape: ModelShape, held: int) -> int:
    if shape.quantized:
        return shape.num_bytes
    if job.quantization is None:
        return shape.entries * held
    packed = sum(t.entries for t in shape.tensors if t.is_linear)
    return round(packed * job.quantization.entry_bytes) + (shape.entries - packed) * held


def estimate_flops(job: TrainJob, rows: RowSizes, shape: ModelShape | None = None) -> float:
    """Return the operations of a whole run; every token counts as a label."""
    shape = shape or model_shape(job.model_dir)
    work = _work(shape, trained_size(shape, job.tuner).entries)
    a_pass = work.training_flops(rows.tokens, rows.tokens, rows.squares / 2)
    if job.train.max_steps > 0 and not job.train.packing:
        micro, accumulation = job.batch_plan()
        return a_pass * job.train.max_steps * micro * accumulation / rows.num_rows
    return a_pass * job.train.num_train_epochs


def _work(shape: ModelShape, trained: int) -> ModelWork:
    share = expert_share(shape.config)
    matrices = [t for t in shape.tensors if len(t.shape) > 1]
    body = sum(
        t.entries * (share if ".experts." in t.name else 1)
        for t in matrices
        if not (t.is_head or t.is_embedding)
    )
    head = sum(t.entries for t in matrices if t.is_head) or sum(
        t.entries for t in matrices if t.is_embedding and t.shape[0] == shape.number("vocab_size")
    )
    trained = min(trained, round(body) + head)
    return ModelWork(round(body), head, trained, attention_width(shape.config))


def _activation_bytes(
    job: TrainJob, shape: ModelShape, tokens: int, length: int, computed: int
) -> int:
    """Return what is kept for the backward pass, and the gradients that walk through a block."""
    layers = shape.number("num_hidden_layers", "n_layer")
    hidden = shape.number("hidden_size", "n_embd")
    inner = shape.number("intermediate_size", "n_inner") or 4 * hidden
    block = _block_bytes(job, shape, length, computed)
    flowing = (2 * inner + 2 * hidden) * computed
    if job.train.gradient_checkpointing:
        a_token = layers * hidden * computed + block
    else:
        a_token = layers * block
    return tokens * (a_token + flowing + 3 * hidden * computed)


def _block_bytes(job: TrainJob, shape: ModelShape, length: int, computed: int) -> int:
    """Return the bytes that one block keeps of one token.

    Two norms keep their input and normalised input in float32 and their output; attention keeps
    query, key, value, its output and that output laid out anew; the feed-forward part its gate, the
    gate's activation, the other half and their product. Dropout before LoRA copies each input.
    """
    heads = shape.number("num_attention_heads", "n_head") or 1
    layers = shape.number("num_hidden_layers", "n_layer") or 1
    hidden = shape.number("hidden_size", "n_embd")
    inner = shape.number("intermediate_size", "n_inner") or 4 * hidden
    queries = attention_width(shape.config) // layers
    keys = queries * (shape.number("num_key_value_heads") or heads) // heads
    kept = (2 * hidden + 3 * queries + 2 * keys + 4 * inner) * computed + 4 * hidden * 4
    if job.attn_impl == "eager":
        kept += 2 * heads * length * computed
    reads_dropout = "lora_dropout" in KINDS[job.tuner.train_type].settings
    if reads_dropout and job.tuner.lora_dropout:
        inputs = 3 * hidden + queries + 2 * hidden + inner
        kept += inputs * (computed + 1)
    return kept


def _logit_bytes(job: TrainJob, shape: ModelShape, tokens: int, computed: int) -> int:
    if not tokens:
        return 0
    vocabulary = shape.number("vocab_size")
    if job.train.label_logits:
        return min(tokens, _LOGIT_CHUNK) * vocabulary * _LOGIT_BYTES
    return tokens * vocabulary * (computed + _LOGIT_BYTES)


def gib(num_bytes: float) -> str:
    """Return bytes as a person reads them, rounded up to tenths."""
    return f"{math.ceil(num_bytes / 2**30 * 10) / 10:.1f} GiB"
