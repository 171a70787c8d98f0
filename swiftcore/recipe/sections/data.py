"""The data section: sources, mixing, cleaning, documents."""

from typing import Literal

from pydantic import (
    Field,
    model_validator,
)

from swiftcore.recipe.sections.base import Section


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
