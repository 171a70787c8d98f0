"""The typed sections of a recipe: what to make. Every field shapes a result, or it is not here.

Field names are those of ms-swift's documented arguments, so its users keep their habits. A field
exists from the day something reads it; `swift args` lists the documented arguments that do not work
yet and says so. Where a run happens (device, paths, ports) is `Runtime`, in its own module.
"""

import math
import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from swiftcore.recipe.checkpointing import TrainCheckpointing
from swiftcore.recipe.losses import TrainLosses
from swiftcore.recipe.optimization import (
    TrainOptimization,
    TunerOptimization,
    optimization_checks,
)
from swiftcore.recipe.refusals import refuse_value
from swiftcore.recipe.sharding import DeepspeedName, FsdpName, check_sharding, read_settings
from swiftcore.recipe.tasks import Pooling, ProblemType, Task, TaskType, check_task, task_of

Dtype = Literal["float16", "bfloat16", "float32"]
Strategy = Literal["no", "steps", "epoch"]
TrainType = Literal[
    "lora", "full", "adalora", "vera", "boft", "fourierft", "ia3", "bone", "miss", "loha", "lokr",
    "oft", "hra", "vblora", "randlora", "gralora", "delora", "hira", "waveft", "c3a", "road",
    "shira", "ln_tuning", "adamss", "frod", "pvera", "glora", "unilora", "osf", "tinylora", "psoft",
    "peanut", "supertuning", "deft", "trainable_tokens", "longlora", "llamapro", "adapter", "reft",
]  # fmt: skip
Intervention = Literal[
    "LoreftIntervention", "NoreftIntervention", "ConsreftIntervention", "LobireftIntervention",
    "DireftIntervention", "NodireftIntervention",
]  # fmt: skip
# Starts of LoRA's A and B; bat belongs to bone and miss.
_STARTS = ("true", "false", "gaussian", "orthogonal", "pissa", "olora", "lora-ga", "eva", "bat")
_PISSA_ITERATIONS = re.compile(r"pissa_niter_[1-9]\d*")
_REFUSED_STARTS = {
    "loftq": "peft's LoftQ needs a CUDA device and bitsandbytes",
}
# Rows of a step, at least, when the recipe leaves gradient accumulation open; ms-swift's number.
_DEFAULT_STEP_ROWS = 16
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class Section(BaseModel):
    """Base of all sections: frozen, and an unknown key is an error."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )


class ScratchModel(Section):
    """Shape of a model that is built here with random weights, for `model.scratch`."""

    architecture: Literal["qwen3", "qwen2", "llama"] = Field(
        default="qwen3", description="model family"
    )
    hidden_size: int = Field(default=192, ge=8, description="width of the residual stream")
    intermediate_size: int = Field(default=512, ge=8, description="width inside the MLP")
    num_hidden_layers: int = Field(default=4, ge=1, description="transformer blocks")
    num_attention_heads: int = Field(default=4, ge=1, description="query heads")
    num_key_value_heads: int = Field(default=2, ge=1, description="key/value heads")
    head_dim: int | None = Field(
        default=None, ge=4, description="size of one head; default hidden/heads"
    )
    max_position_embeddings: int = Field(
        default=2048, ge=16, description="longest sequence, in tokens"
    )
    tie_word_embeddings: bool = Field(default=True, description="share input and output embeddings")
    rope_theta: float = Field(default=10000.0, gt=0, description="base of the rotary frequencies")
    initializer_range: float = Field(
        default=0.02, gt=0, description="standard deviation of the random weights"
    )
    word_pattern: str | None = Field(
        default=None, description="regex of the words that BPE merges stay inside; default: GPT-4's"
    )
    vocab_size: int = Field(
        default=4096, ge=300, description="entries of the byte-level BPE trained on the dataset"
    )
    tokenizer: str | None = Field(
        default=None, description="folder with a tokenizer.json to use instead of training one"
    )
    seed: int = Field(default=42, description="seed of the random weights")


class ModelSection(Section):
    """Which model everything starts from."""

    model: str | None = Field(
        default=None,
        description="local folder, recipe:PATH, artifact:FINGERPRINT or models:/name@alias",
    )
    scratch: ScratchModel | None = Field(
        default=None,
        description="build the base model here with random weights instead of loading one",
    )
    torch_dtype: Dtype | None = Field(
        default=None, description="data type of the weights; default: as stored"
    )
    attn_impl: Literal["sdpa", "eager"] | None = Field(
        default=None, description="attention implementation; default: transformers' choice"
    )
    rope_scaling: str | dict[str, Any] | None = Field(
        default=None,
        description="stretch rotary positions: linear, dynamic, yarn, or transformers' settings",
    )
    max_model_len: int | None = Field(
        default=None, ge=1, description="longest sequence that rope_scaling makes room for"
    )
    new_special_tokens: list[str] = Field(
        default_factory=list, description="words that become tokens, or .txt files that list them"
    )
    adapters: list[str] = Field(
        default_factory=list,
        description="adapter over the model that training goes on with: a folder, "
        "artifact:FINGERPRINT or models:/name@alias",
    )
    quant_method: Literal["bnb"] | None = Field(
        default=None, description="train over weights that are quantized while loading (QLoRA)"
    )
    quant_bits: Literal[4, 8] | None = Field(
        default=None, description="bits of a weight, with quant_method"
    )
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = Field(default="nf4", description="4-bit code book")
    bnb_4bit_use_double_quant: bool = Field(default=True, description="quantize the scales as well")
    bnb_4bit_compute_dtype: Dtype | None = Field(
        default=None, description="type of the products with 4-bit weights; default: the model's"
    )
    bnb_4bit_quant_storage: Literal["uint8", "float16", "bfloat16", "float32"] | None = Field(
        default=None, description="type that packed 4-bit weights are held in; default: uint8"
    )
    task_type: TaskType = Field(default="causal_lm", description="what the model is trained to do")
    num_labels: int | None = Field(
        default=None, ge=1, description="seq_cls: classes, or 1 for regression"
    )
    problem_type: ProblemType | None = Field(
        default=None,
        description="seq_cls: what the outputs mean; default: regression with one, else one class",
    )
    pooling: Pooling | None = Field(
        default=None,
        description="embedding: the token or mean that stands for a text; default: the folder's "
        "own, else last for models that see the past alone, mean for the others",
    )

    @field_validator("quant_method", mode="before")
    @classmethod
    def _not_refused(cls, value: Any, info: ValidationInfo) -> Any:
        refuse_value(info.field_name, value)
        return value

    @model_validator(mode="after")
    def _quantization_is_whole(self) -> "ModelSection":
        if (self.quant_method is None) != (self.quant_bits is None):
            raise ValueError("model.quant_method and model.quant_bits (4 or 8) go together")
        idle = sorted(
            name
            for name in self.model_dump(exclude_defaults=True)
            if name.startswith("bnb_4bit_") and self.quant_bits != 4
        )
        if idle:
            raise ValueError(f"{', '.join(idle)} do nothing without model.quant_bits 4")
        return self

    @property
    def task(self) -> Task:
        """What the model is trained to do."""
        return task_of(self.task_type, self.num_labels, self.problem_type, self.pooling)

    @model_validator(mode="after")
    def _task_is_whole(self) -> "ModelSection":
        task_of(self.task_type, self.num_labels, self.problem_type, self.pooling)
        return self

    @model_validator(mode="after")
    def _stretched_to_a_length(self) -> "ModelSection":
        rope = self.rope_scaling
        named = isinstance(rope, str) and not rope.lstrip().startswith("{")
        if named and self.max_model_len is None:
            raise ValueError("model.rope_scaling needs model.max_model_len, which gives its factor")
        if self.max_model_len is not None and self.rope_scaling is None:
            raise ValueError("model.max_model_len does nothing without model.rope_scaling")
        return self

    @model_validator(mode="after")
    def _one_adapter(self) -> "ModelSection":
        if len(self.adapters) > 1:
            raise ValueError(
                "model.adapters: training goes on with one adapter; to stack them, merge the "
                "others first, in a recipe with `merge: {}` that model.model names as recipe:PATH"
            )
        if self.adapters and self.scratch is not None:
            raise ValueError("model.adapters: no adapter was trained over a model that is new")
        return self

    @model_validator(mode="after")
    def _one_origin(self) -> "ModelSection":
        if (self.model is None) == (self.scratch is None):
            raise ValueError("give either model.model or model.scratch, and not both")
        return self


class CleaningSection(Section):
    """Which good rows are dropped or changed, and what is searched for in them."""

    min_characters: int | None = Field(default=None, ge=0, description="shortest row")
    max_characters: int | None = Field(default=None, ge=0, description="longest row")
    min_words: int | None = Field(default=None, ge=0, description="fewest words of a row")
    max_words: int | None = Field(default=None, ge=0, description="most words of a row")
    min_turns: int | None = Field(default=None, ge=0, description="fewest user messages")
    max_turns: int | None = Field(default=None, ge=0, description="most user messages")
    languages: list[str] = Field(
        default_factory=list, description="keep rows in these languages (ISO 639); empty: all"
    )
    near_duplicates: float | None = Field(
        default=None,
        ge=0.3,
        le=1,
        description="drop training rows this similar to an earlier one (Jaccard of 5-grams)",
    )
    secrets: Literal["off", "warn", "mask", "drop"] = Field(
        default="off", description="what to do about keys, tokens and passwords in rows"
    )
    personal: Literal["off", "warn", "mask", "drop"] = Field(
        default="off", description="what to do about personal data in rows"
    )
    privacy_ignore: list[str] = Field(
        default_factory=list, description="kinds of findings to leave alone, such as IP_ADDRESS"
    )
    contamination: Literal["off", "warn", "drop"] = Field(
        default="off", description="what to do about training rows that hold evaluated text"
    )
    contamination_ngram: int = Field(
        default=13, ge=2, description="words in a row that count as evaluated text"
    )


class DocumentsSection(Section):
    """How documents and source code among the sources become rows."""

    format: Literal["pretraining", "code"] = Field(
        default="pretraining",
        description="texts alone, or with language, path and lines as columns",
    )
    chunk_size: int = Field(
        default=2048, ge=0, description="longest text of a row, in characters; 0: whole documents"
    )
    chunk_overlap: int = Field(
        default=0, ge=0, description="how much of a chunk the next one repeats"
    )
    tokenizer: str | None = Field(
        default=None, description="folder with a tokenizer.json, so that sizes count tokens"
    )
    max_seconds: float = Field(default=60.0, gt=0, description="time for one document")
    max_memory_mib: int = Field(default=2048, ge=256, description="memory for one document")


class DataSection(Section):
    """Where rows come from and how they become standard rows."""

    dataset: list[str] = Field(
        default_factory=list, description="training sources, each path[:subset][#count]"
    )
    custom_dataset_info: list[str] = Field(
        default_factory=list, description="JSON files that give datasets names"
    )
    custom_register_path: list[str] = Field(
        default_factory=list, description="Python files, run to register datasets"
    )
    cached_dataset: list[str] = Field(
        default_factory=list,
        description="folders of datasets that were encoded before, instead of data.dataset",
    )
    val_dataset: list[str] = Field(
        default_factory=list, description="validation sources, never seen in training"
    )
    test_dataset: list[str] = Field(
        default_factory=list, description="held-out sources that the evaluate stage answers"
    )
    split_dataset_ratio: float = Field(
        default=0.0, ge=0, le=1, description="share of the training rows split off for validation"
    )
    data_seed: int = Field(default=42, description="seed of sampling, splitting and shuffling")
    dataset_shuffle: bool = Field(default=True, description="shuffle training rows")
    val_dataset_shuffle: bool = Field(default=False, description="shuffle validation rows")
    interleave_prob: list[float] | None = Field(
        default=None,
        description="mix the training sources by these probabilities instead of appending them",
    )
    stopping_strategy: Literal["first_exhausted", "all_exhausted"] = Field(
        default="first_exhausted",
        description="end of mixing: when one source, or every source, has given its last row",
    )
    streaming: bool = Field(
        default=False,
        description="take rows as a stream has them: #n from the head, shuffled in a buffer",
    )
    shuffle_buffer_size: int = Field(
        default=1000, ge=1, description="rows held to shuffle a stream"
    )
    columns: dict[str, str] | None = Field(
        default=None, description="rename columns first, {source name: standard name}"
    )
    documents: DocumentsSection | None = Field(
        default=None, description="also read documents and source code in folders, in this way"
    )
    column_names: list[str] = Field(
        default_factory=list, description="names of the columns of csv and tsv without a header"
    )
    strict: bool = Field(
        default=False, description="stop at the first bad row instead of quarantining it"
    )
    remove_unused_columns: bool = Field(default=True, description="keep only the standard columns")
    max_quarantine_ratio: float = Field(
        default=0.05, ge=0, le=1, description="fail when more than this share of rows is bad"
    )
    deduplicate: bool = Field(default=True, description="keep one of rows that are exactly equal")
    cleaning: CleaningSection = Field(
        default_factory=CleaningSection, description="filters, near duplicates, privacy"
    )
    model_name: list[str] = Field(
        default_factory=list,
        description="text for {{NAME}} in self-cognition rows: Chinese and English, or one form",
    )
    model_author: list[str] = Field(
        default_factory=list, description="text for {{AUTHOR}} in self-cognition rows"
    )
    licence: str | None = Field(default=None, description="licence of the data, for its card")

    @model_validator(mode="after")
    def _has_rows(self) -> "DataSection":
        if not self.dataset and not self.cached_dataset:
            raise ValueError("data.dataset names no source; list at least one file")
        if self.dataset and self.cached_dataset:
            raise ValueError("data.dataset and data.cached_dataset both name rows; give one")
        return self


class TemplateSection(Section):
    """How rows become tokens, the same in training, evaluation and serving."""

    template: str | None = Field(
        default=None, description="template name, or jinja for the model's own; default: inferred"
    )
    system: str | None = Field(default=None, description="system prompt for rows that bring none")
    max_length: int | None = Field(default=None, ge=1, description="longest row in tokens")
    truncation_strategy: Literal["delete", "left", "right"] = Field(
        default="delete", description="what to do with a longer row"
    )
    agent_template: str | None = Field(default=None, description="how tools and calls are written")
    loss_scale: str = Field(
        default="default", description="which tokens count in the loss, and how much"
    )
    use_chat_template: bool = Field(
        default=True, description="false: rows are plain text (method pt sets this)"
    )
    allow_control_tokens: bool = Field(
        default=False,
        description="unsafe: parse control tokens in user, system and tool text, as ms-swift does",
    )
    parity_waivers: list[Literal["prompt", "conversation"]] = Field(
        default_factory=list,
        description="token differences from the model's own chat template that are accepted",
    )
    enable_thinking: bool | None = Field(
        default=None,
        description="prompts open a think block (true) or close it at once (false); a row's "
        "chat_template_kwargs comes first; unset: as the family does",
    )
    preserve_thinking: bool | None = Field(
        default=None,
        description="think blocks before the last user message stay (true) or go (false); "
        "unset: they go from prompts, and where only the last answer counts",
    )
    add_non_thinking_prefix: bool | None = Field(
        default=None,
        description="trained answers without a think block get the family's empty one; unset: yes",
    )
    custom_template: list[str] = Field(
        default_factory=list, description="YAML or Python files that register templates"
    )


class TunerSection(TunerOptimization, Section):
    """Which weights are trained."""

    train_type: TrainType = Field(default="lora", description="tuner")
    tuner_backend: Literal["peft"] = Field(default="peft", description="library of the tuners")
    target_modules: list[str] = Field(
        default_factory=lambda: ["all-linear"], description="modules to adapt"
    )
    target_regex: str | None = Field(
        default=None, description="regex of modules; replaces target_modules"
    )
    modules_to_save: list[str] = Field(
        default_factory=list, description="modules trained and saved whole beside the adapter"
    )
    target_parameters: list[str] = Field(
        default_factory=list, description="lora: parameters, not modules, to adapt, as of experts"
    )
    init_weights: str = Field(
        default="true",
        description="start of lora: true, false, gaussian, orthogonal, pissa, pissa_niter_[n], "
        "olora, lora-ga, eva; of bone and miss: true, false, bat",
    )
    lora_rank: int = Field(default=8, ge=1, description="rank r of the LoRA update")
    lora_alpha: int = Field(default=32, ge=1, description="LoRA scale; the update is alpha/r * B A")
    lora_dropout: float = Field(
        default=0.05, ge=0, lt=1, description="dropout before the LoRA matrices"
    )
    lora_bias: Literal["none", "all"] = Field(default="none", description="also train biases")
    lora_dtype: Literal["float32", "bfloat16"] | None = Field(
        default=None, description="type of the LoRA matrices; default: float32"
    )
    lora_ga_batch_size: int = Field(
        default=2, ge=1, description="rows a step of the gradient estimate"
    )
    lora_ga_iters: int = Field(default=2, ge=1, description="steps of the gradient estimate")
    lora_ga_max_length: int = Field(
        default=1024, ge=2, description="longest row of the gradient estimate, in tokens"
    )
    lora_ga_direction: Literal["ArBr", "A2rBr", "ArB2r", "random"] = Field(
        default="ArB2r", description="which singular vectors of the gradient start A and B"
    )
    lora_ga_scale: Literal["gd", "unit", "stable", "weightS"] = Field(
        default="stable", description="scaling of the start"
    )
    lora_ga_stable_gamma: int = Field(default=16, ge=1, description="gamma of the stable scaling")
    use_rslora: bool = Field(default=False, description="scale by alpha/sqrt(r)")
    use_dora: bool = Field(default=False, description="train magnitude and direction apart")
    adalora_target_r: int = Field(default=8, ge=1, description="average rank at the end")
    adalora_init_r: int = Field(default=12, ge=1, description="rank at the start")
    adalora_tinit: int = Field(default=0, ge=0, description="steps before ranks are cut")
    adalora_tfinal: int = Field(default=0, ge=0, description="steps with fixed ranks at the end")
    adalora_deltaT: int = Field(default=1, ge=1, description="steps between two cuts")
    adalora_beta1: float = Field(
        default=0.85, gt=0, lt=1, description="smoothing of the importance"
    )
    adalora_beta2: float = Field(
        default=0.85, gt=0, lt=1, description="smoothing of its uncertainty"
    )
    adalora_orth_reg_weight: float = Field(
        default=0.5, ge=0, description="weight of the orthogonality term in the loss"
    )
    vera_rank: int = Field(default=256, ge=1, description="rank of the shared random matrices")
    vera_projection_prng_key: bool = Field(
        default=True, description="store the shared matrices with the adapter"
    )
    vera_dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout before the update")
    vera_d_initial: float = Field(default=0.1, description="start value of vector d")
    boft_block_size: int = Field(default=4, ge=2, description="size of an orthogonal block")
    boft_block_num: int | None = Field(
        default=None, ge=1, description="number of orthogonal blocks, instead of their size"
    )
    boft_dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout of blocks")
    fourier_n_frequency: int = Field(default=2000, ge=1, description="frequencies trained a layer")
    fourier_scaling: float = Field(default=300.0, description="scale of the update")
    llamapro_num_new_blocks: int = Field(default=4, ge=1, description="blocks that are added")
    llamapro_num_groups: int | None = Field(
        default=None, ge=1, description="places they are added at; default: one for each"
    )
    adapter_length: int = Field(default=128, ge=1, description="width of the bottleneck")
    reft_layers: list[int] | None = Field(
        default=None, description="blocks whose output is edited, the first is 0; default: all"
    )
    reft_rank: int = Field(default=4, ge=1, description="dimensions of the edited subspace")
    reft_intervention_type: Intervention = Field(
        default="LoreftIntervention", description="how the output is edited"
    )
    reft_args: dict[str, Any] = Field(
        default_factory=dict, description="reft: dropout, act_fn, add_bias"
    )
    peft_args: dict[str, Any] = Field(
        default_factory=dict,
        description="settings of peft's configuration of this tuner that have no field here",
    )
    freeze_parameters: list[str] = Field(
        default_factory=list, description="full: prefixes of parameters to freeze"
    )
    freeze_parameters_regex: str | None = Field(default=None, description="full: regex to freeze")
    freeze_parameters_ratio: float = Field(
        default=0.0, ge=0, le=1, description="full: share of parameters to freeze, from the first"
    )
    trainable_parameters: list[str] = Field(
        default_factory=list, description="full: prefixes to train in spite of the freeze rules"
    )
    trainable_parameters_regex: str | None = Field(
        default=None, description="full: regex to train in spite of the freeze rules"
    )

    @field_validator("train_type", "tuner_backend", "lora_dtype", mode="before")
    @classmethod
    def _not_refused(cls, value: Any, info: ValidationInfo) -> Any:
        refuse_value(info.field_name, value)
        return value

    @model_validator(mode="after")
    def _known_start(self) -> "TunerSection":
        if self.init_weights not in _STARTS and not _PISSA_ITERATIONS.fullmatch(self.init_weights):
            known = ", ".join([*_STARTS, "pissa_niter_[n]"])
            why = _REFUSED_STARTS.get(self.init_weights)
            raise ValueError(
                f"init_weights {self.init_weights!r} "
                + (f"is refused: {why}" if why else "is not known")
                + f"; choose one of {known}"
            )
        blocks = self.train_type in ("bone", "miss")
        if self.init_weights not in ("true", "false") and blocks != (self.init_weights == "bat"):
            raise ValueError(
                f"init_weights {self.init_weights!r} does not go with train_type {self.train_type}"
            )
        return self


class TrainSection(TrainOptimization, TrainCheckpointing, TrainLosses, Section):
    """How weights are trained."""

    method: Literal["pt", "sft"] = Field(
        default="sft", description="pre-training or supervised tuning"
    )
    learning_rate: float | None = Field(
        default=None, gt=0, description="peak rate; default 1e-5 for full, 1e-4 otherwise"
    )
    num_train_epochs: float = Field(default=3.0, gt=0, description="passes over the training rows")
    max_steps: int = Field(
        default=-1, description="optimizer steps; replaces num_train_epochs when > 0"
    )
    per_device_train_batch_size: int = Field(default=1, ge=1, description="rows a step and process")
    per_device_eval_batch_size: int = Field(default=1, ge=1, description="rows an evaluation step")
    gradient_accumulation_steps: int | None = Field(
        default=None, ge=1, description="default: as many as make a batch of at least 16 rows"
    )
    data_parallel_size: int | None = Field(
        default=None,
        ge=1,
        description="processes per_device_train_batch_size is counted for; default: those that run",
    )
    deepspeed: Annotated[DeepspeedName | dict[str, Any] | None, BeforeValidator(read_settings)] = (
        Field(
            default=None,
            description="zero0 to zero3, zero2_offload, zero3_offload, or DeepSpeed's JSON file",
        )
    )
    fsdp: Annotated[FsdpName | dict[str, Any] | None, BeforeValidator(read_settings)] = Field(
        default=None,
        description="fsdp2, or its settings or their JSON file: weights and optimizer spread out",
    )
    weight_decay: float = Field(default=0.1, ge=0, description="AdamW weight decay")
    adam_beta1: float = Field(default=0.9, ge=0, lt=1, description="AdamW beta1")
    adam_beta2: float = Field(default=0.95, ge=0, lt=1, description="AdamW beta2")
    adam_epsilon: float = Field(default=1e-8, gt=0, description="AdamW epsilon")
    max_grad_norm: float = Field(
        default=1.0, ge=0, description="gradient clipping; 0 switches it off"
    )
    lr_scheduler_type: str = Field(
        default="cosine", description="schedule, as transformers names it"
    )
    lr_scheduler_kwargs: dict[str, Any] | None = Field(
        default=None, description="schedule arguments"
    )
    warmup_ratio: float = Field(
        default=0.0, ge=0, le=1, description="share of steps spent warming up"
    )
    group_by_length: bool = Field(
        default=False, description="batch rows of similar length together"
    )
    padding_free: bool = Field(
        default=False, description="put the rows of a batch side by side instead of padding them"
    )
    packing: bool = Field(
        default=False, description="make each row of a batch a sequence filled with whole rows"
    )
    packing_length: int | None = Field(
        default=None,
        ge=1,
        description="tokens of a packed sequence; default: template.max_length",
    )
    packing_strategy: Literal["binpack", "sequential"] | None = Field(
        default=None,
        description="binpack: best fit over all rows, the default; sequential: in their order",
    )
    fold_lora: bool = Field(
        default=True, description="compute LoRA and its frozen layer as one product where possible"
    )
    label_logits: bool = Field(
        default=True, description="compute logits of label tokens alone, a chunk at a time"
    )
    loss_normalization: Literal["tokens", "weights"] = Field(
        default="tokens",
        description="divide a step's weighted loss by its label tokens, or by the sum of weights",
    )
    loss_type: str | None = Field(
        default=None, description="loss of the task type, where it has several"
    )
    metric: str | None = Field(
        default=None, description="figures of an evaluation; default: all of the task type"
    )
    infonce_temperature: float = Field(
        default=0.1, gt=0, description="infonce: divisor of the similarities"
    )
    infonce_use_batch: bool = Field(
        default=True, description="infonce: documents of the batch's other rows are negatives too"
    )
    infonce_hard_negatives: int | None = Field(
        default=None,
        ge=1,
        description="infonce: negatives of each row, the first ones or repeated; default: its own",
    )
    infonce_mask_fake_negative: bool = Field(
        default=False, description="infonce: leave out negatives that look like positives"
    )
    infonce_fake_neg_margin: float = Field(
        default=0.1,
        ge=0,
        description="infonce: how much likelier than the positive such a negative is",
    )
    infonce_include_qq: bool = Field(
        default=False, description="infonce: other queries are negatives of a query"
    )
    infonce_include_dd: bool = Field(
        default=False, description="infonce: other rows' documents are negatives of a positive"
    )
    listwise_reranker_temperature: float = Field(
        default=1.0, gt=0, description="listwise_reranker: divisor of the scores"
    )
    listwise_reranker_min_group_size: int = Field(
        default=2, ge=2, description="listwise_reranker: fewest documents of a list that counts"
    )
    generative_reranker_positive_token: str = Field(
        default="yes", description="generative_reranker: token of a document that fits"
    )
    generative_reranker_negative_token: str = Field(
        default="no", description="generative_reranker: token of one that does not"
    )
    train_dataloader_shuffle: bool = Field(default=True, description="shuffle rows each epoch")
    gradient_checkpointing: bool = Field(
        default=True, description="recompute activations to save memory"
    )
    neftune_noise_alpha: float = Field(
        default=0.0, ge=0, description="NEFTune embedding noise; 0 is off"
    )
    seed: int = Field(default=42, description="seed of initialisation, dropout and row order")
    logging_steps: int = Field(default=5, ge=1, description="steps between metric lines")
    logging_first_step: bool = Field(default=True, description="log the first step too")
    eval_strategy: Strategy | None = Field(default=None, description="default: as save_strategy")
    eval_steps: int | None = Field(default=None, ge=1, description="default: as save_steps")
    save_strategy: Strategy = Field(default="steps", description="when checkpoints are written")
    save_steps: int = Field(default=500, ge=1, description="steps between checkpoints")
    save_total_limit: int | None = Field(default=None, ge=1, description="checkpoints to keep")

    @model_validator(mode="after")
    def _sharding_is_known(self) -> "TrainSection":
        check_sharding(self.fsdp, self.deepspeed)
        return self

    def rows_a_step(self, num_processes: int) -> int:
        """Return the rows of an optimizer step when they are counted for so many processes."""
        rows = self.per_device_train_batch_size * num_processes
        steps = self.gradient_accumulation_steps
        return rows * (math.ceil(_DEFAULT_STEP_ROWS / rows) if steps is None else steps)

    @model_validator(mode="after")
    def _batches_make_sense(self) -> "TrainSection":
        for name in ("packing_length", "packing_strategy"):
            if getattr(self, name) is not None and not self.packing:
                raise ValueError(f"train.{name} does nothing without train.packing")
        if self.group_by_length and (self.packing or self.padding_free):
            raise ValueError(
                "train.group_by_length saves padding, and there is none with train.packing or "
                "train.padding_free; switch one of them off"
            )
        if self.neftune_noise_alpha and (self.packing or self.padding_free):
            raise ValueError(
                "train.neftune_noise_alpha scales its noise by the length of a sequence, which is "
                "not a row's with train.packing or train.padding_free; switch one of them off"
            )
        if self.group_by_length and not self.train_dataloader_shuffle:
            raise ValueError(
                "train.group_by_length shuffles rows; switch it or "
                "train.train_dataloader_shuffle: false off"
            )
        return self


class MergeSection(Section):
    """Folding an adapter into its base."""

    max_shard_size: str = Field(default="5GB", description="largest weight file")
    max_logit_difference: float = Field(
        default=1e-3,
        gt=0,
        description="largest allowed |merged - adapter| over all logits, float32",
    )


class QuantizeSection(Section):
    """Storing the weights in fewer bits."""

    quant_method: Literal["bnb"] = Field(default="bnb", description="quantization library")
    quant_bits: Literal[4, 8] = Field(default=4, description="bits a weight")
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = Field(default="nf4", description="4-bit code book")
    bnb_4bit_use_double_quant: bool = Field(default=True, description="quantize the scales as well")
    bnb_4bit_compute_dtype: Dtype | None = Field(
        default=None, description="type of the matmul; default: the model's"
    )
    quant_n_samples: int = Field(default=64, ge=1, description="rows that measure the recovery")
    min_recovery: float = Field(
        default=0.95,
        ge=0,
        le=1,
        description="least share of the unquantized next-token accuracy to keep",
    )


class EvaluateSection(Section):
    """Answering held-out rows and scoring the answers."""

    metrics: list[Literal["agent", "rouge", "exact_match", "final_number"]] = Field(
        default_factory=lambda: ["rouge", "exact_match"], description="metric families"
    )
    eval_limit: int | None = Field(default=None, ge=1, description="answer only the first rows")
    max_new_tokens: int = Field(default=128, ge=1, description="longest answer in tokens")
    temperature: float = Field(default=0.0, ge=0, description="0 is greedy")
    eval_batch_size: int = Field(default=16, ge=1, description="prompts generated together")
    num_bootstrap: int = Field(
        default=1000, ge=100, description="resamples of the confidence intervals"
    )
    confidence: float = Field(
        default=0.95, gt=0, lt=1, description="width of the confidence intervals"
    )
    seed: int = Field(default=42, description="seed of sampling and of the bootstrap")


class Gate(Section):
    """What a model must have shown before it is promoted and served."""

    metric: str = Field(default="Act.EM", description="metric of the evaluation report")
    min_value: float = Field(default=0.0, description="least value of the served candidate")
    min_recovery: float = Field(
        default=0.95, ge=0, description="least share of the merged (or tuned) model's value to keep"
    )
    min_coverage: float = Field(default=1.0, ge=0, le=1, description="least share of rows answered")
    max_drop_from_champion: float = Field(
        default=0.02, ge=0, description="largest allowed loss against the current champion"
    )


class DeploySection(Section):
    """What is registered and served."""

    name: Name = Field(default="model", description="model name")
    serve: Literal["auto", "adapter", "merged", "quantized", "trained"] = Field(
        default="auto",
        description="candidate to serve; auto: merged where there is one, else trained",
    )
    infer_backend: Literal["pt"] = Field(default="pt", description="engine; pt is transformers")
    max_new_tokens: int = Field(default=512, ge=1, description="most tokens one answer may have")
    max_batch_size: int = Field(default=8, ge=1, description="requests generated together")
    max_model_len: int | None = Field(default=None, ge=1, description="longest prompt plus answer")
    num_golden: int = Field(
        default=4, ge=0, description="evaluated answers the endpoint must repeat"
    )
    gate: Gate = Field(default_factory=Gate, description="conditions of promotion")


class Recipe(BaseModel):
    """One runnable thing: every section that is present is a stage that runs."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )

    name: Name = Field(description="name of the recipe")
    model: ModelSection
    data: DataSection
    template: TemplateSection = Field(default_factory=TemplateSection)
    tuner: TunerSection = Field(default_factory=TunerSection)
    train: TrainSection = Field(default_factory=TrainSection)
    merge: MergeSection | None = None
    quantize: QuantizeSection | None = None
    evaluate: EvaluateSection | None = None
    deploy: DeploySection | None = None

    @model_validator(mode="after")
    def _gradients_become_updates(self) -> "Recipe":
        optimization_checks(self.train, self.tuner)
        return self

    @model_validator(mode="after")
    def _adapters_are_trained(self) -> "Recipe":
        if self.model.adapters and self.train.resume_from_checkpoint is not None:
            raise ValueError(
                "model.adapters does nothing beside train.resume_from_checkpoint, whose weights "
                "take its place; give one of them"
            )
        if self.model.adapters and self.tuner.train_type == "full":
            raise ValueError(
                "tuner.train_type full trains no adapter; merge model.adapters into the model "
                "first, in a recipe with `merge: {}` that model.model names as recipe:PATH"
            )
        return self

    @model_validator(mode="after")
    def _quantized_weights_stay(self) -> "Recipe":
        if self.model.quant_bits is not None and self.tuner.train_type == "full":
            raise ValueError(
                f"tuner.train_type full trains the weights that model.quant_bits "
                f"{self.model.quant_bits} holds frozen; use train_type lora, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _sections_fit_the_task(self) -> "Recipe":
        check_task(self)
        return self

    @model_validator(mode="after")
    def _rows_fit_packed_sequences(self) -> "Recipe":
        if self.train.enable_channel_loss and len(self.data.cached_dataset) > 1:
            raise ValueError("train.enable_channel_loss can't tell rows of joined datasets apart")
        length, limit = self.train.packing_length, self.template.max_length
        if not self.train.packing:
            return self
        if length is None and limit is None:
            raise ValueError("train.packing needs train.packing_length or template.max_length")
        if length is not None and limit is not None and length < limit:
            raise ValueError(
                f"train.packing_length {length} is less than template.max_length {limit}, and rows "
                "are kept whole; lower template.max_length as well"
            )
        return self
