"""Candidates: the answers drawn for a question, their scores, and how both stand in a file."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from swiftcore.errors import ArtifactDamaged, UsageError

_SUFFIX = ".candidates.jsonl"


@dataclass(frozen=True)
class Candidate:
    """One answer, or why there is none.

    Args:
        text: what it says.
        finish_reason: "stop", "length" where it was cut off, "reference" for the dataset's own.
        num_tokens: of the answer; 0 where nobody counted.
        error: why there is none.
    """

    text: str
    finish_reason: str
    num_tokens: int = 0
    error: str | None = None

    @classmethod
    def failed(cls, error: str) -> "Candidate":
        """Return what stands for an answer that did not come."""
        return cls("", "error", 0, error)

    @classmethod
    def reference(cls, text: str) -> "Candidate":
        """Return the dataset's own answer as a candidate."""
        return cls(text, "reference")

    @property
    def is_reference(self) -> bool:
        """Whether it is the dataset's own answer."""
        return self.finish_reason == "reference"

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing."""
        return not self.text.strip()

    @property
    def is_cut_off(self) -> bool:
        """Whether it ended at the longest answer."""
        return self.finish_reason == "length"


@dataclass(frozen=True)
class ScoredCandidates:
    """Everything known of one question's answers.

    Args:
        id: of the question.
        candidates: answers in the order they were drawn, the dataset's own one last.
        orm: outcome reward of each; None without an outcome reward.
        prm: score of the reward model of each; None without a reward model.
        error: why nothing was drawn at all.
    """

    id: str
    candidates: Sequence[Candidate]
    orm: Sequence[float | None] | None = None
    prm: Sequence[float | None] | None = None
    error: str | None = None

    @property
    def drawn(self) -> list[Candidate]:
        """The candidates without the dataset's own answer."""
        return [each for each in self.candidates if not each.is_reference]

    def as_line(self, origin: str) -> dict[str, Any]:
        """Return the line of a file of candidates."""
        return {
            "id": self.id,
            "origin": origin,
            "candidates": [asdict(each) for each in self.candidates],
            "orm": None if self.orm is None else list(self.orm),
            "prm": None if self.prm is None else list(self.prm),
            "error": self.error,
        }

    @classmethod
    def of_line(cls, line: Mapping[str, Any]) -> "ScoredCandidates":
        """Read a line back.

        Raises:
            KeyError, TypeError: it is no line of candidates.
        """
        candidates = [Candidate(**each) for each in line["candidates"]]
        return cls(line["id"], candidates, line["orm"], line["prm"], line["error"])


def candidates_path(output: Path) -> Path:
    """Return where the candidates of an output file stand."""
    return output.with_name(output.name.removesuffix(".jsonl") + _SUFFIX)


def cached_candidates(files: Sequence[str]) -> dict[str, list[Candidate]]:
    """Return the answers that earlier runs drew, by question; those of several files add up.

    Args:
        files: outputs of earlier runs, or their files of candidates.

    Raises:
        UsageError: a file is not there.
        ArtifactDamaged: it is something else.
    """
    found: dict[str, list[Candidate]] = {}
    for name in files:
        for scored in read_candidates(cache_path(name)):
            found.setdefault(scored.id, []).extend(scored.drawn)
    return found


def read_candidates(path: Path) -> Iterator[ScoredCandidates]:
    """Yield the questions of a file of candidates; the half line of a killed run is left out.

    Raises:
        ArtifactDamaged: it is no such file.
    """
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if not line.endswith(b"\n"):
                return
            try:
                yield ScoredCandidates.of_line(json.loads(line))
            except (ValueError, KeyError, TypeError) as err:
                raise ArtifactDamaged(
                    "A line of a file of candidates can't be read.",
                    where=f"{path}:{number}",
                    found=f"{type(err).__name__}: {err}",
                    expected="what swift sample wrote",
                    do="draw the answers again, into another --output_file",
                ) from err


def cache_path(name: str) -> Path:
    """Return the file of candidates that a name means.

    Raises:
        UsageError: it is not there.
    """
    path = Path(name)
    if not path.name.endswith(_SUFFIX):
        path = candidates_path(path)
    if not path.is_file():
        raise UsageError(
            "There are no candidates to score.",
            where=f"cache_files: {name}",
            found=f"no file {path}",
            expected="the output of swift sample, with its file of candidates beside it",
            do="check the path; the first run needs neither orm_model nor prm_model",
        )
    return path
