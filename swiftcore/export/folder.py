"""What every exported model folder has beside its weights."""

import json
import struct
from pathlib import Path

from swiftcore.models.files import copy_tokenizer_files, read_json, write_json

# A safetensors file begins with the length of its header.
_LENGTH_BYTES = 8


def complete_folder(out_dir: Path, *sources: Path) -> None:
    """Copy tokenizer and template settings from the sources, later ones over earlier ones.

    The configurations are written again with sorted keys and without the path the weights came
    from, so that equal models have equal bytes wherever they were made.
    """
    for source in sources:
        copy_tokenizer_files(source, out_dir)
    for name in ("config.json", "generation_config.json"):
        if (out_dir / name).is_file():
            config = read_json(out_dir / name)
            config.pop("_name_or_path", None)
            write_json(out_dir / name, config)


def sort_metadata(folder: Path) -> None:
    """Write the metadata of a folder's weight files in the order of its keys.

    safetensors keeps them in a hash map, whose order differs from process to process.
    """
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("r+b") as stream:
            length = struct.unpack("<Q", stream.read(_LENGTH_BYTES))[0]
            header = json.loads(stream.read(length))
            if not header.get("__metadata__"):
                continue
            header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
            text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
            assert len(text) <= length
            stream.seek(_LENGTH_BYTES)
            stream.write(text.ljust(length))


def stored_dtype_name(folder: Path) -> str:
    """Return the name of the type that a model's weights are stored in."""
    return read_json(folder / "config.json").get("dtype") or "float32"


def weight_bytes(folder: Path) -> int:
    """Return the size of a folder's weight files."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
