"""An Ollama Modelfile: a model's template as Ollama writes conversations, with its stop words.

The texts around messages are not taken from a table: the template lays out a conversation of marked
messages, and what stands between the marks is what Ollama has to write there.

Source: https://github.com/ollama/ollama/blob/main/docs/modelfile.md
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from swiftcore.errors import SwiftError, UsageError

if TYPE_CHECKING:
    from swiftcore.template import Template

_SYSTEM, _ASKED, _ANSWERED, _ASKED_AGAIN = "swift0system", "swift1ask", "swift2answer", "swift3ask"


@dataclass(frozen=True)
class Layout:
    """The texts around messages.

    `opening` comes first where there is no system message; else `before_system`, the message and
    `after_system`. A question is followed by `before_answer`, an answer that another question
    follows by `after_answer`. `before_system` is None where the family has no system message.
    """

    opening: str
    before_system: str | None
    after_system: str
    before_answer: str
    after_answer: str


def layout(template: "Template") -> Layout:
    """Return the texts that a template puts around messages.

    Raises:
        UsageError: it writes rounds that no Modelfile can, such as one that changes with the last
            question.
    """
    talk = [("user", _ASKED), ("assistant", _ANSWERED), ("user", _ASKED_AGAIN)]
    text = _prompt(template, talk)
    opening, before_answer = _around(_prompt(template, talk[:1]), _ASKED, template)
    begun, rest = _around(text, _ASKED, template)
    middle, rest = _around(rest, _ANSWERED, template)
    after_answer, end = _around(rest, _ASKED_AGAIN, template)
    if (begun, middle, end) != (opening, before_answer, before_answer):
        raise _not_sayable(template, "later rounds are written otherwise than the first")
    before_system, after_system = _system(template, before_answer)
    return Layout(opening, before_system, after_system, before_answer, after_answer)


def modelfile(template: "Template", model: str) -> str:
    """Return the Modelfile that lets Ollama talk as the model was trained.

    Args:
        template: of the model, with its settings.
        model: what FROM names: a GGUF file beside it, or a folder.

    Raises:
        UsageError: the template has no form as a Modelfile.
    """
    texts = layout(template)
    lines = [f"FROM {model}", f'TEMPLATE """{_go_template(texts, template)}"""']
    if template.default_system:
        lines.append(f'SYSTEM """{_plain(template.default_system, template)}"""')
    lines += [f"PARAMETER stop {_quoted(word)}" for word in template.stop_words]
    return "\n".join(lines) + "\n"


def _go_template(texts: Layout, template: "Template") -> str:
    """Write the layout in Go's template language, on one line: its white space is text."""

    def plain(text: str | None) -> str:
        return _plain(text or "", template)

    opening = plain(texts.opening)
    if texts.before_system is not None:
        system = f"{plain(texts.before_system)}{{{{ .System }}}}{plain(texts.after_system)}"
        opening = f"{{{{ if .System }}}}{system}{{{{ else }}}}{opening}{{{{ end }}}}"
    answered = f"{{{{ .Content }}}}{{{{ if not $last }}}}{plain(texts.after_answer)}{{{{ end }}}}"
    return (
        f"{opening}{{{{ range $i, $_ := .Messages }}}}"
        "{{ $last := eq (len (slice $.Messages $i)) 1 }}"
        f'{{{{ if eq .Role "user" }}}}{{{{ .Content }}}}{plain(texts.before_answer)}'
        f'{{{{ else if eq .Role "assistant" }}}}{answered}'
        "{{ end }}{{ end }}"
    )


def _system(template: "Template", before_answer: str) -> tuple[str | None, str]:
    try:
        text = _prompt(template, [("system", _SYSTEM), ("user", _ASKED)])
    except SwiftError:
        return None, ""
    if _SYSTEM not in text:
        return None, ""
    before, rest = _around(text, _SYSTEM, template)
    after, end = _around(rest, _ASKED, template)
    if end != before_answer:
        raise _not_sayable(template, "a system message changes what follows the question")
    return before, after


def _prompt(template: "Template", talk: list[tuple[str, str]]) -> str:
    messages: list[dict[str, Any]] = [{"role": role, "content": text} for role, text in talk]
    encoded = template.encode({"messages": messages}, mode="infer")
    assert not isinstance(encoded, list)
    return encoded.text


def _around(text: str, mark: str, template: "Template") -> tuple[str, str]:
    before, found, after = text.partition(mark)
    if not found or mark in after:
        raise _not_sayable(template, "a message does not stand once, and unchanged, in its place")
    return before, after


def _plain(text: str, template: "Template") -> str:
    if '"""' in text or "{{" in text:
        raise _not_sayable(template, "its texts hold quotes or braces that Ollama reads itself")
    return text


def _quoted(word: str) -> str:
    return f'"""{word}"""' if "\n" in word or '"' in word else f'"{word}"'


def _not_sayable(template: "Template", reason: str) -> UsageError:
    return UsageError(
        f"template {template.name!r} has no form as an Ollama Modelfile",
        where="to_ollama",
        found=reason,
        do="write the GGUF file alone (--to_gguf): its chat template is inside",
    )
