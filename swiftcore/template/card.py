"""The sample card: a page that shows what the model is trained on, token by token.

It is made from an encoded folder and the rows it was encoded from, needs no script and no network,
and escapes all that comes from data.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from swiftcore.data import SplitRows
from swiftcore.data.card_charts import length_histogram, share
from swiftcore.data.card_page import facts_html, page_html, table_html, text_html
from swiftcore.template.encoded_folder import EncodedRows, load_encoded
from swiftcore.template.encoding import NO_LOSS
from swiftcore.template.samples import Candidate, Choice, KindReader, choose_samples
from swiftcore.template.template import Template
from swiftcore.template.token_text import Run, Unit, read_units, runs_of, shown_units, visible

MAX_SCANNED = 2000
_MAX_TOKENS_SHOWN = 1600
# Of a long row the beginning and, because that is where most answers are, the end.
_HEAD_TOKENS = 1000
_MAX_RECOUNTED = 3
_MAX_DIFFERENCES = 3
_TOO_LONG = "longer than max_length"

_SETTINGS = {
    "template": "template",
    "agent_template": "tools and calls as",
    "system": "default system prompt",
    "use_chat_template": "chat template",
    "loss_scale": "loss scale",
    "max_length": "max_length",
    "truncation_strategy": "a longer row is",
}
_TRUNCATION = {
    "delete": "dropped",
    "left": "cut at its start",
    "right": "cut at its end",
    "split": "split into several",
}


def write_card(folder: Path, template: Template, rows: SplitRows) -> None:
    """Write card.html into an encoded folder.

    Args:
        folder: holds train.parquet, report.json, parity.json and drops.jsonl.
        template: what the rows were encoded with.
        rows: the rows of the train split, as they were before.
    """
    encoded = load_encoded(folder, "train")
    report = _read_json(folder / "report.json")
    choices, sources, num_scanned = _chosen(folder, template, encoded, rows)
    samples = [(choice, sources[choice.place], encoded[choice.place]) for choice in choices]
    weights = Counter(
        weight
        for _, _, row in samples
        for weight in token_weights(row["labels"], row["loss_scale"])
    )
    body = [
        "<h1>What the model is trained on</h1>",
        _lead(template, report),
        _facts(report),
        _table_of_splits(report["splits"]),
        _lengths(encoded.lengths, _too_long(folder), template.options.max_length),
        _drops(report["splits"]),
        _settings(report["settings"]),
        _parity(_read_json(folder / "parity.json")),
        "<h2>Samples</h2>",
        _scanned(num_scanned, len(encoded)),
        _legend(weights),
        *(
            _sample(template, number, choice, source, row)
            for number, (choice, source, row) in enumerate(samples, start=1)
        ),
    ]
    style = files("swiftcore.template").joinpath("card.css").read_text(encoding="utf-8")
    page = page_html(f"Samples: {template.name}", body, style)
    (folder / "card.html").write_text(page, encoding="utf-8")


def token_weights(labels: Sequence[int], loss_scale: Sequence[float] | None) -> list[float]:
    """Return the loss weight of each token of an encoded row."""
    if loss_scale is None:
        return [float(label != NO_LOSS) for label in labels]
    return list(loss_scale)


def _chosen(
    folder: Path, template: Template, encoded: EncodedRows, rows: SplitRows
) -> tuple[list[Choice], list[int], int]:
    """Choose samples; also return the dataset row of each encoded one, and how many were read."""
    import pyarrow.parquet as pq

    table = pq.read_table(folder / "train.parquet", columns=["row", "loss_scale"])
    sources: list[int] = table.column("row").to_pylist()
    weighted: list[bool] = table.column("loss_scale").is_valid().to_pylist()
    lengths = encoded.lengths
    ranked = sorted(range(len(lengths)), key=lambda place: (lengths[place], place))
    count = min(len(lengths), MAX_SCANNED)
    places = {step * len(lengths) // count for step in range(count)}
    if ranked:
        places |= {ranked[0], ranked[-1], ranked[(len(ranked) - 1) // 2]}
    if True in weighted:
        places.add(weighted.index(True))
    wanted = sorted({sources[place] for place in places})
    texts = dict(zip(wanted, rows.take(wanted), strict=True))
    # The longest rows first: where any row was cut, they were.
    longest_first = sorted(places, key=lambda place: (-lengths[place], place))
    checked = [(place, lengths[place]) for place in longest_first]
    cut = _cut_places(template, checked, sources, texts)
    reader = KindReader(template)
    candidates = [
        Candidate(
            place,
            lengths[place],
            reader.kinds(texts[sources[place]], is_weighted=weighted[place], is_cut=place in cut),
        )
        for place in sorted(places)
    ]
    return choose_samples(candidates), sources, len(wanted)


def _cut_places(
    template: Template,
    places: Iterable[tuple[int, int]],
    sources: Sequence[int],
    texts: Mapping[int, Mapping[str, Any]],
) -> set[int]:
    """Return places of rows that were cut, the first few; a full row need not have been."""
    limit = template.options.max_length
    if template.options.truncation_strategy == "delete" or limit is None:
        return set()
    found: set[int] = set()
    for place, length in places:
        if len(found) == _MAX_RECOUNTED:
            break
        if length == limit:
            pieces = template.plan(texts[sources[place]], "train")
            if sum(map(len, template.pieces.encode(pieces))) > limit:
                found.add(place)
    return found


def _lead(template: Template, report: Mapping[str, Any]) -> str:
    lines = [
        f'<p class="note">Rows written by the template <b>{text_html(template.name)}</b>: '
        "what stands below is what the model sees, token for token.</p>"
    ]
    if report["settings"].get("allow_control_tokens"):
        parsed = sum(split["control_tokens_parsed"] for split in report["splits"].values())
        lines.append(
            '<p class="alarm">allow_control_tokens is set: control tokens in user, system and tool '
            f"text are parsed, {parsed:,} of them here. Whoever writes such a text can end a turn "
            "and speak as somebody else.</p>"
        )
    return "\n".join(lines)


def _facts(report: Mapping[str, Any]) -> str:
    train = report["splits"]["train"]
    facts = [
        (f"{train['kept']:,}", "rows to train on"),
        (f"{train['tokens']:,}", "tokens"),
        (share(train["label_tokens"], train["tokens"]), "of them trained"),
        (f"{report['control_tokens_as_text']:,}", "control tokens kept as text"),
    ]
    return facts_html(facts)


def _table_of_splits(splits: Mapping[str, Mapping[str, Any]]) -> str:
    header = ("split", "rows", "encoded", "dropped", "tokens", "trained", "median", "longest")
    rows = [
        (
            name,
            split["rows"],
            split["kept"],
            sum(split["drops"].values()),
            split["tokens"],
            split["label_tokens"],
            split["length_percentiles"]["p50"],
            split["length_percentiles"]["p100"],
        )
        for name, split in splits.items()
    ]
    return f'<div class="scroll">{table_html(header, rows)}</div>'


def _lengths(kept: Sequence[int], dropped: Sequence[int], limit: int | None) -> str:
    # The cleaning rules behind it load slowly, and templates are used without them.
    from swiftcore.data.cleaning.statistics import BINS_PER_DOUBLING, Lengths

    counted = []
    for lengths in (kept, dropped):
        found = Lengths()
        for length, times in Counter(lengths).items():
            found.add(length, times)
        counted.append(found)
    ranked = sorted(kept)
    exact = {"median": ranked[round(0.5 * (len(ranked) - 1))]} if ranked else {}
    figures = counted[0].as_dict() | exact
    chart = length_histogram(figures, BINS_PER_DOUBLING, "tokens", counted[1].as_dict(), limit)
    average = counted[0].total / max(counted[0].count, 1)
    caption = (
        f"tokens a row: {counted[0].smallest:,} to {counted[0].largest:,}, "
        f"{average:,.0f} on average"
    )
    caption += f"; max_length {limit:,}" if limit is not None else "; no max_length"
    if dropped:
        caption += f"; {len(dropped):,} longer rows, in grey, were dropped"
    return f"<h2>Length of rows</h2><figure>{chart}<figcaption>{caption}</figcaption></figure>"


def _too_long(folder: Path) -> list[int]:
    """Return the lengths of training rows that were dropped for their length."""
    lengths: list[int] = []
    with (folder / "drops.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            drop = json.loads(line)
            if drop["split"] == "train" and drop["reason"] == _TOO_LONG:
                lengths.append(drop["tokens"])
    return lengths


def _drops(splits: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        (name, reason, count, share(count, split["rows"]))
        for name, split in splits.items()
        for reason, count in split["drops"].items()
    ]
    if not rows:
        return '<h2>Dropped rows</h2><p class="note">No row was dropped.</p>'
    table = table_html(("split", "reason", "rows", "share"), rows)
    return f'<h2>Dropped rows</h2>{table}<p class="note">drops.jsonl names each of them.</p>'


def _settings(settings: Mapping[str, Any]) -> str:
    rows = [
        (_SETTINGS.get(name, name.replace("_", " ")), _setting(name, value))
        for name, value in sorted(settings.items(), key=lambda item: _place(item[0]))
        if name != "schema"
    ]
    return (
        f"<h2>Template settings</h2>{table_html(('setting', 'value'), rows)}"
        '<p class="note">Evaluation and serving use the same: swift_template.json.</p>'
    )


def _place(name: str) -> int:
    names = list(_SETTINGS)
    return names.index(name) if name in names else len(names)


def _setting(name: str, value: object) -> str:
    if name == "truncation_strategy":
        return _TRUNCATION.get(str(value), str(value))
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _parity(parity: Mapping[str, Any]) -> str:
    parts = [
        "<h2>Against the model's own chat template</h2>",
        f"<p>{text_html(parity.get('text', 'not compared'))}</p>",
    ]
    for kind in ("prompt", "conversation"):
        tally = parity.get(kind)
        if not isinstance(tally, Mapping) or not tally.get("differing"):
            continue
        parts.append(
            f'<p class="alarm">{tally["differing"]:,} of {tally["compared"]:,} {kind}s are other '
            "tokens than the model's own template gives.</p>"
        )
        rows = [
            (
                f"row {each['row']:,}, token {each['token']:,}",
                *(_shown(each[side]) for side in _SIDES),
            )
            for each in tally["differences"][:_MAX_DIFFERENCES]
        ]
        header = ("first difference", "after", "ours", "the model's own")
        parts.append(f'<div class="scroll">{table_html(header, rows)}</div>')
    return "\n".join(parts)


_SIDES = ("before", "ours", "theirs")


def _shown(text: str) -> str:
    return "".join(part for part, _ in visible(text) if part != "\n")


def _scanned(num_read: int, num_rows: int) -> str:
    if num_read >= num_rows:
        return ""
    return (
        f'<p class="note">Chosen among {num_read:,} of {num_rows:,} rows: some evenly spread, and '
        "the shortest, the longest and the one of median length of all.</p>"
    )


def _legend(weights: Iterable[float]) -> str:
    found = sorted(set(weights))
    meanings = {0.0: "context, no loss", 1.0: "trained"}
    items = [
        f'<span class="{_tone(weight)}">'
        f"{meanings.get(weight, f'trained with weight {weight:g}')}</span>"
        for weight in found
    ]
    items.append('<span class="plain"><b>control token</b></span>')
    items.append('<span class="plain"><u>↵ ⇥ ··</u> line end, tab, spaces</span>')
    items.append('<span class="plain"><s>E3 81</s> part of a character</span>')
    return f'<p class="legend">{"".join(items)}</p>'


def _sample(
    template: Template, number: int, choice: Choice, source: int, row: Mapping[str, Any]
) -> str:
    ids: list[int] = row["input_ids"]
    weights = token_weights(row["labels"], row["loss_scale"])
    num_trained = sum(label != NO_LOSS for label in row["labels"])
    units = read_units(template, ids, weights)
    return (
        f"<details open><summary>{number}. Row {source:,}: {len(ids):,} tokens, "
        f"{num_trained:,} trained <span>{text_html(choice.line)}</span></summary>"
        f'<pre class="tokens">{_units_html(units, len(ids))}</pre></details>'
    )


def _units_html(units: Sequence[Unit], length: int) -> str:
    if length <= _MAX_TOKENS_SHOWN:
        return "".join(map(_run_html, runs_of(units)))
    tail_start = length - (_MAX_TOKENS_SHOWN - _HEAD_TOKENS)
    head = [unit for unit in units if unit.start < _HEAD_TOKENS]
    tail = [unit for unit in units if unit.start >= tail_start]
    hidden = length - sum(len(unit.ids) for unit in (*head, *tail))
    return (
        "".join(map(_run_html, runs_of(head)))
        + f"<em>\n... {hidden:,} tokens are not shown ...\n</em>"
        + "".join(map(_run_html, runs_of(tail)))
    )


def _run_html(run: Run) -> str:
    tone = _tone(run.weight)
    factor = "" if run.weight in (0, 1) else f"<sup>×{run.weight:g}</sup>"
    inside = "".join(_unit_html(unit, parts) for unit, parts in shown_units(run.units))
    return f'<span class="{tone}">{factor}{inside}</span>'


def _unit_html(unit: Unit, parts: Iterable[tuple[str, bool]]) -> str:
    tag = "b" if unit.is_control else "s" if unit.is_broken else "i"
    ids = " ".join(map(str, unit.ids))
    inside = "".join(
        f"<u>{text_html(part)}</u>" if is_mark else text_html(part) for part, is_mark in parts
    )
    return f'<{tag} title="{ids}">{inside}</{tag}>'


def _tone(weight: float) -> str:
    if weight in (0, 1):
        return "trained" if weight else "plain"
    return "weighted" if weight > 1 else "weighted less"


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))
