"""An engine that answers by a rule on a prompt's text, and a template of one token a letter."""

from dataclasses import dataclass

from swiftcore.generation import Completion


@dataclass
class Encoded:
    input_ids: list[int]
    text: str


class CharacterTemplate:
    """One token a character."""

    def encode(self, row, mode="train"):
        assert mode == "infer"
        text = "".join(f"<{m['role']}>{m['content']}" for m in row["messages"])
        return Encoded([ord(c) for c in text], text)


class RuleEngine:
    """A rule gives text, or (text, finish reason); its exception is an engine's failure.

    `params` has the sampling parameters and the batch size of each call.
    """

    def __init__(self, rule):
        self.template = CharacterTemplate()
        self.rule = rule
        self.params = []

    def generate(self, prompts, params, *, batch_size, progress=None):
        self.params.append((params, batch_size))
        completions = []
        for done, prompt in enumerate(prompts, 1):
            answer = self.rule("".join(map(chr, prompt)))
            text, reason = answer if isinstance(answer, tuple) else (answer, "stop")
            completions.append(Completion([0] * len(text), text, reason, len(prompt), len(text)))
            if progress:
                progress.update(done, len(prompts), "busy")
        return completions
