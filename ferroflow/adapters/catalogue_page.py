"""The catalogue's page: one self-contained HTML file in light and dark, which can be sorted and searched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ferroflow.adapters.profile_charts import bar, number, share, text
from ferroflow.adapters.profile_page import STYLE
from ferroflow.adapters.storage import atomic_bytes
from ferroflow.core.catalogue import Catalogue, FeatureEntry, Freshness, PipelineFeatures, spoken

PAGE = "features.html"
"""The page's file among the reports of a pipeline."""
ALL = "all-pipelines"
"""The folder, among the reports, of the page about all pipelines: no pipeline can be named so."""

_LOTS = 0.2  # missing share from which on it is marked

_KINDS = {"field": "field", "request": "request feature", "stored": "stored feature", "window": "window feature"}

_MORE = """
main { max-width: 84rem; } .facts { display: flex; flex-wrap: wrap; gap: .8rem; margin-top: 1.2rem; }
.facts .card { padding: .55rem 1rem; } .facts strong { font-size: 1.35rem; display: block; line-height: 1.25; }
.facts strong.poor { color: var(--poor); } .facts strong.fair { color: var(--fair); }
.about { display: grid; grid-template-columns: repeat(auto-fit, minmax(21rem, 1fr)); gap: 1rem; }
.about strong { font-size: 1.02rem; } .tools { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1.6rem 0 .7rem;
  align-items: center; } input, select { font: inherit; color: inherit; background: var(--card); padding: .4rem .7rem;
  border: 1px solid var(--line); border-radius: 8px; min-width: 0; } input { flex: 1 1 16rem; }
input:focus, select:focus, th button:focus-visible { outline: 2px solid var(--blue); outline-offset: 1px; }
.list { padding: .3rem 1.15rem; } .list td { vertical-align: top; padding-top: .6rem; padding-bottom: .6rem; }
.list td:last-child, .list th:last-child { padding-right: 0; } th button { font: inherit; color: inherit;
  background: none; border: 0; padding: 0; cursor: pointer; white-space: nowrap; }
th button::after { content: "\\2195"; opacity: .35; margin-left: .3rem; }
th[aria-sort=ascending] button::after { content: "\\2191"; opacity: 1; }
th[aria-sort=descending] button::after { content: "\\2193"; opacity: 1; }
td p { margin: .1rem 0; } td .name { display: block; font: 600 .92rem ui-monospace, monospace;
  overflow-wrap: anywhere; } .num { font-variant-numeric: tabular-nums; white-space: nowrap; }
.pill { display: inline-block; border: 1px solid var(--line); border-radius: 999px; padding: 0 .55rem;
  font-size: .78rem; color: var(--soft); white-space: nowrap; } .pill.poor { color: var(--poor);
  border-color: currentColor; font-weight: 650; } .pill.serves { color: var(--good); border-color: currentColor; }
.what { min-width: 15rem; max-width: 27rem; } .list .bar.thin { width: 5rem; margin-top: .3rem; }
tr[hidden] { display: none; } @media (max-width: 62rem) { main { padding: 1.2rem .8rem 3rem; }
  .list { padding: 0; background: none; border: 0; } .list thead { display: none; }
  .list tbody, .list td { display: block; } .list tr { display: block; background: var(--card);
  border: 1px solid var(--line); border-radius: 12px; padding: .7rem .9rem; margin-bottom: .7rem; }
  .list td { border: 0; padding: .18rem 0; max-width: none; } .list td:empty { display: none; }
  .list td[data-is] { display: grid; grid-template-columns: 6.6rem 1fr; gap: .6rem; }
  .list td[data-is]::before { content: attr(data-is); color: var(--soft); font-size: .84rem; }
  .list td[data-is]:not([data-is=age]):has(> div > .soft:only-child) { display: none; }
  .about { grid-template-columns: 1fr; } .facts .card { flex-grow: 1; } }
"""

_SCRIPT = """
const rows = [...document.querySelectorAll("tbody tr")], words = document.getElementById("words");
const picks = [...document.querySelectorAll("select")], shown = document.getElementById("shown");
const show = () => {
  const asked = words.value.toLowerCase().split(/\\s+/).filter(Boolean);
  rows.forEach(row => { row.hidden = !asked.every(word => row.dataset.text.includes(word))
    || !picks.every(pick => !pick.value || row.dataset[pick.name].split(" ").includes(pick.value)); });
  shown.textContent = rows.filter(row => !row.hidden).length + " of " + rows.length;
};
[words, ...picks].forEach(entry => entry.addEventListener("input", show));
document.querySelectorAll("th button").forEach(button => button.addEventListener("click", () => {
  const head = button.parentElement, at = head.cellIndex, down = head.getAttribute("aria-sort") === "ascending";
  document.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const key = row => row.cells[at].dataset.sort, sign = down ? -1 : 1;
  rows.sort((one, two) => { const [a, b] = [key(one), key(two)];
    if (a === "" || b === "") return (a === "") - (b === "");
    return sign * (isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b); });
  document.querySelector("tbody").append(...rows);
}));
"""


def write_catalogue_page(path: Path, catalogue: Catalogue) -> None:
    """Draw every feature of the catalogue with a card for each pipeline; written whole or not at all."""
    named = catalogue.pipelines[0].pipeline if len(catalogue.pipelines) == 1 else "all pipelines"
    body = "".join(
        (
            f"<h1>Features of {text(named)}</h1>",
            _counts(catalogue),
            f"<h2>Pipeline{'s' if len(catalogue.pipelines) != 1 else ''}</h2>",
            f'<div class="about">{"".join(map(_about, catalogue.pipelines))}</div>',
            "<h2>Features</h2>",
            _tools(catalogue),
            _table(catalogue),
        )
    )
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>Features of {text(named)}</title><link rel="icon" href="data:,"><style>{STYLE}{_MORE}</style>'
        f"</head><body><main>{body}</main><script>{_SCRIPT}</script></body></html>\n"
    )
    atomic_bytes(path, page.encode())


def _counts(catalogue: Catalogue) -> str:
    entries = catalogue.features
    known = [part for part in catalogue.pipelines if part.uses_known]
    idle = sum(not entry.used_by for part in known if part.models for entry in part.features)
    facts = [
        (len(entries), "features", ""),
        (sum(bool(entry.freshness and entry.freshness.stale) for entry in entries), "stale", "poor"),
        (sum(not entry.description for entry in entries), "without a description", "fair"),
        (sum(not entry.owner for entry in entries), "without an owner", "fair"),
        *([(idle, "used by no model that serves", "fair")] if known else []),
    ]
    cards = (
        f'<div class="card"><strong class="{shade if count else ""}">{count:,}</strong>'
        f'<span class="soft small">{told}</span></div>'
        for count, told, shade in facts
    )
    return f'<section class="facts">{"".join(cards)}</section>'


def _about(part: PipelineFeatures) -> str:
    lines = [f"Ages count to {part.as_of:%Y-%m-%d %H:%M} UTC."]
    made = f"{part.table_as_of:%Y-%m-%d %H:%M} UTC" if part.table_as_of else ""
    table = f"Training table <code>{text(part.table)}</code> as of {made}." if part.table else "No training table yet."
    since = f" since {part.logged_since:%Y-%m-%d %H:%M} UTC" if part.logged_since else ""
    lines += [table, f"{part.logged:,} logged predictions{since}." if part.logged else "No predictions logged lately."]
    lines += [_model(part), _measured(part)]
    owner = f'<span class="tag">{text(part.owner)}</span>' if part.owner else ""
    told = "".join(f'<p class="soft small">{line}</p>' for line in lines if line)
    return (
        f'<article class="card"><div class="name"><strong>{text(part.pipeline)}</strong>{owner}</div>'
        f"<p>{text(part.description)}</p>{told}</article>"
    )


def _model(part: PipelineFeatures) -> str:
    if not part.models and part.models_problem:
        return f'<span class="said poor">Models are not known:</span> {text(part.models_problem)}'
    if not part.models:
        return "No model is registered."
    told = (
        f"{text(model.alias)} {text(model.version)}"
        + (f" ({text(model.problem)})" if model.problem else f" of {len(model.inputs)} inputs")
        for model in part.models
    )
    return f"Models: {', '.join(told)}."


def _measured(part: PipelineFeatures) -> str:
    found = part.importances
    if found is None:
        if not part.models:
            return ""
        return f"Importance is not measured: <code>ferroflow features measure {text(part.pipeline)}</code>"
    return (
        f"Importance: growth of {text(found.metric)} {number(found.error)} of version {text(found.version)} when the "
        f"values of one input are shuffled, {found.rows:,} rows, mean of {found.repeats}."
    )


def _tools(catalogue: Catalogue) -> str:
    pipelines = [(part.pipeline, part.pipeline) for part in catalogue.pipelines]
    kinds = [(kind, told) for kind, told in _KINDS.items() if any(kind == entry.kind for entry in catalogue.features)]
    states = [("stale", "stale"), ("unused", "used by no model"), ("champion", "used by a champion")]
    several = _select("pipeline", "all pipelines", pipelines) if len(pipelines) > 1 else ""
    return (
        '<div class="tools"><input id="words" type="search" placeholder="Search name, owner, description"'
        f' aria-label="Search">{several}{_select("kind", "all kinds", kinds)}{_select("state", "any state", states)}'
        f'<span class="soft small" id="shown">{len(catalogue.features)} features</span></div>'
    )


def _select(name: str, otherwise: str, options: Sequence[tuple[str, str]]) -> str:
    listed = "".join(f'<option value="{text(value)}">{text(told)}</option>' for value, told in options)
    return f'<select name="{name}" aria-label="{name}"><option value="">{otherwise}</option>{listed}</select>'


def _table(catalogue: Catalogue) -> str:
    heads = ("feature", "pipeline", "owner", "age", "missing", "values", "importance", "used by")
    several = len(catalogue.pipelines) > 1
    head = "".join(f'<th><button type="button">{name}</button></th>' for name in heads if several or name != "pipeline")
    rows = []
    for part in catalogue.pipelines:
        greatest = max(part.importances.growth.values(), default=0.0) if part.importances else 0.0
        rows += [_row(entry, part, greatest, several) for entry in part.features]
    drawn = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<section class="card list">{drawn}</section>'


def _row(entry: FeatureEntry, part: PipelineFeatures, greatest: float, several: bool) -> str:
    stale = bool(entry.freshness and entry.freshness.stale)
    unused = ["unused"] if part.uses_known and not entry.used_by else []
    states = [*(["stale"] if stale else []), *unused, *(used.partition(" ")[0] for used in entry.used_by)]
    searched = " ".join((entry.name, entry.pipeline, entry.owner, entry.description, entry.view, *entry.depends_on))
    cells = [
        _cell("", entry.name, _what(entry), "what"),
        *([_cell("pipeline", entry.pipeline, text(entry.pipeline))] if several else []),
        _cell("owner", entry.owner, text(entry.owner) or '<span class="soft">nobody</span>'),
        _age(entry.freshness),
        _missing(entry),
        _values(entry),
        _importance(entry, part, greatest),
        _cell("used by", " ".join(entry.used_by), _used(entry, part)),
    ]
    return (
        f'<tr data-pipeline="{text(entry.pipeline)}" data-kind="{entry.kind}" data-state="{text(" ".join(states))}" '
        f'data-text="{text(searched.lower(), 4000)}">{"".join(cells)}</tr>'
    )


def _cell(name: str, sort: object, content: str, style: str = "") -> str:
    labelled = f' data-is="{name}"' if name else ""
    styled = f' class="{style}"' if style else ""
    return f'<td{labelled}{styled} data-sort="{text(sort)}"><div>{content}</div></td>'


def _what(entry: FeatureEntry) -> str:
    lines = [f'<span class="name">{text(entry.name)}</span>', f"<p>{text(entry.description, 600)}</p>"]
    facts = [_KINDS[entry.kind], entry.dtype]
    if entry.kind != "field":
        facts.append(f"in {entry.view}")
    if entry.entity:
        facts.append(f"by {entry.on}" if entry.entity == entry.on else f"of {entry.entity}, by {entry.on}")
    if entry.window:
        facts.append(entry.window)
    if entry.ttl_seconds is not None:
        facts.append(f"usable for {spoken(entry.ttl_seconds)}")
    lines.append(f'<p class="soft small">{" · ".join(text(fact) for fact in facts if fact)}</p>')
    if entry.depends_on:
        lines.append(f'<p class="soft small">from <code>{text(", ".join(entry.depends_on))}</code></p>')
    return "".join(lines)


def _age(fresh: Freshness | None) -> str:
    if fresh is None:
        return _cell("age", "", '<span class="soft small">at each request</span>')
    lines = []
    if fresh.stale:
        lines.append(f'<span class="pill poor">stale</span><p class="small">{text(fresh.stale)}</p>')
    elif fresh.age_seconds is not None:
        lines.append(f'<span class="num">{spoken(fresh.age_seconds)}</span>')
    if fresh.ingested_at is not None:
        lines.append(f'<p class="soft small num">ingested {fresh.ingested_at:%Y-%m-%d %H:%M}</p>')
    if fresh.online_until is not None:
        lines.append(f'<p class="soft small num">online to {fresh.online_until:%Y-%m-%d %H:%M}</p>')
    if fresh.problem:
        lines.append(f'<p class="small said fair">online store: {text(fresh.problem)}</p>')
    return _cell("age", "" if fresh.age_seconds is None else fresh.age_seconds, "".join(lines))


def _missing(entry: FeatureEntry) -> str:
    lines, most = [], None
    for told, found in (("trained on", entry.training), ("asked lately", entry.logged)):
        if found is None:
            continue
        most = max(most or 0.0, found.missing_share)
        shade = ' class="said fair"' if found.missing_share >= _LOTS else ""
        lines.append(
            f'<p class="num" title="of {found.rows:,} rows"><span{shade}>{share(found.missing_share)}</span> '
            f'<span class="soft small">{told}</span></p>'
        )
    return _cell("missing", "" if most is None else most, "".join(lines) or '<span class="soft small">not known</span>')


def _values(entry: FeatureEntry) -> str:
    found = entry.training
    if found is None:
        return _cell("values", "", '<span class="soft small">not known</span>')
    if found.hidden:
        return _cell("values", "", '<span class="soft small">personal: not shown</span>')
    if found.top is not None:
        common = share(found.top_rows / max(found.rows, 1))
        return _cell(
            "values", found.top, f'<span>{text(found.top, 40)}</span><p class="soft small num">{common} of rows</p>'
        )
    if found.mean is None:
        return _cell("values", "", '<span class="soft small">all missing</span>')
    low, mean, high = (number(value) for value in (found.low, found.mean, found.high))
    return _cell(
        "values", found.mean, f'<span class="num">{low} … {high}</span><p class="soft small num">mean {mean}</p>'
    )


def _importance(entry: FeatureEntry, part: PipelineFeatures, greatest: float) -> str:
    if entry.importance is None:
        used = part.importances
        why = "not measured" if used is None else f"version {text(used.version)} does not use it"
        return _cell("importance", "", f'<span class="soft small">{why}</span>')
    drawn = bar(entry.importance / greatest if greatest > 0 else 0.0, "thin")
    return _cell("importance", entry.importance, f'<span class="num">{entry.importance:+.3g}</span>{drawn}')


def _used(entry: FeatureEntry, part: PipelineFeatures) -> str:
    if not entry.used_by:
        return f'<span class="soft small">{"no model" if part.uses_known else "not known"}</span>'
    pills = (
        f'<span class="pill{" serves" if used.startswith("champion") else ""}">{text(used)}</span>'
        for used in entry.used_by
    )
    return " ".join(pills)
