"""Small pictures and numbers of the quality page: inline SVG, escaped text, no script."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from html import escape

from ferroflow.core.profile import Bins, ColumnProfile, Profile, Unit, moment

_WIDTH, _HEIGHT = 260.0, 60.0
_SHOWN = 24  # characters of a value
_PERIODS = 120  # days, weeks or months that are drawn: the last ones


def text(value: object, most: int = 400) -> str:
    """A value for HTML: escaped, and cut where it is long."""
    told = str(value)
    return escape(told if len(told) <= most else told[: most - 1] + "…")


def share(value: float) -> str:
    """A share in per cent; one that is not quite nothing or everything never reads as such."""
    if 0 < value < 0.001:
        return "&lt; 0.1 %"
    return "&gt; 99.9 %" if 0.999 < value < 1 else f"{value * 100:.1f} %".replace(".0 %", " %")


def number(value: float | None, kind: str = "number") -> str:
    """A number in four digits, or the time that it stands for."""
    if value is None:
        return "–"
    if kind == "time":
        return _moment(value)
    if math.isfinite(value) and (value == round(value) or abs(value) >= 10_000):
        return f"{value:,.0f}" if abs(value) < 1e12 else f"{value:.3g}"
    return f"{value:.4g}"


def _moment(microseconds: float) -> str:
    at = moment(microseconds)
    return f"{at:%Y-%m-%d}" if (at.hour, at.minute) == (0, 0) else f"{at:%Y-%m-%d %H:%M}"


def ring(score: float) -> str:
    """The score as a ring that is closed so far, with its number inside."""
    length = 2 * math.pi * 42
    dash = f"{score * length:.1f} {length:.1f}"
    return (
        '<svg class="ring" viewBox="0 0 100 100" role="img" aria-label="score">'
        '<circle cx="50" cy="50" r="42" class="track"/>'
        f'<circle cx="50" cy="50" r="42" class="arc {grade(score)}" stroke-dasharray="{dash}"'
        f' transform="rotate(-90 50 50)"/><text x="50" y="58">{math.floor(score * 1000) / 10:g}</text></svg>'
    )


def grade(value: float) -> str:
    """The class of a share's colour: good from 0.95 on, fair from 0.8 on, poor below."""
    return "good" if value >= 0.95 else "fair" if value >= 0.8 else "poor"


def bar(value: float, shade: str = "") -> str:
    """A horizontal bar of a share."""
    return f'<span class="bar {shade}"><i style="width:{max(0.0, min(1.0, value)) * 100:.1f}%"></i></span>'


def histogram(column: ColumnProfile, before: ColumnProfile | None) -> str:
    """Bars of this snapshot's rows and an outline of the last good one's, both as densities over the same axis."""
    if column.histogram is None or column.span is None:
        return ""
    low, high = column.span
    bars = _densities(column.histogram, column.span)
    outline = _densities(before.histogram, before.span) if before and before.histogram and before.span else []
    seen = [(max(start, low), min(end, high), height) for start, end, height in outline if end > low and start < high]
    top = max((height for *_, height in [*bars, *seen]), default=0.0) or 1.0
    drawn = "".join(_bar(_x(start, low, high), _x(end, low, high), height / top) for start, end, height in bars)
    if seen:
        points = [f"{_x(seen[0][0], low, high):.1f},{_HEIGHT:.1f}"]
        for start, end, height in seen:
            points += [f"{_x(at, low, high):.1f},{_HEIGHT * (1 - height / top):.1f}" for at in (start, end)]
        points.append(f"{_x(seen[-1][1], low, high):.1f},{_HEIGHT:.1f}")
        drawn += f'<polyline points="{" ".join(points)}"/>'
    ends = (f"<span>{number(at, column.kind)}</span>" for at in _labels(column))
    return f'{_picture(drawn, f"distribution of {column.name}")}<div class="ends">{"".join(ends)}</div>'


def _labels(column: ColumnProfile) -> tuple[float, float]:
    """What stands below the ends of the axis; bins of whole numbers reach half a unit further than the numbers."""
    low, high = column.span or (0.0, 0.0)
    if low % 1 == 0.5 and high % 1 == 0.5:
        return low + 0.5, high - 0.5
    return low, high


def _densities(bins: Bins, span: tuple[float, float]) -> list[tuple[float, float, float]]:
    """From, to and the share of the rows for each unit between, of every bin."""
    borders, rows = [span[0], *bins.edges, span[1]], sum(bins.rows) or 1
    pairs = zip(borders, borders[1:], bins.rows, strict=False)
    return [(start, end, count / rows / (end - start)) for start, end, count in pairs if end > start]


def _x(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) * _WIDTH


def _bar(left: float, right: float, height: float) -> str:
    width, tall = max(right - left - 1, 0.5), height * _HEIGHT
    return f'<rect x="{left:.1f}" y="{_HEIGHT - tall:.1f}" width="{width:.1f}" height="{tall:.1f}"/>'


def _picture(drawn: str, told: str) -> str:
    box = f'viewBox="0 -1 {_WIDTH:g} {_HEIGHT + 1:g}" preserveAspectRatio="none"'
    return f'<svg class="plot" {box} role="img" aria-label="{text(told)}">{drawn}</svg>'


def frequent(column: ColumnProfile, before: ColumnProfile | None, most: int = 6) -> str:
    """The most frequent values with their shares, each with a mark where the last good snapshot had it."""
    lines = []
    for value, rows in list(column.top.items())[:most]:
        now = rows / column.rows
        then = before.top.get(value, 0) / before.rows if before is not None and before.rows else None
        mark = f'<b style="left:{then * 100:.1f}%"></b>' if then is not None else ""
        shown = text(value, _SHOWN) if value.strip() else "<em>blank</em>"
        filled = f'<span class="bar"><i style="width:{now * 100:.1f}%"></i>{mark}</span>'
        lines.append(f"<li><span>{shown}</span>{filled}<span>{share(now)}</span></li>")
    return f'<ul class="top">{"".join(lines)}</ul>' if lines else ""


def by_time(profile: Profile) -> str:
    """Rows of each day, week or month, those without rows among them; the last ones where there are many."""
    counted = {date.fromisoformat(day): rows for day, rows in profile.by_time.items()}
    if not counted:
        return ""
    days = _last_periods(max(counted), min(counted), profile.unit)
    top, step = max(counted.get(day, 0) for day in days) or 1, _WIDTH / len(days)
    drawn = "".join(
        _bar(place * step, (place + 1) * step + 0.6, counted.get(day, 0) / top) for place, day in enumerate(days)
    )
    told = f"rows of each {profile.unit}, at most {top:,}"
    ends = f'<div class="ends"><span>{days[0]}</span><span>{told}</span><span>{days[-1]}</span></div>'
    return _picture(drawn, told) + ends


def _last_periods(last: date, first: date, unit: Unit) -> list[date]:
    found = [last]
    while found[-1] > first and len(found) < _PERIODS:
        day = found[-1]
        back = {"day": day - timedelta(days=1), "week": day - timedelta(days=7)}
        found.append(back.get(unit, (day.replace(day=1) - timedelta(days=1)).replace(day=1)))
    return found[::-1]


def table(head: tuple[str, ...], lines: Sequence[tuple[str, ...]]) -> str:
    """An HTML table of cells that are HTML already."""
    cells = ["<tr>" + "".join(f"<td>{cell}</td>" for cell in line) + "</tr>" for line in lines]
    return f"<table><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr>{''.join(cells)}</table>"


def counted(what: str, rows: Mapping[str, int], nothing: str) -> str:
    """Names with their counts as bars, the most frequent first."""
    if not rows:
        return f'<p class="soft">{nothing}</p>'
    most = max(rows.values()) or 1
    lines = [
        (text(name, 120), bar(count / most, "thin"), f"{count:,}")
        for name, count in sorted(rows.items(), key=lambda entry: (-entry[1], entry[0]))
    ]
    return f'<div class="counted">{table((what, "", ""), lines)}</div>'
