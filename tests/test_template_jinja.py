"""A model's own Jinja chat template: rendering, proof of the answers, limits, inference, parity."""

import json
import subprocess
import sys
import time
from collections import Counter
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from template_fixtures import (
    QWEN2_5_LIKE,
    SHARED,
    SPECIAL,
    TOOLS,
    chat,
    labelled_text,
    published_templates,
    real_tokenizer,
    shared_file,
    small_tokenizer,
    tokenizer_for_template,
)

from swiftcore.errors import DataError, UsageError
from swiftcore.template import get_template, infer_template, parity_report, render_chat
from swiftcore.template.jinja import limits, render

TODAY = date(2024, 7, 26)
PUBLISHED = SHARED / "data" / "chat_templates"
MARKED = """\
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
<|im_start|>assistant
{% generation %}{{ message.content }}{% endgeneration %}<|im_end|>
{% else -%}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}
"""
CALL = {"role": "tool_call", "content": '{"name": "get_weather", "arguments": {"city": "Paris"}}'}
REPLIED = [
    CALL,
    {"role": "tool_response", "content": "21"},
    {"role": "assistant", "content": "21."},
]
KINDS = {
    "one round": {"messages": chat("first question", "an answer")},
    "two rounds": {"messages": chat("first question", "one", "second question", "four")},
    "system": {
        "messages": chat("first question", "one", "second question", "four", system="Be kind.")
    },
    "thinking": {
        "messages": chat(
            "first question",
            "<think>\nhm\n</think>\n\ntwo",
            "second question",
            "<think>\nho\n</think>\n\nfour",
        )
    },
    "spaces": {"messages": chat(" first question ", " two\n", "second question", "four  ")},
    "tools": {
        "messages": [
            *chat("first question"),
            CALL,
            {"role": "tool_response", "content": "reply of the tool"},
            {"role": "assistant", "content": "21."},
        ],
        "tools": TOOLS,
    },
}
TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20).filter(
    lambda text: text == text.strip()
)
HOSTILE = st.lists(
    st.one_of(st.sampled_from([*SPECIAL, "\U000f1a01", "\U000f1b01"]), TEXT), max_size=4
)


def _records() -> list[dict]:
    path = PUBLISHED / "golden_renders.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_published_templates_render_as_recorded():
    shared_file("data", "chat_templates", "golden_renders.jsonl")
    contexts = json.loads((PUBLISHED / "golden_contexts.json").read_text(encoding="utf-8"))
    wrong = []
    for record in _records():
        path = SHARED / "data" / record["template"]
        source = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            source = json.loads(source)["chat_template"]
        names = {"bos_token": "<BOS>", "eos_token": "<EOS>"} | contexts[record["context"]]
        try:
            text = render(source, today=TODAY, **names).text
        except DataError:
            text = None
        if text != record.get("output"):
            wrong.append((record["template"], record["context"]))
    assert wrong == []


GROW = "{% set n = namespace(s='aaaa', i=99) %}{% for i in range(9999) %}"
HOSTILE_TEMPLATES = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "long range": "{{ range(10**9) | list }}",
    "recursive loop": "{% for a in [[1]] recursive %}{{ loop([a]) }}{% endfor %}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "deep nesting": "{{ " + "(" * 5000 + ")" * 5000 + " }}",
    "nested blocks": "{% for a in [1] %}" * 60 + "{% endfor %}" * 60,
    "product": "{{ 'a' * 10**10 }}",
    "list product": "{{ [0] * 10**9 }}",
    "power": "{{ 9 ** 9 ** 9 }}",
    "squares": GROW + "{% set n.i = n.i * n.i %}{% endfor %}{{ n.i }}",
    "doubling": GROW + "{% set n.s = n.s + n.s %}{% endfor %}",
    "doubling by tilde": GROW + "{% set n.s = n.s ~ n.s %}{% endfor %}",
    "doubling by join": GROW + "{% set n.s = [n.s, n.s] | join %}{% endfor %}",
    "doubling by method": GROW + "{% set n.s = n.s.join([n.s, n.s]) %}{% endfor %}",
    "doubling by replace": GROW + "{% set n.s = n.s.replace('a', 'aa') %}{% endfor %}",
    "doubling by filter": GROW + "{% set n.s = n.s | replace('a', 'aa') %}{% endfor %}",
    "doubling by format": GROW + "{% set n.s = '%s%s' % (n.s, n.s) %}{% endfor %}",
    "doubling by str.format": GROW + "{% set n.s = '{0}{0}'.format(n.s) %}{% endfor %}",
    "doubling by block": GROW
    + "{% set s %}{{ n.s }}{{ n.s }}{% endset %}{% set n.s = s %}{% endfor %}",
    "doubling by macro": "{% macro f(s) %}{{ s }}{{ s }}{% endmacro %}"
    + GROW
    + "{% set n.s = f(n.s) %}{% endfor %}",
    "many large texts": GROW + "{% set n.s = [n.s, 'a' * 9999999] %}{% endfor %}",
    "slow filters": GROW + "{{ ('a' * 999999) | upper | length }}{% endfor %}",
    "format": "{{ '%999999999d' % 1 }}",
    "format by argument": "{{ '%*d' % (999999999, 1) }}",
    "str.format": "{{ '{:999999999}'.format(1) }}",
    "str.format by argument": "{{ '{:{w}}'.format(1, w=999999999) }}",
    "format_map": "{{ '{a:999999999}'.format_map({'a': 1}) }}",
    "format filter": "{{ '%999999999d' | format(1) }}",
    "center": "{{ 'a'.center(999999999) }}",
    "zfill": "{{ 'a'.zfill(999999999) }}",
    "expandtabs": "{{ '\\t'.expandtabs(999999999) }}",
    "center filter": "{{ 'a' | center(999999999) }}",
    "batch": "{{ [1] | batch(999999999, 0) | list }}",
    "indent": "{{ 'a\\nb' | indent(999999999) }}",
    "tojson indent": "{{ [1] | tojson(indent=999999999) }}",
    "lipsum": "{{ lipsum(n=999999) }}",
    "random": "{{ [1, 2] | random }}",
    "internals": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "internals by item": "{{ ''['__class__']['__mro__'] }}",
    "internals by filter": "{{ '' | attr('__class__') }}",
    "internals by map": "{{ [''] | map(attribute='__class__') | list }}{{ 1 / 0 }}",
    "internals by format": "{{ '{0.__class__}'.format('') }}",
    "internals of a macro": "{% macro f() %}{% endmacro %}{{ f._func.__globals__ }}",
    "internals of a loop": "{% for a in [1] %}{{ loop._iterable.__class__ }}{% endfor %}",
    "internals of a function": "{{ raise_exception.__globals__ }}",
    "internals of the template": "{{ self.__init__.__globals__ }}{{ 1 / 0 }}",
    "attribute of a number": "{{ (1).bit_length() }}",
    "mutation": "{{ messages.append(1) }}",
    "mutation of a dict": "{{ {}.update(a=1) }}",
    "namespace": "{{ namespace(__class__=1) }}",
    "file": "{{ open('/etc/passwd').read() }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}{{ os.system('true') }}",
    "extends": "{% extends 'base' %}",
    "raises": "{{ raise_exception('no') }}",
    "raises much": "{{ raise_exception('no' * 9999999) }}",
    "syntax": "{% for %}",
    "unknown name": "{{ nobody.knows }}",
    "division": "{{ 1 / 0 }}",
    "long source": "a" * 1_000_001,
}


@pytest.mark.parametrize("source", HOSTILE_TEMPLATES.values(), ids=HOSTILE_TEMPLATES)
def test_hostile_chat_templates_are_stopped(source, monkeypatch):
    monkeypatch.setattr(limits, "MAX_STEPS", 50_000)
    monkeypatch.setattr(limits, "MAX_SECONDS", 0.5)
    started = time.monotonic()
    with pytest.raises(DataError) as caught:
        render(source, today=TODAY, messages=[])
    assert time.monotonic() - started < 5
    assert len(str(caught.value)) < 2000


def test_hostile_chat_templates_need_little_memory():
    """The largest of them, in a process of its own: its peak stays under 400 MB."""
    growing = [s for name, s in HOSTILE_TEMPLATES.items() if "doubling" in name or "large" in name]
    code = f"""
import resource
from datetime import date
from swiftcore.errors import DataError
from swiftcore.template.jinja import render
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for source in {growing!r}:
    try:
        render(source, today=date(2024, 7, 26), messages=[])
    except DataError:
        continue
    raise SystemExit("not stopped: " + source)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 400


def test_ordinary_texts_do_not_look_hostile():
    source = "{{ messages[0].content.strip() | trim ~ messages[0].content.split('x')[0] }}"
    for content in ("100%99999999d", "{:99999999}", "{99999999}", "%*d", "a" * 1_000_000):
        text = render(source, today=TODAY, messages=[{"content": content}]).text
        assert text == content * 2


@pytest.mark.parametrize("source", [QWEN2_5_LIKE, MARKED], ids=["derived", "marked"])
@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(HOSTILE, HOSTILE), min_size=1, max_size=3))
def test_mask_is_the_answers_and_their_stop_token(source, rounds):
    tokenizer = small_tokenizer(source)
    template = get_template("jinja", tokenizer)
    texts = ["".join(text) for pair in rounds for text in pair]
    encoded = template.encode({"messages": chat(*texts)})
    answers = texts[1::2]
    assert labelled_text(tokenizer, encoded) == "".join(text + "<|im_end|>" for text in answers)
    ends = [token for token in encoded.input_ids if token == tokenizer.eos_token_id]
    assert len(ends) == len(texts) + (source is QWEN2_5_LIKE)
    prompt = render_chat(template, chat(*texts[:-1])).input_ids
    assert encoded.input_ids[: len(prompt)] == prompt


def test_jinja_and_family_give_the_same_tokens():
    tokenizer = small_tokenizer(QWEN2_5_LIKE)
    row = {"messages": chat("one", "two", "three", "four")}
    ours = get_template("qwen2_5", tokenizer).encode(row)
    theirs = get_template("jinja", tokenizer).encode(row)
    assert theirs.input_ids == ours.input_ids
    assert get_template("jinja", tokenizer).stop_words == ["<|im_end|>"]


REFUSED = {
    "no stop token": "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}",
    "words left out": "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content[:3] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "no prompt": "{% for m in messages %}<|im_start|>{{ m.role }}: {{ m.content }}<|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>bot: {% endif %}",
}


@pytest.mark.parametrize("source", REFUSED.values(), ids=REFUSED)
def test_answers_that_cannot_be_proven_are_refused(source):
    template = get_template("jinja", small_tokenizer(source))
    with pytest.raises(DataError, match="does not show which tokens"):
        template.encode({"messages": chat("question", "answer one", "more", "answer two")})


HISTORY_REWRITTEN = """\
{% for m in messages %}<|im_start|>{{ m.role }}
{% if loop.last or m.role == 'user' %}{{ m.content }}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


@pytest.mark.parametrize("loss_scale", ["default", "last_round"])
def test_rewritten_history_is_trained_on_its_last_answer(loss_scale):
    tokenizer = small_tokenizer(HISTORY_REWRITTEN)
    template = get_template("jinja", tokenizer, loss_scale=loss_scale)
    messages = chat("question", "answer one", "more", "answer two")
    encoded = template.encode({"messages": messages})
    assert labelled_text(tokenizer, encoded) == "answer two<|im_end|>"
    assert "answer one" not in encoded.text
    reason = "it writes an answer differently once the conversation goes on"
    assert template.untrained == ({reason: 1} if loss_scale == "default" else {})
    messages[1]["loss"] = True
    with pytest.raises(DataError, match="once the conversation goes on"):
        template.encode({"messages": messages})


THINKING_STRIPPED = """\
{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content.split('</think>')[-1] if m.role == 'assistant' else m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
<think>
{% endif %}"""


def test_an_answer_the_prompt_begins_is_trained_as_it_will_be_served():
    tokenizer = small_tokenizer(THINKING_STRIPPED)
    template = get_template("jinja", tokenizer)
    thoughtful = "<think>\nhm\n</think>\n\nfour"
    encoded = template.encode({"messages": chat("one", "two", "three", thoughtful)})
    assert labelled_text(tokenizer, encoded) == "hm\n</think>\n\nfour<|im_end|>"
    prompt = render_chat(template, chat("one", "two", "three")).input_ids
    assert encoded.input_ids[: len(prompt)] == prompt
    assert encoded.text[len(tokenizer.decode(prompt)) :] == "hm\n</think>\n\nfour<|im_end|>"
    with pytest.raises(DataError, match="no prefix of the conversation"):
        template.encode({"messages": chat("one", "four")})


PARTS = """\
{% for m in messages %}<|im_start|>{{ m.role }}
{% for part in m.content %}{{ part['text'] }}{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def test_content_comes_as_parts_where_the_template_wants_parts():
    tokenizer = small_tokenizer(PARTS)
    template = get_template("jinja", tokenizer)
    encoded = template.encode({"messages": chat("one", "two", "three", "four")})
    assert labelled_text(tokenizer, encoded) == "two<|im_end|>four<|im_end|>"
    assert template.stop_words == ["<|im_end|>"]


ENDING = (
    "{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CALLING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}{% if m.tool_calls %}"
)
CALL_STYLES = {
    "object": "{{ c.function | tojson }}",
    "text": "{{ c.function.name + c.function.arguments }}",
    "no repr": "{{ c.function.name ~ c.function.arguments }}",
    "no content": "{% if m.content is none %}{{ c | tojson }}{% endif %}",
    "named ids": "{{ c.id }}{{ c.function.arguments | tojson }}",
}
CALL_STYLES = {
    name: f"{{% for c in m.tool_calls %}}{style}{{% endfor %}}"
    for name, style in CALL_STYLES.items()
}


@pytest.mark.parametrize("calls", CALL_STYLES.values(), ids=CALL_STYLES)
def test_calls_are_written_the_way_the_template_takes_them(calls):
    tokenizer = small_tokenizer(CALLING + calls + ENDING)
    template = get_template("jinja", tokenizer)
    encoded = template.encode({"messages": [*chat("w"), *REPLIED], "tools": TOOLS})
    call, end, reply = labelled_text(tokenizer, encoded).partition("<|im_end|>")
    assert "get_weather" in call
    assert '"city": "Paris"' in call.replace("\\", "")
    assert end + reply == "<|im_end|>21.<|im_end|>"


def test_calls_that_a_template_leaves_out_are_refused():
    template = get_template("jinja", small_tokenizer(CALLING + ENDING))
    with pytest.raises(DataError, match="leaves a tool call out"):
        template.encode({"messages": [*chat("w"), *REPLIED], "tools": TOOLS})


def test_of_several_templates_the_one_for_tools_is_taken():
    tokenizer = small_tokenizer()
    tokenizer.chat_template = {
        "default": CALLING + ENDING,
        "tool_use": "tools! " + CALLING + CALL_STYLES["object"] + ENDING,
    }
    template = get_template("jinja", tokenizer)
    with_tools = template.encode({"messages": [*chat("w"), *REPLIED], "tools": TOOLS})
    assert with_tools.text.startswith("tools! ")
    assert template.encode({"messages": chat("w", "v")}).text.startswith("<|im_start|>")


def test_every_published_template_trains_with_proof_or_says_why_not():
    """All real templates over six kinds of rows; the counts are those of docs/templates.md."""
    trained, reasons, wrong = Counter(), Counter(), []
    for path, source in published_templates():
        tokenizer = tokenizer_for_template(source)
        template = get_template("jinja", tokenizer, today=TODAY)
        for kind, row in KINDS.items():
            try:
                encoded = template.encode(row)
            except DataError as err:
                reasons[err.message.partition(": ")[2] or "refused by the template"] += 1
                continue
            trained[kind] += 1
            told = labelled_text(tokenizer, encoded)
            last = row["messages"][-1]["content"].rpartition("</think>")[2].strip()
            prompt = render_chat(template, row["messages"][:-1], row.get("tools")).input_ids
            held = [
                encoded.input_ids[: len(prompt)] == prompt,
                told.rstrip().endswith(tuple(template.stop_words)) or "return" in told,
                last in told,
                set(encoded.labels[: len(prompt)]) != set(prompt),
                row["messages"][-2]["content"] not in told,
            ]
            if not all(held):
                wrong.append((path, kind, held, told))
    assert wrong == []
    assert dict(trained) == {
        "one round": 99,
        "two rounds": 99,
        "system": 95,
        "thinking": 98,
        "spaces": 99,
        "tools": 50,
    }
    assert dict(reasons) == {
        "refused by the template": 96,
        "its generation prompt is no prefix of the conversation": 56,
        "it ends an answer without a stop token": 54,
        "it leaves a tool call out": 35,
        "its prompts leave out what was asked": 6,
        "it leaves words of an answer out": 4,
        "it writes an answer differently once the conversation goes on": 1,
    }


def test_tokenizer_without_a_chat_template_is_refused():
    with pytest.raises(UsageError, match="no chat template"):
        get_template("jinja", small_tokenizer())


@pytest.fixture
def qwen(tmp_path_factory):
    return real_tokenizer("qwen", tmp_path_factory.getbasetemp() / "tokenizers")


def _with_template(tokenizer, family, name):
    path = shared_file("data", "chat_templates", family, name)
    tokenizer.chat_template = path.read_text(encoding="utf-8")
    return tokenizer


PLAIN_ROWS = [
    {"messages": chat("one", "two")},
    {"messages": chat("one", "two", system="Be kind.")},
    {"messages": chat("one", "two", "three", "four")},
]
AGENT_ROWS = [
    {"messages": [*chat("w"), *REPLIED], "tools": TOOLS},
    {"messages": [*chat("w", system="S"), CALL, CALL], "tools": TOOLS},
]


def test_qwen2_5_equals_its_published_template_with_tools(qwen):
    _with_template(qwen, "qwen2.5", "llamacpp__Qwen-Qwen2.5-7B-Instruct.jinja")
    report = parity_report(get_template("qwen2_5", qwen), qwen, PLAIN_ROWS + AGENT_ROWS)
    assert report["prompt"]["compared"] == report["prompt"]["equal"] == 5
    assert report["conversation"]["compared"] == report["conversation"]["equal"] == 5


def test_qwen3_prompts_equal_its_published_template(qwen):
    _with_template(qwen, "qwen3", "llamacpp__Qwen-Qwen3-0.6B.jinja")
    rows = [*PLAIN_ROWS, AGENT_ROWS[1]]
    report = parity_report(get_template("qwen3", qwen), qwen, rows)
    assert report["prompt"]["equal"] == len(rows)
    # Ours trains an empty think block in each answer, the published one writes it in the last.
    [difference] = [d for d in report["conversation"]["differences"] if d["row"] == 2]
    assert difference["ours"].startswith("<think>")


@pytest.mark.parametrize("family", ["qwen2.5", "qwen3"])
def test_published_templates_train_through_jinja(qwen, family):
    names = {
        "qwen2.5": ["llamacpp__Qwen-Qwen2.5-7B-Instruct.jinja", "trl__qwen2_5_training.jinja"],
        "qwen3": ["trl__qwen3_instruct_2507_training.jinja", "trl__qwen3_training.jinja"],
    }
    for name in names[family]:
        _with_template(qwen, family, name)
        template = get_template("jinja", qwen)
        encoded = template.encode({"messages": chat("one", "two", "three", "four")})
        assert labelled_text(qwen, encoded).replace("<think>\n\n</think>\n\n", "") == (
            "two<|im_end|>four<|im_end|>"
        )
        report = parity_report(template, qwen, PLAIN_ROWS + AGENT_ROWS)
        assert report["conversation"]["equal"] == report["conversation"]["compared"] == 5


def test_parity_report_shows_the_first_difference():
    tokenizer = small_tokenizer(QWEN2_5_LIKE.replace("<|im_end|>\\n' }}", "<|im_end|>' }}"))
    report = parity_report(get_template("qwen2_5", tokenizer), tokenizer, PLAIN_ROWS)
    assert report["prompt"]["differing"] == 3
    difference = report["prompt"]["differences"][0]
    assert difference["before"].endswith("<|im_end|>")
    assert difference["ours"].startswith("\n")
    assert difference["theirs"].startswith("<|im_start|>")


def test_parity_report_says_when_there_is_nothing_to_compare():
    report = parity_report(get_template("chatml", small_tokenizer()), small_tokenizer(), PLAIN_ROWS)
    assert report == {
        "has_template": False,
        "text": "no template: the tokenizer has none to compare with",
    }


def test_template_is_inferred_from_the_models_own(qwen):
    cases = {
        ("qwen2.5", "llamacpp__Qwen-Qwen2.5-7B-Instruct.jinja", "qwen2"): "qwen2_5",
        ("qwen3", "llamacpp__Qwen-Qwen3-0.6B.jinja", "qwen3"): "qwen3",
        ("qwen3", "trl__qwen3_instruct_2507.jinja", "qwen3"): "qwen3_nothinking",
        ("chatml", "axolotl__chatml.jinja", "llama"): "chatml",
        ("phi4", "axolotl__phi_4.jinja", "unheard_of"): "jinja",
    }
    for (family, name, model_type), expected in cases.items():
        _with_template(qwen, family, name)
        assert infer_template(qwen, {"model_type": model_type}) == expected


def test_template_is_inferred_from_type_and_tokens_or_refused():
    tokenizer = small_tokenizer()
    assert infer_template(tokenizer, {"model_type": "qwen3"}) == "qwen3"
    assert infer_template(tokenizer, {"model_type": "llama"}) == "chatml"
    assert infer_template(small_tokenizer(QWEN2_5_LIKE), {"model_type": "qwen3"}) == "qwen2_5"
    with pytest.raises(UsageError, match="qwen2_5, qwen, qwen2_5_math, qwq"):
        infer_template(tokenizer, {"model_type": "qwen2"})
    with pytest.raises(UsageError, match="unheard_of"):
        infer_template(tokenizer, {"model_type": "unheard_of"})
