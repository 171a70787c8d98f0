"""The demo's data, made from a seed: an agent task and the text its base model is pretrained on.

`slots` owns the values that fill a sentence and splits each kind in two by a rule on the value
itself, `agent` owns the tools and the wordings, `corpus` writes the plain text that teaches a
small model to read, copy and extract, but never the chat or tool-call format. The test split
draws from the held-out half of both values and wordings, so a good score is not memory.

    python -m data.generators --out data/demo

Standard library only, and the same bytes on every machine: a seeded `random.Random`, no clock,
no iteration over sets.
"""
