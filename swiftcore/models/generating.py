"""Which of transformers' classes loads the generating model in a folder."""

from pathlib import Path
from typing import Any


def generating_class(folder: Path) -> Any:
    """Return transformers' class that loads the generating model in a folder, with all its parts.

    A folder that can't be read is left to that class to report.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMultimodalLM

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    text = type(config) in AutoModelForCausalLM._model_mapping
    multimodal = type(config) in AutoModelForMultimodalLM._model_mapping
    return AutoModelForMultimodalLM if multimodal and not text else AutoModelForCausalLM
