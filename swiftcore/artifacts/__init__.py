"""The artifact layer: identity, verified reuse, leases, resuming, lineage, remote copies.

Prefect schedules, DVC versions data, MLflow records; what an artifact is and whether it may be
reused is decided here, and nowhere else. Read `fingerprint`, then `store`, then `make`.
"""

from swiftcore.artifacts.digests import DigestCache, folder_digest
from swiftcore.artifacts.fingerprint import Identity, InputRef, canonical_json, section_config
from swiftcore.artifacts.make import Outcome, Produced, make
from swiftcore.artifacts.record import FileEntry, Record, read_record
from swiftcore.artifacts.store import Artifact, Store, WorkArea

__all__ = [
    "Artifact",
    "DigestCache",
    "FileEntry",
    "Identity",
    "InputRef",
    "Outcome",
    "Produced",
    "Record",
    "Store",
    "WorkArea",
    "canonical_json",
    "folder_digest",
    "make",
    "read_record",
    "section_config",
]
