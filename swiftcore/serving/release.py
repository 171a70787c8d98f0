"""What is served: a release, the answers it must repeat, and the outcome of a deployment."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

OWNER = "swiftcore"
LOG_INTERVAL_SECONDS = 20
MAX_LOGPROBS = 20


@dataclass(frozen=True)
class AdapterChange:
    """Names of the adapters that come, go and stay between releases that differ in nothing else."""

    loaded: tuple[str, ...]
    removed: tuple[str, ...]
    kept: tuple[str, ...]

    def as_dict(self) -> dict[str, list[str]]:
        """Return the names as JSON-ready fields."""
        return {what: list(names) for what, names in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Sequence[str]]) -> "AdapterChange":
        """Rebuild a change from `as_dict`."""
        return cls(**{what: tuple(names) for what, names in fields.items()})

    def told(self, seconds: float) -> str:
        """Return what happened to a running server in this time, for people."""
        done = []
        if self.loaded:
            done.append(f"{_adapters(self.loaded)} loaded into the running server")
        if self.removed:
            server = "it" if self.loaded else "the running server"
            done.append(f"{_adapters(self.removed)} removed from {server}")
        kept = f"; {', '.join(self.kept)} kept" if self.kept else ""
        return f"{' and '.join(done)} in {seconds:.1f} s{kept}"


@dataclass(frozen=True)
class Release:
    """One version of one model, ready to be served.

    Args:
        fingerprint: identity; two releases with one fingerprint are the same.
        name: endpoint and model name.
        served_model_name: the name that requests use instead of it.
        version: registered version, if any; clients may ask for `name@version`.
        model_dir: model folder.
        adapter_dir: adapter folder, if the model is served with one.
        digest: tree digest of the served files, for the record.
        aliases: further model names.
        device, num_threads, dtype, max_batch_size, max_model_len, max_new_tokens,
        max_concurrent_requests, max_logprobs, owned_by, verbose, log_interval: as the server's
        flags of these names.
        sampling_defaults: temperature, top_p, top_k and repetition_penalty of a request without
            them, where they are not OpenAI's.
        infer_backend: engine; pt is transformers in the server's own process, the others are tools.
        backend_settings: the tool's settings that differ from their defaults.
        adapters: folders of adapters over the model, by the names that requests use.
        adapter_digests: what is in these folders, for the record.
        backends_dir: where environments of tools are; None for the usual place.
        server: python module that serves; it takes the flags of `swiftcore.serving.server`.
    """

    fingerprint: str
    name: str
    version: str | None
    model_dir: Path
    adapter_dir: Path | None = None
    digest: str | None = None
    aliases: tuple[str, ...] = ()
    device: str = "cpu"
    num_threads: int | None = None
    dtype: str | None = None
    max_batch_size: int = 8
    max_model_len: int | None = None
    max_new_tokens: int = 512
    max_concurrent_requests: int = 64
    infer_backend: str = "pt"
    backend_settings: Mapping[str, Any] = field(default_factory=dict)
    adapters: Mapping[str, Path] = field(default_factory=dict)
    adapter_digests: Mapping[str, str] = field(default_factory=dict)
    backends_dir: Path | None = None
    served_model_name: str | None = None
    owned_by: str = OWNER
    max_logprobs: int = MAX_LOGPROBS
    sampling_defaults: Mapping[str, float] = field(default_factory=dict)
    verbose: bool = False
    log_interval: int = LOG_INTERVAL_SECONDS
    server: str = "swiftcore.serving.server"

    def __post_init__(self) -> None:
        # The server runs in another folder.
        object.__setattr__(self, "model_dir", Path(self.model_dir).absolute())
        if self.adapter_dir is not None:
            object.__setattr__(self, "adapter_dir", Path(self.adapter_dir).absolute())
        if self.backends_dir is not None:
            object.__setattr__(self, "backends_dir", Path(self.backends_dir).absolute())
        adapters = {name: Path(folder).absolute() for name, folder in self.adapters.items()}
        object.__setattr__(self, "adapters", adapters)
        object.__setattr__(self, "aliases", tuple(self.aliases))

    @property
    def names(self) -> tuple[str, ...]:
        """Every model name clients may use, the main one first."""
        main = self.served_model_name or self.name
        versioned = (f"{main}@{self.version}",) if self.version else ()
        return tuple(dict.fromkeys((main, *versioned, *self.aliases)))

    @property
    def all_names(self) -> tuple[str, ...]:
        """The model's names and those of its adapters."""
        return (*self.names, *self.adapters)

    @property
    def label(self) -> str:
        """Short text for messages and logs."""
        version = f"@{self.version}" if self.version else ""
        return f"{self.name}{version} ({self.fingerprint[:12]})"

    def as_dict(self) -> dict[str, Any]:
        """Return the release as JSON-ready fields."""
        fields = dataclasses.asdict(self)
        fields["model_dir"] = str(self.model_dir)
        fields["adapter_dir"] = None if self.adapter_dir is None else str(self.adapter_dir)
        fields["aliases"] = list(self.aliases)
        fields["adapters"] = {name: str(folder) for name, folder in self.adapters.items()}
        fields["backends_dir"] = None if self.backends_dir is None else str(self.backends_dir)
        return fields

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Release":
        """Rebuild a release from `as_dict`."""
        return cls(**fields)

    def adapter_change(self, wanted: "Release") -> AdapterChange | None:
        """Return what makes a wanted release of this one; None where it takes another server.

        A name whose folder is another one takes another server: in this one, answers under that
        name would come from both while it changes.
        """
        same, theirs = (
            replace(each, fingerprint="", adapters={}, adapter_digests={})
            for each in (self, wanted)
        )
        kept = tuple(name for name in wanted.adapters if name in self.adapters)
        moved = any(self.adapters[name] != wanted.adapters[name] for name in kept)
        loaded = tuple(name for name in wanted.adapters if name not in self.adapters)
        removed = tuple(name for name in self.adapters if name not in wanted.adapters)
        if same != theirs or moved or not (loaded or removed):
            return None
        return AdapterChange(loaded, removed, kept)

    @property
    def folders(self) -> list[Path]:
        """The folders that are served from."""
        above = [] if self.adapter_dir is None else [self.adapter_dir]
        return [self.model_dir, *above, *self.adapters.values()]

    def files(self) -> list[tuple[str, int, int]]:
        """Return (path, size, mtime in ns) of every served file: cheap evidence of a change."""
        found = [path for folder in self.folders for path in folder.rglob("*") if path.is_file()]
        stats = [(str(path), path.stat()) for path in sorted(found)]
        return [(path, stat.st_size, stat.st_mtime_ns) for path, stat in stats]

    def command(self) -> list[str]:
        """Return the server's flags for this release, without address and parent."""
        flags = ["--model", str(self.model_dir), "--name", self.names[0]]
        for alias in self.names[1:]:
            flags += ["--alias", alias]
        for name, folder in self.adapters.items():
            flags += ["--named-adapter", f"{name}={folder}"]
        if self.infer_backend != "pt":
            settings = json.dumps(dict(self.backend_settings), sort_keys=True)
            flags += ["--infer-backend", self.infer_backend, "--backend-settings", settings]
        if self.sampling_defaults:
            flags += ["--sampling-defaults", json.dumps(dict(self.sampling_defaults))]
        optional = {
            "--backends-dir": self.backends_dir,
            "--adapter": self.adapter_dir,
            "--device": self.device,
            "--num-threads": self.num_threads,
            "--dtype": self.dtype,
            "--max-batch-size": self.max_batch_size,
            "--max-model-len": self.max_model_len,
            "--max-new-tokens": self.max_new_tokens,
            "--max-concurrent-requests": self.max_concurrent_requests,
            "--max-logprobs": self.max_logprobs,
            "--owned-by": self.owned_by,
            "--log-interval": self.log_interval,
            "--fingerprint": self.fingerprint,
        }
        for flag, value in optional.items():
            if value is not None:
                flags += [flag, str(value)]
        return [*flags, "--verbose"] if self.verbose else flags


def _adapters(names: Sequence[str]) -> str:
    return f"adapter{'s' if len(names) > 1 else ''} {', '.join(names)}"


def release_fingerprint(
    model: str,
    infer_backend: str,
    settings: Mapping[str, Any],
    adapters: Mapping[str, str],
    endpoint: Mapping[str, Any] | None = None,
) -> str:
    """Return the identity of a release: that of its model alone where nothing else shapes it.

    What is in it is what a running server can't change: another value needs another process.

    Args:
        model: fingerprint of the served model.
        infer_backend: who serves.
        settings: of the backend, those that differ from their defaults.
        adapters: digests of adapters by name.
        endpoint: of the names, the limits and the log, those that differ from their defaults.
    """
    if infer_backend == "pt" and not adapters and not endpoint:
        return model
    parts = [model, infer_backend, dict(settings), dict(adapters)]
    if endpoint:
        parts.append(dict(endpoint))
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Golden:
    """A prompt whose tokens, or greedy answer, the endpoint must repeat.

    Args:
        expected: the answer's text as the engine gave it, tool calls included, to be repeated
            letter by letter; None: only the tokens are compared.
        messages: conversation, as a standard row has it; or
        prompt_ids: the prompt as tokens.
        tools: the row's tools: JSON text, or a list.
        max_tokens: longest answer when `expected` was made.
        trained_ids: the tokens that training has before the answer to `messages`.
    """

    expected: str | None
    messages: list[dict[str, Any]] | None = None
    tools: str | list[dict[str, Any]] | None = None
    prompt_ids: list[int] | None = None
    max_tokens: int | None = None
    trained_ids: list[int] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the golden answer as JSON-ready fields."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class DeployResult:
    """An endpoint that answers.

    `reused` tells that the release was there already and nothing was restarted; `in_place`, that
    the running server became it by changing its adapters.
    """

    url: str
    pid: int
    version: str | None
    previous: str | None
    seconds: float
    golden_matched: int
    reused: bool = False
    fingerprint: str = field(default="")
    in_place: AdapterChange | None = None
