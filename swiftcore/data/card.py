"""The data card: one HTML page that says what a dataset is and where every source row went.

It needs no script and no network, shows in light and dark, and escapes all that comes from data.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from swiftcore.data.card_charts import Fate, flow_chart, length_histogram, share
from swiftcore.data.card_page import facts_html, page_html, table_html, text_html
from swiftcore.data.card_samples import NUM_SAMPLES, sample_html

Fields = Mapping[str, object]
Counts = Mapping[str, int]

# Fates in the order a row meets them; another whole number in a source's counts is a fate too.
_FATES: dict[str, tuple[str, str, str]] = {
    "quarantined": ("bad", "quarantined", "no standard form; kept in quarantine.jsonl with why"),
    "filtered": ("left", "filtered", "outside the length or language limits"),
    "private": ("bad", "private", "held secrets or personal data that were to drop a row"),
    "duplicates": ("left", "exact duplicates", "equal to an earlier row"),
    "near_duplicates": ("left", "near duplicates", "nearly equal to an earlier row"),
    "contaminated": ("bad", "contaminated", "held text of an evaluated row"),
    "held_out": ("left", "held out", "equal to an evaluated row"),
    "not_sampled": ("left", "not sampled", "good, but #count left them out"),
    "used": ("kept", "used", "in a split"),
}
_NO_FATE = ("rows", "repeated")
_SHOWN_ELSEWHERE = ("splits", "sources", "files", "notes", "schema", "unused_columns", "columns")
_MAX_NAMES = 15


def render_card(
    report: Fields,
    statistics: Fields,
    samples: Sequence[Fields],
    notes: Iterable[str] = (),
    licence: str | None = None,
    title: str = "Dataset",
) -> str:
    """Return the data card as one self-contained HTML page.

    Args:
        report: `report.json` of an ingest. Any further object in it that counts things by name
            (findings by kind, say) becomes a table.
        statistics: what `RowStatistics.as_dict` returns; `tokens` in it, of the same form as
            `characters`, adds a histogram.
        samples: standard rows; the first twenty are shown.
        notes: what a reader should know, besides the report's own notes.
        licence: licence of the data; a card without one says so.
        title: heading of the page.
    """
    sources = cast(Sequence[Fields], report.get("sources") or ())
    body = [
        f"<h1>{text_html(title)}</h1>",
        _licence(licence),
        _facts(report, statistics),
        _notes([*cast(Iterable[str], report.get("notes") or ()), *notes]),
        _flow(sources),
        _lengths(statistics),
        _conversations(statistics),
        _languages(statistics),
        _tools(statistics),
        *(_count_table(name, counts) for name, counts in _further_counts(report)),
        _columns(report),
        _samples(samples),
    ]
    return page_html(title, body)


def _licence(licence: str | None) -> str:
    if licence:
        return f'<p class="note">Licence: <b>{text_html(licence)}</b></p>'
    return '<p class="alarm">No licence is stated; say which one before the data is passed on.</p>'


def _facts(report: Fields, statistics: Fields) -> str:
    splits = cast(Counts, report.get("splits") or {})
    facts = [(f"{rows:,}", f"{split} rows") for split, rows in splits.items()]
    sources = cast(Sequence[Fields], report.get("sources") or ())
    facts.append((f"{sum(_count(source, 'rows') for source in sources):,}", "rows read"))
    for unit in ("characters", "tokens"):
        lengths = cast(Fields, statistics.get(unit) or {})
        if lengths:
            facts.append((f"{_count(lengths, 'total'):,}", unit))
    empty = _count(statistics, "empty_answers")
    if empty:
        facts.append((f"{empty:,}", "rows without an answer"))
    return facts_html(facts)


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    return f"<h2>Notes</h2><ul>{''.join(f'<li>{text_html(note)}</li>' for note in notes)}</ul>"


def _fate_names(sources: Sequence[Fields]) -> list[str]:
    found = {
        name: None
        for source in sources
        for name, value in source.items()
        if isinstance(value, int) and not isinstance(value, bool) and name not in _NO_FATE
    }
    known = [name for name in _FATES if name in found and name != "used"]
    return [*known, *(name for name in found if name not in _FATES), "used"]


def _flow(sources: Sequence[Fields]) -> str:
    names = _fate_names(sources)
    totals = {name: sum(_count(source, name) for source in sources) for name in names}
    fates = [Fate(_label(name), totals[name], _FATES.get(name, ("left",))[0]) for name in names]
    num_rows = sum(_count(source, "rows") for source in sources)
    rows = [
        (_label(name), totals[name], share(totals[name], num_rows), _FATES[name][2])
        for name in names
        if totals[name] and name in _FATES
    ]
    return "\n".join(
        [
            "<h2>From source to output</h2>",
            f"<figure>{flow_chart(fates[::-1])}</figure>",
            _source_table(sources, names, totals),
            _adds_up(sources, names),
            table_html(("", "rows", "share", "what it means"), rows),
        ]
    )


def _source_table(sources: Sequence[Fields], names: Sequence[str], totals: Counts) -> str:
    shown = [name for name in names if totals[name] or name in ("quarantined", "used")]
    splits = list(dict.fromkeys(split for source in sources for split in _written(source)))
    repeated = any(_count(source, "repeated") for source in sources)
    header = ["source", "role", "rows read", *map(_label, shown)]
    header += [*(["repeated"] if repeated else []), *(f"in {split}" for split in splits)]
    rows: list[tuple[object, ...]] = []
    for source in sources:
        extra = [_count(source, "repeated")] if repeated else []
        counts = [_count(source, name) for name in ("rows", *shown)]
        written = [_written(source).get(split, 0) for split in splits]
        rows.append((str(source["entry"]), str(source["role"]), *counts, *extra, *written))
    columns = list(zip(*rows, strict=True))[2:]
    sums = ("all", "", *(sum(cast(Sequence[int], column)) for column in columns))
    return f'<div class="scroll">{table_html(header, rows, sums if len(rows) > 1 else None)}</div>'


def _adds_up(sources: Sequence[Fields], names: Sequence[str]) -> str:
    """Say whether the counts add up, after adding them up."""
    wrong = [
        str(source["entry"])
        for source in sources
        if sum(_count(source, name) for name in names) != _count(source, "rows")
        or sum(_written(source).values()) != _count(source, "used") + _count(source, "repeated")
    ]
    if wrong:
        return f'<p class="alarm">The counts do not add up: {text_html(", ".join(wrong))}.</p>'
    sum_of = " + ".join(_label(name) for name in names)
    return f'<p class="note">Checked: rows read = {text_html(sum_of)}, for each source.</p>'


def _lengths(statistics: Fields) -> str:
    fineness = _count(statistics, "bins_per_doubling")
    figures: list[str] = []
    for unit in ("tokens", "characters", "words"):
        lengths = cast(Fields, statistics.get(unit) or {})
        if not lengths or not fineness:
            continue
        caption = (
            f"{unit} a row: {_count(lengths, 'min'):,} to {_count(lengths, 'max'):,}, "
            f"{_count(lengths, 'total') / max(_count(lengths, 'count'), 1):,.0f} on average"
        )
        chart = length_histogram(lengths, fineness, unit)
        figures.append(f"<figure>{chart}<figcaption>{caption}</figcaption></figure>")
    if not figures:
        return ""
    return f'<h2>Length of rows</h2><div class="side">{"".join(figures)}</div>'


def _conversations(statistics: Fields) -> str:
    roles = cast(Counts, statistics.get("roles") or {})
    if not roles:
        return ""
    num_rows = _count(statistics, "rows")
    turns = {int(name): rows for name, rows in cast(Counts, statistics.get("turns") or {}).items()}
    grouped = [(str(number), turns.get(number, 0)) for number in range(6)]
    grouped.append(("6 or more", sum(rows for number, rows in turns.items() if number >= 6)))
    turn_rows = [(name, rows, share(rows, num_rows)) for name, rows in grouped if rows]
    columns = cast(Counts, statistics.get("columns") or {})
    column_rows = [(name, rows, share(rows, num_rows)) for name, rows in columns.items()]
    return (
        '<h2>Conversations</h2><div class="side">'
        + table_html(("role", "messages"), list(roles.items()))
        + table_html(("user turns", "rows", "share"), turn_rows)
        + table_html(("column", "rows", "share"), column_rows[:_MAX_NAMES])
        + "</div>"
    )


def _languages(statistics: Fields) -> str:
    languages = cast(Counts, statistics.get("languages") or {})
    if not languages:
        return ""
    asked, rate = sum(languages.values()), _count(statistics, "language_sampling")
    rows: list[str] = []
    for code, number in list(languages.items())[:_MAX_NAMES]:
        name = "undetermined (too short, code or figures)" if code == "und" else code
        width = f"{100 * number / asked:.1f}"
        rows.append(
            f'<tr><td>{text_html(name)}</td><td><div class="meter">'
            f'<i style="width:{width}%"></i></div></td>'
            f'<td class="number">{share(number, asked)}</td></tr>'
        )
    of_rows = "every row" if rate == 1 else f"one row in {rate}, chosen by the hash of its text"
    rest = len(languages) - len(rows)
    more = f" {rest} more are not shown." if rest > 0 else ""
    return (
        f'<h2>Languages</h2><p class="note">Detected in {of_rows}: {asked:,} rows.{more}</p>'
        f"<table>{''.join(rows)}</table>"
    )


def _tools(statistics: Fields) -> str:
    offered = cast(Counts, statistics.get("tools_offered") or {})
    called = cast(Counts, statistics.get("tools_called") or {})
    if not offered and not called:
        return ""
    names = sorted({*offered, *called}, key=lambda n: (-called.get(n, 0), -offered.get(n, 0), n))
    rows = [(name, offered.get(name, 0), called.get(name, 0)) for name in names[:_MAX_NAMES]]
    unknown = [name for name in called if name not in offered]
    lines = [
        "<h2>Tools</h2>",
        f'<p class="note">{len(offered):,} tools are offered, {sum(called.values()):,} calls name '
        f"{len(called):,} of them.</p>",
        table_html(("tool", "rows that offer it", "calls"), rows),
    ]
    if len(names) > _MAX_NAMES:
        lines.append(f'<p class="note">{len(names) - _MAX_NAMES:,} more are not shown.</p>')
    if offered and unknown:
        some = ", ".join(unknown[:5])
        lines.append(
            f"<p>{len(unknown):,} tools are called that no row offers: {text_html(some)}</p>"
        )
    return "\n".join(lines)


def _further_counts(report: Fields) -> list[tuple[str, Counts]]:
    return [
        (name, cast(Counts, value))
        for name, value in report.items()
        if name not in _SHOWN_ELSEWHERE
        and isinstance(value, Mapping)
        and value
        and all(isinstance(number, int) for number in value.values())
    ]


def _count_table(name: str, counts: Counts) -> str:
    titles = {"quarantine_reasons": "Why rows are in quarantine"}
    title = titles.get(name, name.replace("_", " ").capitalize())
    return f"<h2>{text_html(title)}</h2>{table_html(('', 'rows'), list(counts.items()))}"


def _columns(report: Fields) -> str:
    unused = cast(Counts, report.get("unused_columns") or {})
    if not unused:
        return ""
    return f"<h2>Columns that were dropped</h2>{table_html(('', 'rows'), list(unused.items()))}"


def _samples(samples: Sequence[Fields]) -> str:
    shown = [sample_html(place, row) for place, row in enumerate(samples[:NUM_SAMPLES], start=1)]
    return "\n".join(["<h2>Samples</h2>", *shown]) if shown else ""


def _label(name: str) -> str:
    return _FATES[name][1] if name in _FATES else name.replace("_", " ")


def _count(fields: Fields, name: str) -> int:
    value = fields.get(name, 0)
    return value if isinstance(value, int) else 0


def _written(source: Fields) -> Counts:
    return cast(Counts, source.get("written") or {})
