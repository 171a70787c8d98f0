"""Event files that TensorBoard reads, written without it.

A file is a sequence of records: length, checksum of the length, a protocol buffer, its checksum.
Source: tensorflow/core/lib/io/record_writer.h and tensorflow/core/util/event.proto.
"""

import os
import struct
import time
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

# Castagnoli's polynomial, lowest bit first.
_POLYNOMIAL = 0x82F63B78
_MASK_DELTA = 0xA282EAD8
_PREFIX = "events.out.tfevents."
_SUFFIX = ".swiftcore"
_NOT_SCALARS = ("step", "time")


class EventFile:
    """The scalars of one run. A new file replaces an earlier one of this folder.

    A run that goes on after a crash reports its lines from the first one again; two files would
    show them twice.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for earlier in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
            earlier.unlink()
        now = time.time()
        self.path = folder / f"{_PREFIX}{int(now):010d}.{os.getpid()}{_SUFFIX}"
        self._write(_double(1, now) + _bytes(3, b"brain.Event:2"))

    def add_line(self, line: Mapping[str, Any]) -> None:
        """Write the numbers of a metric line, as `train/loss` or `eval/loss`."""
        moment = line.get("time")
        seconds = datetime.fromisoformat(moment).timestamp() if moment else time.time()
        values = b"".join(
            _bytes(1, _bytes(1, _tag(name).encode()) + _float(2, value))
            for name, value in line.items()
            if name not in _NOT_SCALARS and isinstance(value, int | float)
        )
        self._write(_double(1, seconds) + _number(2, int(line["step"])) + _bytes(5, values))

    def _write(self, event: bytes) -> None:
        length = struct.pack("<Q", len(event))
        record = length + _checksum(length) + event + _checksum(event)
        with self.path.open("ab") as stream:
            stream.write(record)


def _tag(name: str) -> str:
    return f"eval/{name.removeprefix('eval_')}" if name.startswith("eval_") else f"train/{name}"


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def _checksum(data: bytes) -> bytes:
    """Return the masked CRC-32C that TFRecord files use."""
    crc = crc32c(data)
    rotated = (crc >> 15 | crc << 17) & 0xFFFFFFFF
    return struct.pack("<I", rotated + _MASK_DELTA & 0xFFFFFFFF)


def crc32c(data: bytes) -> int:
    """Return the Castagnoli checksum. Source: RFC 3720, appendix B.4."""
    table, crc = _table(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


@cache
def _table() -> tuple[int, ...]:
    entries: list[int] = []
    for index in range(256):
        crc = index
        for _ in range(8):
            crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
        entries.append(crc)
    return tuple(entries)
