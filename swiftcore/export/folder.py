"""What every exported model folder has beside its weights."""

from pathlib import Path

from swiftcore.models.files import copy_tokenizer_files, read_json, write_json


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


def stored_dtype_name(folder: Path) -> str:
    """Return the name of the type that a model's weights are stored in."""
    return read_json(folder / "config.json").get("dtype") or "float32"


def weight_bytes(folder: Path) -> int:
    """Return the size of a folder's weight files."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))
