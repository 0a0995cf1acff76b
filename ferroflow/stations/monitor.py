"""Look at what the champion answered: was it fed what training would feed it, is the error as expected, is it too old?

Inputs are asked for first (skew), then the error, then drift, then age.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import polars as pl

from ferroflow.adapters.home import Home
from ferroflow.adapters.ledger import Ledger
from ferroflow.adapters.storage import read_record, read_table, write_record
from ferroflow.core import retrain
from ferroflow.core.drift import column_drift
from ferroflow.core.durations import duration
from ferroflow.core.errors import RegistryError
from ferroflow.core.expected import Expectation, Ratio, persistently_worse, told, worse
from ferroflow.core.fingerprint import fingerprint
from ferroflow.core.records import ColumnDrift, Decision, ModelVersion, MonitorReport, SkewReport
from ferroflow.core.skew import differing, judge
from ferroflow.core.spec import InputDrift, Performance, PipelineSpec, Skew, Staleness
from ferroflow.core.splits import before
from ferroflow.stations.live import label_bounds, left_out, live_rows
from ferroflow.stations.skew import measure_skew

Alarm = Literal["none", "skew", "performance", "drift", "staleness"]

_META = ("row_id", "prediction", "target", "part")
_STRETCHES = 30  # how many of them are looked at
_FEWEST_STRETCHES = 5  # fewer say nothing about what is usual
_NAMED = 3  # drifted columns that a reason names


@dataclass(frozen=True)
class _Errors:
    """Live errors against expected ones: each window (oldest first), and all of them together."""

    monitor: Performance
    windows: tuple[tuple[datetime, Ratio], ...]
    pooled: Ratio
    alarm: bool

    @property
    def known(self) -> bool:
        """Whether there are labels enough to say anything."""
        return self.pooled.rows >= self.monitor.min_rows


def monitor(spec: PipelineSpec, as_of: datetime, home: Home, *, report: bool = True) -> MonitorReport:
    """Judge the champion's predictions before ``as_of``; the same log and moment always give the same report.

    Args:
        report: draw Evidently's page when there is an alarm or an input drifted.

    Raises:
        RegistryError: the registry is away, or the champion's reference rows are gone.
    """
    from ferroflow.adapters.registry import champion

    version = champion(spec.name, home)
    if version is None:
        why = "there is no champion, so there is nothing to monitor; train one: ferroflow run " + spec.name
        return _report(spec, as_of, fingerprint(spec.name, as_of, None), None, pl.DataFrame(), why=why)
    return monitor_version(spec, version, as_of, home, report=report)


def monitor_version(
    spec: PipelineSpec, version: ModelVersion, as_of: datetime, home: Home, *, report: bool = True
) -> MonitorReport:
    """As ``monitor``, for a given version: what other versions answered is left out."""
    reference = read_table(home.absolute(version.reference))
    if reference is None:
        raise RegistryError(
            f"Version {version.version} of {spec.name!r} has no reference rows at {version.reference}: its home folder "
            f"is incomplete. Evaluate and register again: ferroflow run {spec.name}"
        )
    inputs = [name for name in reference.columns if name not in (*_META, spec.time)]
    bounds = label_bounds(version, home)
    live = live_rows(spec, version.version, as_of, home, reference.select(inputs).schema, bounds)
    seen = live.select("id", "target", "label_outside").rows()
    skew = None if spec.monitor(Skew) is None else measure_skew(spec, as_of, home, served=[version])
    compared = None if skew is None else skew.fingerprint
    name = fingerprint(version.fingerprint, version.version, as_of, seen, repr(spec.monitors), compared)
    folder = home.data(spec.name) / "reports" / name
    done = read_record(folder / "manifest.json", MonitorReport)
    record = done or _with_skew(spec, skew, _judge(spec, version, as_of, name, reference, inputs, live, home))
    telling = record.alarm != "none" or any(entry.drifted for entry in record.drift)
    if report and telling and (record.html is None or not home.absolute(record.html).exists()):
        page = home.reports(spec.name) / f"{as_of:%Y-%m-%dT%H%M}-{name}.html"
        record = record.model_copy(update={"html": _page(spec, record, reference, live, page, home)})
    if record is not done:
        write_record(folder / "manifest.json", record)
    return record


def decide(
    spec: PipelineSpec, report: MonitorReport, retrains: list[datetime], as_of: datetime, new_rows: int
) -> Decision:
    """Whether this report leads to a retraining, by the pipeline's policy."""
    go, reason = retrain.decide(spec.retrain, report.alarm, report.why, retrains, as_of, new_rows)
    return Decision(
        pipeline=spec.name,
        fingerprint=fingerprint(report.fingerprint, as_of, retrains, new_rows, repr(spec.retrain)),
        parent=report.fingerprint,
        retrain=go,
        reason=reason,
        as_of=as_of,
    )


def _judge(
    spec: PipelineSpec,
    version: ModelVersion,
    as_of: datetime,
    name: str,
    reference: pl.DataFrame,
    inputs: list[str],
    live: pl.DataFrame,
    home: Home,
) -> MonitorReport:
    errors = _errors(spec, as_of, reference, inputs, live)
    drift = _drift(spec, as_of, reference, inputs, live)
    alarm, why = _conclude(spec, version.version, errors, drift, live.height)
    aged = _age(spec, version, as_of, reference, home)
    if aged and alarm == "none":
        alarm, why = "staleness", f"{aged}; {why}"
    if outside := int(live["label_outside"].sum()):
        why += f"; {left_out(outside, label_bounds(version, home))}"
    return _report(spec, as_of, name, version, live, errors=errors, drift=drift, alarm=alarm, why=why)


def _with_skew(spec: PipelineSpec, skew: SkewReport | None, report: MonitorReport) -> MonitorReport:
    """The report with what was found of skew: on inputs that differ from training's nothing else is judged.

    That nothing could be compared is an alarm where there is no other: it says nothing against error and drift.
    """
    if skew is None or skew.read == 0:
        return report
    policy = spec.monitor(Skew)
    alarmed, told = judge(skew, policy)
    if differing(skew, policy):
        why = f"{told}; on such inputs neither error nor drift says anything of the model"
        return report.model_copy(update={"skew": skew, "alarm": "skew", "why": why})
    if alarmed and report.alarm == "none":
        return report.model_copy(update={"skew": skew, "alarm": "skew", "why": f"{told}; {report.why}"})
    return report.model_copy(update={"skew": skew, "why": f"{report.why}; {told}"})


def _errors(
    spec: PipelineSpec, as_of: datetime, reference: pl.DataFrame, inputs: list[str], live: pl.DataFrame
) -> _Errors | None:
    """The last windows with labels: those whose labels are still to come are passed over, at most as many again."""
    policy: Performance | None = spec.monitor(Performance)
    if policy is None:
        return None
    categorical = [name for name in inputs if name in spec.categorical]
    # Test rows alone: validation rows chose the model, so their errors flatter it.
    expectation = Expectation.fit(spec.target.task, reference.filter(pl.col("part") == "test"), categorical)
    labelled = live.drop_nulls("target")
    starts = window_starts(as_of, policy.window, 2 * policy.windows, spec.source.timezone)
    found = []
    for start, end in zip(starts, [*starts[1:], as_of], strict=True):
        rows = labelled.filter(pl.col("moment").is_between(start, end, closed="left"))
        found.append((start, expectation.compare(rows, policy.confidence), rows))
    while len(found) > policy.windows and found[-1][1].rows < policy.min_rows:
        found.pop()
    last = found[-policy.windows :]
    if not any(ratio.rows for _, ratio, _ in last):
        last = []
    rows = pl.concat([labelled.clear(), *(rows for _, _, rows in last)])
    pooled = expectation.compare(rows, policy.confidence)
    ratios = [ratio for _, ratio, _ in last]
    alarm = persistently_worse(ratios, pooled, policy.worse_by, policy.windows, policy.min_rows)
    return _Errors(policy, tuple((start, ratio) for start, ratio, _ in last), pooled, alarm)


def window_starts(as_of: datetime, window: str, count: int, timezone: str) -> list[datetime]:
    """Starts of the ``count`` windows before ``as_of``, oldest first; days are the wall clock's."""
    starts: list[datetime] = []
    for _ in range(count):
        starts.insert(0, before(starts[0] if starts else as_of, window, timezone))
    return starts


def _drift(
    spec: PipelineSpec, as_of: datetime, reference: pl.DataFrame, inputs: list[str], live: pl.DataFrame
) -> tuple[ColumnDrift, ...]:
    """Inputs of the last windows against the reference, and against stretches of it that are as long."""
    policy: InputDrift | None = spec.monitor(InputDrift)
    if policy is None:
        return ()
    windows: Performance = spec.monitor(Performance) or Performance()
    [since, *_] = window_starts(as_of, windows.window, windows.windows, spec.source.timezone)
    recent = live.filter(pl.col("moment") >= since)
    stretches = [] if spec.time is None else _stretches(reference, spec.time, as_of - since, policy.min_rows)
    return column_drift(
        reference.select(inputs),
        recent.select([name for name in inputs if name in recent.columns]),
        policy,
        categorical=spec.categorical,
        calendar=calendar_features(spec),
        stretches=stretches,
    )


def _stretches(reference: pl.DataFrame, time: str, span: timedelta, min_rows: int) -> list[pl.DataFrame]:
    """The reference cut into pieces of that span, the last ones; those with too few rows are left out."""
    age = (pl.lit(reference[time].max()) - pl.col(time)).dt.total_microseconds()
    numbered = reference.with_columns((age // (span // timedelta(microseconds=1))).alias("__piece"))
    pieces = numbered.filter(pl.col("__piece") < _STRETCHES).partition_by("__piece", include_key=False)
    return [piece for piece in pieces if piece.height >= min_rows] if len(pieces) >= _FEWEST_STRETCHES else []


def calendar_features(spec: PipelineSpec) -> set[str]:
    """Request features that are made of the event time alone: a week cannot look like a year in them."""
    found: set[str] = set() if spec.time is None else {spec.time}
    for entry in spec.request:
        for expression in entry.expressions():
            roots = set(expression.meta.root_names())
            if roots and roots <= found:
                found.add(expression.meta.output_name())
    return found - {spec.time}


def _age(spec: PipelineSpec, version: ModelVersion, as_of: datetime, reference: pl.DataFrame, home: Home) -> str:
    """Why the champion is too old; empty when it is not.

    Its age counts from the youngest row it was tested on, or, without event times, from its last promotion.
    """
    policy: Staleness | None = spec.monitor(Staleness)
    if policy is None:
        return ""
    if spec.time is not None and spec.time in reference.columns:
        youngest: Any = reference[spec.time].max()
        what = "the champion knows nothing after"
    else:
        lines = Ledger(home.ledger).history(spec.name)
        served = [line.at for line in lines if line.version == version.version and line.action != "rejected"]
        youngest, what = max(served, default=None), "the champion serves since"
    if youngest is None or as_of - youngest <= duration(policy.after):
        return ""
    return f"{what} {youngest:%Y-%m-%d %H:%M} UTC, {(as_of - youngest).days} days ago (limit {policy.after})"


def _conclude(
    spec: PipelineSpec, version: str, errors: _Errors | None, drift: Sequence[ColumnDrift], predictions: int
) -> tuple[Alarm, str]:
    """The alarm and why, with the numbers that decided, also when nothing is to be done."""
    if predictions == 0:
        return "none", f"champion {version} answered nothing in the windows looked at"
    drifted = [f"{entry.column}: {entry.reason}" for entry in drift if entry.drifted]
    inputs = f"inputs drifted ({_few(drifted)})" if drifted else _quiet(drift)
    if errors is None:
        return ("drift" if drifted else "none"), f"{inputs}; errors are not monitored"
    if not errors.known:
        labels = f"not enough labels to know the error ({errors.pooled.rows} of {errors.monitor.min_rows})"
        return ("drift" if drifted else "none"), f"{inputs}; {labels}"
    text = told(spec.target.metric, errors.pooled, errors.monitor.worse_by)
    if errors.alarm:
        each = ", ".join(f"{ratio.ratio:.2f}" for _, ratio in errors.windows)
        return "performance", f"{text}; worse in {len(errors.windows)} windows in a row ({each}); {inputs}"
    return (
        "none",
        f"{inputs} {'but the error does not' if drifted else 'and the error is as expected'}: {text}" + _once(errors),
    )


def _once(errors: _Errors) -> str:
    """What is said of a bad window that is no alarm yet."""
    policy = errors.monitor
    bad = sum(worse(ratio, policy.worse_by, policy.min_rows) for _, ratio in errors.windows)
    if bad == 0:
        return ""
    return f"; {bad} of the last {policy.windows} windows is worse, an alarm needs all of them with certainty"


def _few(drifted: list[str]) -> str:
    rest = len(drifted) - _NAMED
    return "; ".join(drifted[:_NAMED]) + (f"; {rest} more" if rest > 0 else "")


def _quiet(drift: Sequence[ColumnDrift]) -> str:
    if not drift:
        return "inputs are not monitored"
    return f"no input drifted (the most is {drift[0].column}: {drift[0].reason})"


def _report(
    spec: PipelineSpec,
    as_of: datetime,
    name: str,
    version: ModelVersion | None,
    live: pl.DataFrame,
    *,
    errors: _Errors | None = None,
    drift: tuple[ColumnDrift, ...] = (),
    alarm: Alarm = "none",
    why: str,
) -> MonitorReport:
    found: dict[str, float] = {}
    if errors is not None and errors.pooled.rows:
        pooled = errors.pooled
        found = {"live": pooled.live, "expected": pooled.expected, "ratio": pooled.ratio, "ratio_low": pooled.low}
    return MonitorReport(
        pipeline=spec.name,
        fingerprint=name,
        parent=version.fingerprint if version else None,
        as_of=as_of,
        version=version.version if version else None,
        predictions=live.height,
        labelled=live["target"].count() if live.width else 0,
        labels_outside=int(live["label_outside"].sum()) if live.width else 0,
        drift=drift,
        live=found.get("live"),
        expected=found.get("expected"),
        ratio=found.get("ratio"),
        ratio_low=found.get("ratio_low"),
        windows=tuple(_window(start, ratio, errors.monitor) for start, ratio in errors.windows) if errors else (),
        alarm=alarm,
        why=why,
    )


def _window(start: datetime, ratio: Ratio, policy: Performance) -> dict[str, Any]:
    row: dict[str, Any] = {"start": start.isoformat(), "rows": ratio.rows}
    measured = {"live": ratio.live, "expected": ratio.expected, "ratio": ratio.ratio}
    row |= measured if ratio.rows else dict.fromkeys(measured)
    return row | {"worse": worse(ratio, policy.worse_by, policy.min_rows)}


def _page(
    spec: PipelineSpec, record: MonitorReport, reference: pl.DataFrame, live: pl.DataFrame, path: Path, home: Home
) -> str | None:
    from ferroflow.adapters.report import write_drift_page

    policy: InputDrift = spec.monitor(InputDrift) or InputDrift()
    drifting = [entry.column for entry in record.drift] or [
        name for name in live.columns if name in reference.columns and name not in (*_META, spec.time)
    ]
    page = write_drift_page(
        reference,
        live,
        path,
        columns=["prediction", *drifting],
        categorical=spec.categorical,
        threshold=policy.psi,
        regression=spec.target.task == "regression",
        seed=spec.tuning.seed,
    )
    return None if page is None else home.relative(page)
