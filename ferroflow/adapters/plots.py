"""One picture of a model: predictions against the truth, and the error by slice beside the baseline's."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import polars as pl

from ferroflow.core.records import Evaluation, TrainedModel
from ferroflow.core.spec import PipelineSpec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_INK, _MUTED, _GRID = "#1f2933", "#7b8794", "#e4e7eb"
_CANDIDATE, _BASELINE = "#0b69a3", "#cbd2d9"
_SLICES = 8
_BINS = 10


def evaluation_plot(spec: PipelineSpec, model: TrainedModel, evaluation: Evaluation, reference: pl.DataFrame) -> bytes:
    """Draw the picture as PNG.

    Args:
        reference: columns ``prediction`` and ``target`` of validation and test rows; the target in its own units, or
            the class (text, or 0 and 1).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), dpi=110, layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2, width_ratios=(1.05, 1))
    if spec.target.task == "regression":
        _density(figure, left, spec, reference)
    else:
        _calibration(left, spec, reference)
    _by_slice(right, model, evaluation)
    scores = evaluation.metrics.get("test", {})
    head = f"{spec.name} · {model.candidate} · test {model.metric} {scores.get(model.metric, float('nan')):.4g}"
    figure.suptitle(head, x=0.012, ha="left", fontsize=13, fontweight="bold", color=_INK)
    out = io.BytesIO()
    FigureCanvasAgg(figure).print_png(out)
    return out.getvalue()


def _density(figure: Any, axes: Any, spec: PipelineSpec, reference: pl.DataFrame) -> None:
    target, guess = _numbers(reference["target"]), _numbers(reference["prediction"])
    import numpy as np
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap
    from matplotlib.ticker import FuncFormatter, NullFormatter

    shades = ListedColormap(colormaps["Blues"](np.linspace(0.2, 1, 256)))  # a single row is still to be seen
    low, high = (float(value) for value in np.quantile(np.concatenate((target, guess)), (0.002, 0.998)))
    if high <= low:
        low, high = low - 0.5, high + 0.5
    named = spec.target.column.replace("_", " ")  # ends in its unit: duration minutes
    drawn = axes.hexbin(target, guess, gridsize=42, extent=(low, high, low, high), bins="log", mincnt=1, cmap=shades)
    axes.plot((low, high), (low, high), color=_INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.annotate("exact", (high, high), (-22, -6), textcoords="offset points", ha="right", va="top", color=_MUTED)
    axes.set(xlim=(low, high), ylim=(low, high), xlabel=f"actual {named}", ylabel=f"predicted {named}")
    bar = figure.colorbar(drawn, ax=axes, shrink=0.85, pad=0.02)
    bar.set_label("rows", color=_MUTED)
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    bar.ax.tick_params(colors=_MUTED, labelsize=8)
    bar.outline.set_visible(False)
    _style(axes, f"{spec.target.column}: predicted against actual, {len(target):,} rows")


def _calibration(axes: Any, spec: PipelineSpec, reference: pl.DataFrame) -> None:
    positive = str(getattr(spec.target, "positive", 1))
    target = reference["target"]
    truth = _numbers(target if target.dtype.is_numeric() else (target == positive).cast(pl.Float64))
    guess = _numbers(reference["prediction"])
    frame = pl.DataFrame({"truth": truth, "guess": guess})
    binned = frame.group_by((pl.col("guess") * _BINS).floor().clip(0, _BINS - 1).alias("bin")).agg(
        pl.col("truth").mean(), pl.col("guess").mean(), pl.len().alias("rows")
    )
    binned = binned.sort("bin")
    axes.plot((0, 1), (0, 1), color=_INK, linewidth=1, linestyle=(0, (4, 3)))
    sizes = 20 + 320 * binned["rows"].to_numpy() / max(frame.height, 1)
    axes.plot(binned["guess"], binned["truth"], color=_CANDIDATE, linewidth=1.5)
    axes.scatter(binned["guess"], binned["truth"], s=sizes, color=_CANDIDATE, zorder=3, edgecolor="white")
    axes.set(
        xlim=(0, 1), ylim=(0, 1), xlabel=f"predicted probability of {positive}", ylabel=f"share that is {positive}"
    )
    _style(axes, f"Calibration, {frame.height:,} rows (a dot's area: its rows)")


def _by_slice(axes: Any, model: TrainedModel, evaluation: Evaluation) -> None:
    column, rows = _slices(model, evaluation)
    labels = [name for name, _ in rows]
    places = range(len(rows))
    for shift, who, colour in ((-0.2, "candidate", _CANDIDATE), (0.2, "baseline", _BASELINE)):
        heights = [scores.get(who, float("nan")) for _, scores in rows]
        name = model.candidate if who == "candidate" else who
        axes.barh([place + shift for place in places], heights, height=0.38, color=colour, label=name)
        for place, value in zip(places, heights, strict=True):
            axes.annotate(
                f"{value:.3g}",
                (value, place + shift),
                (3, 0),
                textcoords="offset points",
                va="center",
                fontsize=7,
                color=_MUTED,
            )
    axes.set_yticks(list(places), labels)
    axes.invert_yaxis()
    axes.set_xlabel(model.metric)
    axes.margins(x=0.12)
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=8)
    _style(axes, f"{model.metric} by {column}, test rows")


def _slices(model: TrainedModel, evaluation: Evaluation) -> tuple[str, list[tuple[str, dict[str, float]]]]:
    """The largest slices of the first sliced column; the parts where nothing is sliced."""
    for column, values in evaluation.slices.items():
        ordered = sorted(values.items(), key=lambda entry: -entry[1]["rows"])[:_SLICES]
        return column, [(f"{value} ({scores['rows']:,.0f})", scores) for value, scores in ordered]
    nan = float("nan")
    parts = [
        (
            part,
            {
                "candidate": scores.get(model.metric, nan),
                "baseline": evaluation.baseline.get(part, {}).get(model.metric, nan),
            },
        )
        for part, scores in evaluation.metrics.items()
    ]
    return "part", parts


def _style(axes: Any, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=10, color=_INK)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_MUTED, labelsize=8, length=0)
    for side in axes.spines.values():
        side.set_visible(False)


def _numbers(values: pl.Series) -> npt.NDArray[np.float64]:
    return values.cast(pl.Float64).to_numpy()
