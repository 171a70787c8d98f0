"""What a stage is: a function from a recipe and input folders to files, with a version.

Raise a stage's `version` when its output changes for the same recipe and inputs. A test holds a
digest of each stage's code against the version, so the change can't be forgotten.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swiftcore.artifacts import (
    Artifact,
    DigestCache,
    Identity,
    InputRef,
    Produced,
    Store,
    WorkArea,
    folder_digest,
)
from swiftcore.errors import DataError
from swiftcore.progress import Progress, Silent
from swiftcore.recipe import Recipe, Runtime

TOKENIZER_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "swift_template.json",
)


@dataclass(frozen=True)
class StageRun:
    """Everything a stage function gets for one run.

    Args:
        recipe: what to make.
        inputs: role -> folder or file; artifacts have been verified.
        area: `out` for results, `work` for state that survives a crash.
        runtime: where to work.
        progress: told how far the work is.
        on_metrics: told each metrics line of a training run as it appears.
        given: role -> the input as it was planned, with whatever else was found out about it.
    """

    recipe: Recipe
    inputs: Mapping[str, Path]
    area: WorkArea
    runtime: Runtime
    progress: Progress = field(default_factory=Silent)
    on_metrics: Callable[[dict[str, Any]], None] = lambda line: None
    given: "Mapping[str, StageInput]" = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """A named, versioned function.

    Args:
        name: as in `swift stage NAME`.
        version: raised when the output changes.
        config: the recipe fields that shape the result.
        run: does the work.
        measured: glob patterns of output files that hold times or rates.
        needs_bytes: least free disk for the results, from the input paths by role.
        input_config: what shapes the result and is known of the inputs only, beside their content.
    """

    name: str
    version: int
    config: Callable[[Recipe], dict[str, Any]]
    run: Callable[[StageRun], Produced]
    measured: tuple[str, ...] = ()
    needs_bytes: Callable[[Mapping[str, Path]], int] = lambda inputs: 0
    input_config: "Callable[[Mapping[str, StageInput]], dict[str, Any]]" = lambda inputs: {}


@dataclass(frozen=True)
class Source:
    """An input that no stage made: a file or folder of the user's.

    Args:
        path: where it is now; takes no part in identity.
        label: what a person calls it.
        only: names of the files in a folder that count.
    """

    path: Path
    label: str
    only: tuple[str, ...] | None = None

    def ref(self, cache: DigestCache) -> InputRef:
        """Return the reference by content that enters a fingerprint.

        Raises:
            DataError: nothing is there any more.
        """
        if self.path.is_file():
            return InputRef(cache.sha256(self.path), None, self.label)
        if not self.path.is_dir():
            raise DataError(
                "An input is gone.",
                where=self.path,
                found="nothing",
                expected=f"the file or folder {self.label}",
                do="put it back, or change the recipe",
            )
        return InputRef(folder_digest(self.path, cache, only=self.only), None, self.label)


@dataclass(frozen=True)
class TokenizerOf:
    """The tokenizer files of a model artifact: retrained weights keep what was made from them."""

    model: Artifact

    def ref(self, cache: DigestCache) -> InputRef:
        """Return the reference by the tokenizer files' content."""
        digest = folder_digest(self.model.path, cache, only=TOKENIZER_FILES)
        return InputRef(digest, self.model.fingerprint, f"tokenizer of {self.model.label}")


StageInput = Artifact | Source | TokenizerOf


def input_ref(value: StageInput, cache: DigestCache) -> InputRef:
    """Return what an input contributes to a fingerprint."""
    if isinstance(value, Artifact):
        return InputRef(value.digest, value.fingerprint, value.label)
    return value.ref(cache)


def input_path(value: StageInput) -> Path:
    """Return where an input's files are."""
    return value.model.path if isinstance(value, TokenizerOf) else value.path


@dataclass(frozen=True)
class StageCall:
    """One call of a stage with its inputs at hand."""

    stage: Stage
    recipe: Recipe
    inputs: Mapping[str, StageInput]

    def identity(self, store: Store) -> Identity:
        """Return what the call will make."""
        return Identity(
            stage=self.stage.name,
            version=self.stage.version,
            name=self.recipe.name,
            config=self.stage.config(self.recipe) | self.stage.input_config(self.inputs),
            inputs={role: input_ref(value, store.digests) for role, value in self.inputs.items()},
        )
