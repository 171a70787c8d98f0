"""Tokens for measuring chunks, from a tokenizer.json."""

from pathlib import Path

from swiftcore.data.documents.chunks import TokenOffsets
from swiftcore.errors import EnvironmentMissing, UsageError


def tokenizer_file(folder: Path) -> Path:
    """Return the tokenizer.json of a folder, or the file itself.

    Raises:
        UsageError: there is none.
    """
    path = folder / "tokenizer.json" if folder.is_dir() else folder
    if not path.is_file():
        raise UsageError(
            "there is no tokenizer here",
            where=folder,
            expected="a folder with a tokenizer.json",
            do="give the folder of a model with a fast tokenizer, or leave the tokenizer out",
        )
    return path


def token_offsets(folder: Path) -> TokenOffsets:
    """Return what gives the (start, end) of each token of a text, without special tokens.

    Raises:
        UsageError: there is no tokenizer.json, or it is broken.
        EnvironmentMissing: the package `tokenizers` is not installed.
    """
    path = tokenizer_file(folder)
    try:
        from tokenizers import Tokenizer
    except ImportError as err:
        raise EnvironmentMissing(
            "the package tokenizers is not installed", do="pip install tokenizers"
        ) from err
    try:
        tokenizer = Tokenizer.from_file(str(path))
    # The package raises plain Exception over a broken file.
    except Exception as err:
        raise UsageError("the tokenizer can't be read", where=path, found=err) from err
    # A length or padding kept in the file would cut or fill what is measured.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: tokenizer.encode(text, add_special_tokens=False).offsets
