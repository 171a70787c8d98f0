"""The sample card: a page that shows what the model is trained on, token by token."""

from html import escape
from pathlib import Path
from typing import Any

from swiftcore.template.encoded_folder import EncodedRows
from swiftcore.template.encoding import NO_LOSS
from swiftcore.template.template import Template

NUM_SAMPLES = 10
_MAX_TOKENS_SHOWN = 1500

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.55 system-ui, sans-serif; color: #1c2430; background: #f6f7f9;
       max-width: 62rem; margin: 2.5rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; }
p.note { color: #55606e; margin: .25rem 0 1rem; }
table { border-collapse: collapse; background: #fff; border: 1px solid #dfe3e8; margin: .5rem 0; }
td, th { padding: .3rem .8rem; text-align: left; border-bottom: 1px solid #eceff2; }
th { font-weight: 600; color: #55606e; } td.number { text-align: right;
     font-variant-numeric: tabular-nums; }
pre { background: #fff; border: 1px solid #dfe3e8; border-radius: 6px; padding: .9rem 1rem;
      white-space: pre-wrap; overflow-wrap: anywhere; font: 13px/1.65 ui-monospace, monospace; }
.plain { color: #6a7480; }
.trained { background: #d8f0de; color: #10421f; }
.weighted { background: #ffe7b8; color: #4f3600; }
.control { border-radius: 3px; padding: 0 .15em; outline: 1px solid #b9c2cd; }
.legend span { padding: .1em .45em; margin-right: .6em; }
"""


def write_card(path: Path, template: Template, rows: EncodedRows, report: dict[str, Any]) -> None:
    """Write a self-contained HTML page with decoded samples, coloured by loss weight."""
    samples = "\n".join(
        _sample(template, rows[place], number)
        for number, place in enumerate(_choose(rows.lengths), start=1)
    )
    path.write_text(
        f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Samples - {escape(template.name)}</title><style>{_STYLE}</style></head><body>
<h1>What the model is trained on</h1>
<p class="note">Template <b>{escape(template.name)}</b>, tools as
<b>{escape(template.agent.name)}</b>, loss scale <b>{escape(template.loss_scale.name)}</b>.
Control tokens found in the data and kept as plain text: {report["control_tokens_as_text"]}.</p>
{_table(report["splits"])}
{_drops(report["splits"])}
<p class="legend"><span class="trained">trained</span><span class="weighted">trained with another
weight</span><span class="plain">context, no loss</span><span class="plain control">control
token</span></p>
{samples}
</body></html>
""",
        encoding="utf-8",
    )


def _choose(lengths: list[int]) -> list[int]:
    """Return places from the shortest row to the longest, evenly spaced in rank."""
    ranked = sorted(range(len(lengths)), key=lambda place: (lengths[place], place))
    count = min(NUM_SAMPLES, len(ranked))
    if count < 2:
        return ranked
    return [ranked[round(step * (len(ranked) - 1) / (count - 1))] for step in range(count)]


def _table(splits: dict[str, dict[str, Any]]) -> str:
    rows = "".join(
        f"<tr><td>{escape(name)}</td>"
        + "".join(
            f'<td class="number">{value:,}</td>'
            for value in (
                split["rows"],
                split["kept"],
                split["tokens"],
                split["label_tokens"],
                split["length_percentiles"]["p50"],
                split["length_percentiles"]["p100"],
            )
        )
        + "</tr>"
        for name, split in splits.items()
    )
    heads = ("split", "rows", "kept", "tokens", "trained tokens", "median length", "longest")
    return f"<table><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>{rows}</table>"


def _drops(splits: dict[str, dict[str, Any]]) -> str:
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(reason)}</td>"
        f'<td class="number">{count:,}</td></tr>'
        for name, split in splits.items()
        for reason, count in split["drops"].items()
    )
    if not rows:
        return '<p class="note">No row was dropped.</p>'
    return (
        "<h2>Dropped rows</h2><table><tr><th>split</th><th>reason</th><th>rows</th></tr>"
        f'{rows}</table><p class="note">drops.jsonl names each of them.</p>'
    )


def _sample(template: Template, row: dict[str, Any], number: int) -> str:
    ids: list[int] = row["input_ids"]
    labels: list[int] = row["labels"]
    weights = row["loss_scale"] or [float(label != NO_LOSS) for label in labels]
    num_trained = sum(label != NO_LOSS for label in labels)
    shown = _runs(template, ids[:_MAX_TOKENS_SHOWN], weights)
    rest = len(ids) - _MAX_TOKENS_SHOWN
    more = f'\n<span class="plain">... {rest:,} more tokens</span>' if rest > 0 else ""
    return (
        f"<h2>Sample {number}: row {row['row']:,}, "
        f"{len(ids):,} tokens, {num_trained:,} trained</h2>"
        f"<pre>{shown}{more}</pre>"
    )


def _runs(template: Template, ids: list[int], weights: list[float]) -> str:
    """Decode neighbours of equal weight together; control tokens stand alone."""
    control = set(template.pieces.token_ids.values())
    html: list[str] = []
    run: list[int] = []
    for place, token in enumerate(ids):
        run.append(token)
        following = ids[place + 1] if place + 1 < len(ids) else None
        if (
            following is None
            or token in control
            or following in control
            or weights[place + 1] != weights[place]
        ):
            html.append(_span(template.decode(run), weights[place], control=token in control))
            run = []
    return "".join(html)


def _span(text: str, weight: float, *, control: bool) -> str:
    kind = "plain" if weight == 0 else "trained" if weight == 1 else "weighted"
    title = f' title="weight {weight:g}"' if kind == "weighted" else ""
    return f'<span class="{kind}{" control" if control else ""}"{title}>{escape(text)}</span>'
