"""The page about a snapshot's quality: one self-contained HTML file without a script, in light and dark."""

from __future__ import annotations

from pathlib import Path

from ferroflow.adapters import profile_charts as charts
from ferroflow.adapters.profile_charts import text
from ferroflow.adapters.storage import atomic_bytes
from ferroflow.core.dataset_rules import Fresh
from ferroflow.core.profile import ColumnProfile, Profile
from ferroflow.core.quality import HISTORY
from ferroflow.core.records import Quality, RuleResult, Snapshot, Validated
from ferroflow.core.spec import PipelineSpec

_MOVED = 0.1  # PSI from which on a column is marked as moved (the usual reading: 0.1 slight, 0.25 strong)

_MEANINGS = {
    "completeness": "present cells of columns that may be missing",
    "validity": "rows that were not refused",
    "uniqueness": "rows that are there once",
    "timeliness": "age of the newest event against what is asked for",
    "consistency": "rows without a warning, columns of one type in all files",
}

STYLE = """
:root { color-scheme: light dark; --ink: #1d232b; --soft: #5b6673; --line: #dfe4ea; --ground: #f6f7f9; --card: #fff;
  --blue: #3b7dbf; --mark: #b4451f; --good: #1f8a58; --fair: #b7791f; --poor: #c0362c; --track: #e6eaef; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7eaee; --soft: #9aa5b1; --line: #2c333c; --ground: #14181d;
  --card: #1b2027; --blue: #5b9bd8; --mark: #f08a5d; --good: #4cc38a; --fair: #e0ac4b; --poor: #f0736a;
  --track: #2a313a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.65rem; margin: 0; letter-spacing: -.01em; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .7rem; }
h3 { font: 600 .95rem ui-monospace, monospace; margin: 0; overflow-wrap: anywhere; } p { margin: .25rem 0; }
.soft { color: var(--soft); } code { font: .88em ui-monospace, monospace; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 1rem 1.15rem; }
.head { display: grid; grid-template-columns: auto 1fr; gap: 1.8rem; align-items: center; margin-top: 1.2rem; }
.ring { width: 9rem; height: 9rem; } .ring circle { fill: none; stroke-width: 9; } .track { stroke: var(--track); }
.ring text { font: 700 24px system-ui, sans-serif; text-anchor: middle; fill: var(--ink); }
.arc { stroke-linecap: round; } .arc.good { stroke: var(--good); } .arc.fair { stroke: var(--fair); }
.arc.poor { stroke: var(--poor); }
.verdict { display: inline-block; font-weight: 650; border-radius: 999px; padding: .15rem .8rem; color: #fff;
  background: var(--good); } .verdict.poor { background: var(--poor); }
@media (prefers-color-scheme: dark) { .verdict { color: #14181d; } }
.parts { list-style: none; margin: 0; padding: 0; } .parts li { display: grid; gap: .8rem; align-items: center;
  grid-template-columns: 7.5rem minmax(6rem, 16rem) 4.2rem 1fr; padding: .17rem 0; }
.parts li > :nth-child(3) { text-align: right; font-variant-numeric: tabular-nums; }
.bar { position: relative; display: block; height: .55rem; background: var(--track); border-radius: 5px;
  min-width: 3rem; } .bar i { display: block; height: 100%; background: var(--blue); border-radius: 5px; }
.bar.good i { background: var(--good); } .bar.fair i { background: var(--fair); }
.bar.poor i { background: var(--poor); } .bar.thin { height: .4rem; width: 6rem; }
.bar b { position: absolute; top: -2px; bottom: -2px; width: 2px; background: var(--mark); }
table { border-collapse: collapse; width: 100%; font-size: .92rem; } th { text-align: left; color: var(--soft);
  font-weight: 600; } th, td { padding: .32rem .8rem .32rem 0; border-bottom: 1px solid var(--line);
  vertical-align: middle; } tr:last-child td { border-bottom: 0; }
.counted td:last-child { text-align: right; font-variant-numeric: tabular-nums; padding-right: 0; }
.counted td:first-child { overflow-wrap: anywhere; } .said { font-weight: 650; white-space: nowrap; }
.said.good { color: var(--good); } .said.fair { color: var(--fair); } .said.poor { color: var(--poor); }
.three { display: grid; grid-template-columns: 2fr 1fr 1fr; gap: 1rem; margin-top: .6rem; align-items: start; }
.three .wide { grid-column: 1 / -1; }
.columns { display: grid; grid-template-columns: repeat(auto-fill, minmax(19rem, 1fr)); gap: 1rem; }
.columns .card { display: flex; flex-direction: column; gap: .45rem; } .name { display: flex;
  flex-wrap: wrap; gap: .6rem; justify-content: space-between; align-items: baseline; }
.tag { font-size: .78rem; color: var(--soft);
  white-space: nowrap; } .tag.fair, .tag.poor { font-weight: 650; } .tag.fair { color: var(--fair); }
.tag.poor { color: var(--poor); } .small { font-size: .84rem; line-height: 1.4; }
.plot { width: 100%; height: 4.2rem; display: block; margin-top: auto; } .plot rect { fill: var(--blue);
  opacity: .75; } .plot polyline { fill: none; stroke: var(--mark); stroke-width: 1.6;
  vector-effect: non-scaling-stroke; stroke-linejoin: round; }
.ends { display: flex; justify-content: space-between; color: var(--soft); font-size: .78rem; margin-top: .15rem; }
.top { list-style: none; margin: 0; padding: 0; font-size: .84rem; } .top li { display: grid; gap: .6rem;
  align-items: center; grid-template-columns: 9rem 1fr 3.6rem; padding: .08rem 0; }
.top li > :first-child { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.top li > :last-child { text-align: right; color: var(--soft); font-variant-numeric: tabular-nums; }
.key { display: inline-block; width: 1rem; height: .55rem; background: var(--blue); opacity: .75; margin-right: .3rem; }
.key.line { background: none; border: 1.6px solid var(--mark); opacity: 1; margin-left: 1rem; }
.wide { overflow-x: auto; } @media (max-width: 60rem) { .three {
  grid-template-columns: 1fr; } .parts li { grid-template-columns: 7rem 1fr 4rem; }
  .parts li > :nth-child(4) { display: none; } } @media (max-width: 40rem) { .head { grid-template-columns: 1fr; } }
"""
"""The look of all pages that are drawn here: cards, bars and tables, in light and dark."""


def write_quality_page(
    path: Path,
    spec: PipelineSpec,
    snapshot: Snapshot,
    validated: Validated,
    quality: Quality,
    profile: Profile,
    before: Profile | None,
) -> None:
    """Draw the verdict, the score, what was refused and changed, and every column beside the last good snapshot's."""
    body = "".join(
        (
            _headline(spec, snapshot, quality),
            _time(profile),
            _rules(quality),
            _anomalies(quality),
            _rows(snapshot, validated),
            _columns(spec, profile, before),
        )
    )
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{text(spec.name)}: quality of the data</title><link rel="icon" href="data:,"><style>{STYLE}</style>'
        f"</head><body><main>{body}</main></body></html>\n"
    )
    atomic_bytes(path, page.encode())


def _headline(spec: PipelineSpec, snapshot: Snapshot, quality: Quality) -> str:
    word, shade = ("Good enough to go on", "good") if quality.passed else ("Refused", "poor")
    fresh = any(isinstance(rule, Fresh) for rule in spec.rules)
    files = f"{len(snapshot.parts)} file{'' if len(snapshot.parts) == 1 else 's'}"
    lines = []
    for name, value in quality.parts.items():
        told = "not measured: no rule Fresh" if name == "timeliness" and not fresh else _MEANINGS[name]
        lines.append(
            f"<li><span>{name}</span>{charts.bar(value, charts.grade(value))}<span>{charts.share(value)}</span>"
            f'<span class="soft small">{told}</span></li>'
        )
    return (
        f"<h1>{text(spec.name)}: quality of the data</h1>"
        f'<p class="soft">{text(spec.description)} As of {quality.as_of:%Y-%m-%d %H:%M} UTC, snapshot '
        f"<code>{text(snapshot.fingerprint)}</code>, {files}.</p>"
        f'<section class="card head"><div>{charts.ring(quality.score)}</div><div>'
        f'<p><span class="verdict {shade}">{word}</span></p><p>{text(quality.reason, 1500)}</p>'
        f'<ul class="parts">{"".join(lines)}</ul></div></section>'
    )


def _time(profile: Profile) -> str:
    drawn = charts.by_time(profile)
    return f'<h2>Rows along their time</h2><section class="card">{drawn}</section>' if drawn else ""


def _rules(quality: Quality) -> str:
    lines = [(_said(rule), f"<code>{text(rule.rule)}</code>", text(rule.reason)) for rule in quality.rules]
    drawn = charts.table(("", "rule", "what it says"), lines)
    return f'<h2>Rules about all rows</h2><section class="card wide">{drawn}</section>'


def _said(rule: RuleResult) -> str:
    word, shade = ("holds", "good") if rule.passed else ("warns", "fair")
    if not rule.passed and rule.severity == "error":
        word, shade = "fails", "poor"
    return f'<span class="said {shade}">{word}</span>'


def _anomalies(quality: Quality) -> str:
    told = "".join(f"<li>{text(line)}</li>" for line in quality.anomalies)
    none = f'<p class="soft">None. A figure is looked at once {HISTORY} earlier good snapshots have it.</p>'
    drawn = f"<ul>{told}</ul>" if told else none
    return f'<h2>Figures unlike earlier ones</h2><section class="card">{drawn}</section>'


def _rows(snapshot: Snapshot, validated: Validated) -> str:
    told = (
        f"{validated.rows_in:,} rows = {validated.rows_accepted:,} accepted + {validated.rows_quarantined:,} "
        f"quarantined. A row may have several reasons."
    )
    cards = [
        ("Quarantine", charts.counted("reason", validated.reasons, "No row is in quarantine.")),
        ("Cleaning", charts.counted("changed cells", validated.cleaned, "No cell was changed.")),
        ("Warnings", charts.counted("accepted all the same", validated.warnings, "No rule warns.")),
    ]
    drawn = "".join(f'<section class="card"><strong>{name}</strong>{content}</section>' for name, content in cards)
    unreadable = [
        (f"<code>{text(file.file)}</code>", text(file.reason), f"{file.size:,} bytes") for file in snapshot.unreadable
    ]
    if unreadable:
        files = charts.table(("file", "why it makes no table", "size"), unreadable)
        drawn += f'<section class="card wide"><strong>Unreadable files</strong>{files}</section>'
    return f'<h2>Rows</h2><p class="soft">{told}</p><div class="three">{drawn}</div>'


def _columns(spec: PipelineSpec, profile: Profile, before: Profile | None) -> str:
    described = {name: column.description or "" for name, column in spec.schema.to_schema().columns.items()}
    cards = [
        _column(column, before.column(column.name) if before is not None else None, described.get(column.name, ""))
        for column in profile.columns
    ]
    key = '<span class="key"></span>this snapshot'
    if before is not None:
        key += '<span class="key line"></span> the last good one'
    return f'<h2>Columns</h2><p class="soft small">{key}</p><div class="columns">{"".join(cards)}</div>'


def _column(column: ColumnProfile, before: ColumnProfile | None, described: str) -> str:
    told = f'<p class="soft small">{text(described)}</p>' if described else ""
    known = before if before is not None and before.kind == column.kind and not before.personal else None
    body = [told, f'<p class="small">{_facts(column)}</p>']
    if column.personal:
        body.append('<p class="soft small">Personal: no value is kept or shown.</p>')
    elif column.kind == "text":
        body.append(charts.frequent(column, known))
    else:
        body.append(charts.histogram(column, known))
    head = f'<div class="name"><h3>{text(column.name)}</h3>{_tag(column)}</div>'
    return f'<article class="card">{head}{"".join(body)}</article>'


def _tag(column: ColumnProfile) -> str:
    if column.shift is None or column.shift < _MOVED:
        return f'<span class="tag">{text(column.dtype)}</span>'
    return (
        f'<span class="tag {"poor" if column.shift >= 2.5 * _MOVED else "fair"}">moved, PSI {column.shift:.2f}</span>'
    )


def _facts(column: ColumnProfile) -> str:
    missing = f"{charts.share(column.missing_share)} missing" if column.missing else "none missing"
    facts = [missing]
    if column.distinct is not None:
        facts.append(f"{'' if column.distinct_exact else '≈ '}{column.distinct:,} distinct")
    if column.low is not None:
        low, high = (charts.number(value, column.kind) for value in (column.low, column.high))
        facts.append(f"{low} to {high}")
    if column.kind == "number" and column.mean is not None:
        facts.append(f"mean {charts.number(column.mean)}")
        facts.append(f"median {charts.number(column.quantiles.get('p50'))}")
    return " · ".join(facts)
