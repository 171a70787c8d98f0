"""The types that a GGUF file's matrices are stored in."""

from typing import Literal, get_args

# Written here, one rule for every weight.
Outtype = Literal["f32", "f16", "bf16", "q8_0"]
# Made by llama.cpp, which mixes types: about 4.8, 5.7 and 6.6 bits a weight.
KQuant = Literal["q4_k_m", "q5_k_m", "q6_k"]
K_QUANTS: tuple[str, ...] = get_args(KQuant)
OUTTYPES: tuple[str, ...] = (*get_args(Outtype), *K_QUANTS)
