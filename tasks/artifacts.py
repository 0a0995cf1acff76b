"""What a run shows in Prefect's pages: tables, and the ways to MLflow and to reports, made from records."""

from __future__ import annotations

from typing import Any, Literal

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from ferroflow.adapters import processes
from ferroflow.adapters import profile_charts as charts
from ferroflow.adapters.home import Home
from ferroflow.adapters.settings import load_settings
from ferroflow.adapters.storage import read_record
from ferroflow.core.profile import ColumnProfile, Profile
from ferroflow.core.records import (
    Evaluation,
    ModelVersion,
    MonitorReport,
    Quality,
    SkewReport,
    TrainedModel,
    Validated,
    Verdict,
)
from ferroflow.core.skew import sentence


def quarantine(validated: Validated) -> None:
    """Rows in = accepted + quarantined, and the reasons."""
    accepted, quarantined = validated.rows_accepted, validated.rows_quarantined
    said = f"{validated.rows_in:,} rows = {accepted:,} accepted + {quarantined:,} quarantined"
    reasons = sorted(validated.reasons.items(), key=lambda entry: -entry[1])
    table = [{"reason": reason, "rows": rows} for reason, rows in reasons] or [{"reason": "none", "rows": 0}]
    create_table_artifact(table, key=_key(validated.pipeline, "quarantine"), description=said)


def assessed(quality: Quality, home: Home) -> None:
    """The score with its parts and the way to the page, each rule's word, and the columns' profile."""
    path, key = home.absolute(quality.page), quality.pipeline
    lines = [f"## {'Good enough' if quality.passed else 'Refused'}: {quality.score:.3f} of 1", "", quality.reason, ""]
    lines += ["| part | |", "|---|---|", *(f"| {name} | {value:.3f} |" for name, value in quality.parts.items())]
    lines += ["", *(f"- {told}" for told in quality.anomalies)]
    lines += ["", f"[Page with distributions]({_address('service', home)}/reports/{key}/{path.name}) (`{path}`)"]
    create_markdown_artifact("\n".join(lines), key=_key(key, "quality"), description=quality.reason)
    rules = [
        {"rule": rule.rule, "severity": rule.severity, "holds": rule.passed, "value": rule.value, "why": rule.reason}
        for rule in quality.rules
    ]
    create_table_artifact(rules, key=_key(key, "rules"), description="Rules about all rows")
    profile = read_record(home.absolute(quality.profile), Profile)
    if profile is not None and profile.columns:
        table = [_profiled(column) for column in profile.columns]
        create_table_artifact(table, key=_key(key, "profile"), description=f"Columns of {profile.rows:,} accepted rows")


def _profiled(column: ColumnProfile) -> dict[str, Any]:
    low, high = (charts.number(value, column.kind) for value in (column.low, column.high))
    return {
        "column": column.name,
        "type": column.dtype,
        "missing": round(column.missing_share, 4),
        "distinct": column.distinct,
        "low": low,
        "high": high,
        "mean": charts.number(column.mean, column.kind),
        "most frequent": next(iter(column.top), "–"),
        "PSI": column.shift,
    }


def leaderboard(model: TrainedModel) -> None:
    """All candidates by their error on the validation rows."""
    table = [
        {"candidate": line.candidate, **_rounded(line.metrics | {"seconds": line.seconds}), "trials": line.trials}
        for line in model.leaderboard
    ]
    said = f"Errors on the validation rows. Best by {model.metric}: **{model.candidate}**"
    create_table_artifact(table, key=_key(model.pipeline, "leaderboard"), description=said)


def judgement(verdict: Verdict, evaluation: Evaluation) -> None:
    """Each gate's word with its numbers, and the errors on validation and test rows."""
    lines = [f"## {'Passed' if verdict.passed else 'Rejected'}", "", "| gate | passed | reason |", "|---|---|---|"]
    lines += [f"| {gate.gate} | {'yes' if gate.passed else '**no**'} | {gate.reason} |" for gate in verdict.gates]
    lines += ["", "| rows | model | " + " | ".join(next(iter(evaluation.metrics.values()), {})) + " |"]
    lines += ["|---" * (2 + len(next(iter(evaluation.metrics.values()), {}))) + "|"]
    models = {"candidate": evaluation.metrics, "baseline": evaluation.baseline, "champion": evaluation.champion}
    for name, measured in models.items():
        for rows, metrics in measured.items():
            lines.append(f"| {rows} | {name} | " + " | ".join(f"{value:.4f}" for value in metrics.values()) + " |")
    create_markdown_artifact("\n".join(lines), key=_key(verdict.pipeline, "verdict"), description=verdict.reason)


def registered(version: ModelVersion, home: Home) -> None:
    """The way to the MLflow run."""
    address = _address("mlflow", home)
    said = f"{version.name}, version {version.version}: {version.candidate}"
    lines = [
        f"- [MLflow run {version.run_id}]({address}/#/runs/{version.run_id})",
        f"- [Registered version]({address}/#/models/{version.name}/versions/{version.version})",
        "",
        "`ferroflow up` starts what these links lead to.",
    ]
    create_markdown_artifact("\n".join(lines), key=_key(version.pipeline, "mlflow"), description=said)


def monitored(report: MonitorReport, home: Home) -> None:
    """What was found, the columns that were looked at, and the way to the Evidently report."""
    lines = [f"## {report.alarm if report.alarm != 'none' else 'No alarm'}", "", report.why, ""]
    lines.append(f"{report.predictions:,} predictions of version {report.version}, {report.labelled:,} with labels.")
    if report.html is not None:
        path = home.absolute(report.html)
        # By the service: browsers refuse a link to a file.
        page = f"{_address('service', home)}/reports/{report.pipeline}/{path.name}"
        lines += ["", f"[Evidently report]({page}) (`{path}`)"]
    create_markdown_artifact("\n".join(lines), key=_key(report.pipeline, "monitor"), description=report.why)
    table = [
        {"column": line.column, "psi": round(line.psi, 3), "p": line.p, "drifted": line.drifted, "why": line.reason}
        for line in report.drift
    ]
    if table:
        create_table_artifact(table, key=_key(report.pipeline, "drift"), description="Drift of each input")


def skewed(report: SkewReport) -> None:
    """How many values of each model input differ from a recomputation, and some that do."""
    counts = [
        {
            "feature": line.feature,
            "compared": line.compared,
            "mismatched": line.mismatched,
            "corrected since": line.corrected,
            "asked too late": line.late,
            "without a store": line.degraded,
        }
        for line in report.features
    ]
    nothing = [{"feature": "none", "compared": 0}]
    create_table_artifact(counts or nothing, key=_key(report.pipeline, "skew"), description=sentence(report))
    examples = [
        {"feature": line.feature, "why": why, **example.model_dump()}
        for line in report.features
        for why, shown in (("mismatch", line.examples), ("corrected since", line.corrections))
        for example in shown
    ]
    if examples:
        key = _key(report.pipeline, "skew-examples")
        create_table_artifact(examples, key=key, description="Logged values that differ")


def stations(pipeline: str, seconds: dict[str, float], reused: tuple[str, ...]) -> None:
    """How long each station took, and which had nothing to do."""
    table: list[dict[str, Any]] = [
        {"station": name, "seconds": round(spent, 2), "reused": name in reused} for name, spent in seconds.items()
    ]
    create_table_artifact(table, key=_key(pipeline, "stations"), description="Seconds of each station")


def _address(server: Literal["mlflow", "service"], home: Home) -> str:
    """Where a server of ours answers, or would once it is up."""
    settings = load_settings()
    port = settings.mlflow_port if server == "mlflow" else settings.service_port
    return processes.addresses(home).get(server) or f"http://127.0.0.1:{port}"


def _key(pipeline: str, kind: str) -> str:
    return f"{pipeline.replace('_', '-')}-{kind}"


def _rounded(metrics: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in metrics.items()}
