"""The ways to write a quantized model, one function a method.

On a CPU, bitsandbytes repacks its 4-bit weights in the first forward without gradients, and what is
saved after that can't be read back right. So a model is saved before it has run at all.

Source: Dettmers et al. 2023, QLoRA (arXiv:2305.14314) for NF4; Dettmers et al. 2022, LLM.int8()
(arXiv:2208.07339).
"""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from swiftcore.errors import EnvironmentMissing
from swiftcore.export.folder import complete_folder, sort_metadata, stored_dtype_name
from swiftcore.models.quantizing import LoadQuantization
from swiftcore.models.quiet import without_progress_bars
from swiftcore.recipe.sections import QuantizeSection

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig, TorchAoConfig


def write_quantized(model_dir: Path, out_dir: Path, section: QuantizeSection, device: str) -> None:
    """Write a model's weights in fewer bits, and everything else its folder needs.

    Embeddings and the output head stay as they are, so tied ones stay tied.

    Raises:
        EnvironmentMissing: the package of the method is not installed.
    """
    from transformers import AutoModelForCausalLM

    configs = {"bnb": _bitsandbytes, "torchao": _torchao}
    config = configs[section.quant_method](section, stored_dtype_name(model_dir))
    with without_progress_bars():
        model = AutoModelForCausalLM.from_pretrained(
            model_dir,
            dtype="auto",
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            quantization_config=config,
            device_map={"": device},
        )
        model.save_pretrained(out_dir)
    sort_metadata(out_dir)
    complete_folder(out_dir, model_dir)


def _bitsandbytes(section: QuantizeSection, stored_dtype: str) -> "BitsAndBytesConfig":
    wanted = LoadQuantization(
        bits=section.quant_bits,
        quant_type=section.bnb_4bit_quant_type,
        double_quant=section.bnb_4bit_use_double_quant,
        compute_dtype=section.bnb_4bit_compute_dtype,
    )
    return wanted.config(stored_dtype)


def _torchao(section: QuantizeSection, stored_dtype: str) -> "TorchAoConfig":
    if find_spec("torchao") is None:
        raise EnvironmentMissing(
            "quant_method torchao needs torchao",
            where="quantize.quant_method",
            do="pip install 'swiftcore[quantize]'",
        )
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    schemes = {
        "int8_weight_only": Int8WeightOnlyConfig,
        "int8_dynamic": Int8DynamicActivationInt8WeightConfig,
    }
    return TorchAoConfig(schemes[section.torchao_scheme]())
