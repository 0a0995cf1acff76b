"""Register, promote, roll back: the registry's aliases and the ledger, moved together.

The ledger's line comes first, then the alias. A process killed between the two leaves a line that says more than the
alias; the same command again finds the line and moves the alias.
"""

from __future__ import annotations

import json
import tempfile
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl

from ferroflow.adapters import registry, runs
from ferroflow.adapters.champion import TAG_FINGERPRINT, TAG_PACKAGE, TAG_REFERENCE
from ferroflow.adapters.graph import Graph
from ferroflow.adapters.home import Home
from ferroflow.adapters.ledger import Ledger, before, serving
from ferroflow.adapters.locks import locked
from ferroflow.adapters.modelcard import summary
from ferroflow.adapters.registry import TAG_CANDIDATE, TAG_METRICS, TAG_VERDICT
from ferroflow.core.errors import FerroflowError, NotFound, RegistryError, VersionUnusable
from ferroflow.core.records import Deployment, Evaluation, ModelVersion, Split, TrainedModel, Verdict
from ferroflow.core.spec import PipelineSpec
from ferroflow.stations.package import CONTRACT, GRAPH, write_card

_COMPARED_ROWS = 64


def register(
    spec: PipelineSpec,
    model: TrainedModel,
    evaluation: Evaluation,
    verdict: Verdict,
    split: Split,
    package: Path,
    home: Home,
    *,
    at: datetime,
) -> ModelVersion:
    """Bring a packaged model into the registry as the challenger, once it has been loaded from there.

    The same model again is the same version; a run that was killed half-way is completed.

    Raises:
        RegistryError: the registry refuses, or what it gives back does not answer like the package. No alias moves.
    """
    card = write_card(spec, model, evaluation, _lineage(package), package, home)
    with locked(home.mlflow / f"register-{spec.name}"):
        log = _log(spec, model, evaluation, verdict, split, package, card, home, at)
        run_id = runs.log_run(log, home)
        known = runs.registered_version(spec.name, model.fingerprint, home)
        number = known[0] if known else runs.log_version(log, run_id, package / GRAPH, home)
        version = registry.version(spec.name, number, home)
        _verify_or_set_aside(version, evaluation, home)
        if known:
            runs.update_version(log, number, home)
            version = registry.version(spec.name, number, home)
        if registry.aliases(spec.name, home).get(registry.CHAMPION) != number:
            registry.set_alias(spec.name, registry.CHALLENGER, number, home)
    return version


def promote(spec: PipelineSpec, version: ModelVersion, verdict: Verdict, home: Home, *, at: datetime) -> Deployment:
    """Make a version the champion when its verdict says so; otherwise write down that it was rejected, and why.

    A verdict counts against the champion that it was judged against: when another one serves by now, the version is
    rejected, whatever its gates said.

    Returns:
        The ledger's line: the one by which the version serves, or the one that rejects it.

    Raises:
        VersionUnusable: the version does not load or answers otherwise.
        RegistryError: the registry refuses.
    """
    with locked(home.mlflow / f"promote-{spec.name}"):
        present = registry.aliases(spec.name, home).get(registry.CHAMPION)
        if not verdict.passed:
            return _reject(version, present, home, cause=verdict.fingerprint, at=at, why=verdict.reason)
        if verdict.against is not None and present != version.version and verdict.against != (present or ""):
            why = f"judged against {_named(verdict.against)}, but {_named(present)} serves now: run it again"
            return _reject(version, present, home, cause=f"{verdict.fingerprint} beside {present}", at=at, why=why)
        verify(version, home.absolute(version.reference), home)
        line = _serve(version, verdict, present, home, at)
        _settle(spec.name, home)
    return line


def _serve(version: ModelVersion, verdict: Verdict, present: str | None, home: Home, at: datetime) -> Deployment:
    """The line by which the version serves: a new one, or that of the same command before it was killed."""
    ledger = Ledger(home.ledger)
    lines = ledger.history(version.pipeline)
    now = serving(lines)
    if now is not None and now.version == version.version:
        return now
    # After a rollback the same verdict may promote again.
    back = next((line.entry for line in reversed(lines) if line.action == "rolled back"), None)
    line = ledger.append(
        version.pipeline,
        version.version,
        "promoted",
        model=version.fingerprint,
        previous=present if present != version.version else None,
        cause=verdict.fingerprint if back is None else f"{verdict.fingerprint} after entry {back}",
        at=at,
        why=verdict.reason,
    )
    if now is None or line.entry > now.entry:
        return line
    why = f"its verdict led to entry {line.entry} already, and {_named(now.version)} serves now: run it again"
    return _reject(version, present, home, cause=f"{verdict.fingerprint} used, {now.entry}", at=at, why=why)


def _reject(
    version: ModelVersion, present: str | None, home: Home, *, cause: str, at: datetime, why: str
) -> Deployment:
    return Ledger(home.ledger).append(
        version.pipeline,
        version.version,
        "rejected",
        model=version.fingerprint,
        previous=present if present != version.version else None,
        cause=cause,
        at=at,
        why=why,
    )


def _named(version: str | None) -> str:
    return f"version {version}" if version else "no version"


def rollback(pipeline: str, home: Home, *, at: datetime, why: str) -> Deployment:
    """Serve the version that served before the present one.

    A rollback that was killed before its alias moved is completed instead.

    Raises:
        NotFound: nothing served before.
        RegistryError: that version does not load, or the registry refuses.
    """
    with locked(home.mlflow / f"promote-{pipeline}"):
        ledger = Ledger(home.ledger)
        lines = ledger.history(pipeline)
        present = serving(lines)
        alias = registry.aliases(pipeline, home).get(registry.CHAMPION)
        if present is not None and present.action == "rolled back" and alias != present.version:
            _settle(pipeline, home)
            return present
        target = before(lines)
        if present is None or target is None:
            raise NotFound(
                f"No version of {pipeline!r} served before {present.version if present else 'now: none was promoted'}. "
                f"See: ferroflow models history {pipeline}"
            )
        version = registry.version(pipeline, target.version, home)
        verify(version, home.absolute(version.reference), home)
        line = ledger.append(
            pipeline,
            target.version,
            "rolled back",
            model=target.parent,
            previous=present.version,
            cause=f"after entry {present.entry}",
            at=at,
            why=why,
        )
        _settle(pipeline, home)
    return line


def verify(version: ModelVersion, reference: Path, home: Home) -> None:
    """Load the registered graph back, and see that it answers like the package's on rows of the reference.

    Raises:
        VersionUnusable: it does not load or answers otherwise.
        RegistryError: the registry does not give it back, or the package is not there.
    """
    package = home.absolute(version.package)
    try:
        served, rows = Graph(package / GRAPH), pl.read_parquet(reference, n_rows=_COMPARED_ROWS)
        expected = served.predict(rows)
    except (FerroflowError, OSError, pl.exceptions.PolarsError) as error:
        raise RegistryError(f"Package {version.package} cannot be compared with its version: {error}") from error
    with tempfile.TemporaryDirectory() as temporary:
        registered = runs.download(version.name, version.version, Path(temporary), home)
        try:
            kept = Graph(registered)
            same = served.inputs == kept.inputs and np.array_equal(expected, kept.predict(rows))
        except (FerroflowError, OSError) as error:
            raise VersionUnusable(f"Version {version.version} of {version.name} does not load: {error}") from error
    if not same:
        raise VersionUnusable(
            f"Version {version.version} of {version.name} answers otherwise than its package {version.package} on "
            f"{rows.height} reference rows. Train it again."
        )


def _verify_or_set_aside(version: ModelVersion, evaluation: Evaluation, home: Home) -> None:
    try:
        verify(version, home.absolute(evaluation.reference), home)
    except VersionUnusable as error:  # a registry that is away says nothing about the version
        runs.mark_unusable(version.name, version.version, str(error)[:400], home)
        raise


def _settle(pipeline: str, home: Home) -> None:
    """Point the aliases where the ledger says."""
    line = serving(Ledger(home.ledger).history(pipeline))
    found = registry.aliases(pipeline, home)
    if line is None:
        return
    if found.get(registry.CHAMPION) != line.version:
        registry.set_alias(pipeline, registry.CHAMPION, line.version, home)
    if found.get(registry.CHALLENGER) == line.version:
        registry.drop_alias(pipeline, registry.CHALLENGER, home)


def _log(
    spec: PipelineSpec,
    model: TrainedModel,
    evaluation: Evaluation,
    verdict: Verdict,
    split: Split,
    package: Path,
    card: str,
    home: Home,
    at: datetime,
) -> runs.Log:
    from ferroflow.adapters.plots import evaluation_plot

    metrics = _metrics(evaluation)
    reference = pl.read_parquet(home.absolute(evaluation.reference), columns=["prediction", "target"])
    return runs.Log(
        model=model,
        metrics={**metrics, **_standings(model)},
        params=_params(model),
        tags=_tags(model, evaluation, verdict, package, metrics, home),
        split=split,
        files={
            "plots/evaluation.png": evaluation_plot(spec, model, evaluation, reference),
            "records/evaluation.json": evaluation.model_dump_json(indent=1).encode(),
            "records/verdict.json": verdict.model_dump_json(indent=1).encode(),
            "model_card.md": card.encode(),
        },
        folders={"package": package},
        description=f"{summary(spec, model, evaluation)}\n\n{verdict.reason}",
        at=at,
        trials=_trials(home.absolute(model.path) / "trials.json"),
    )


def _metrics(evaluation: Evaluation) -> dict[str, float]:
    found = dict(runs.flat(evaluation.metrics))
    found.update(runs.flat(evaluation.baseline, "baseline_"))
    found.update(runs.flat(evaluation.champion, "champion_"))
    return found


def _standings(model: TrainedModel) -> dict[str, float]:
    """The leaderboard, as metrics that can be compared between runs."""
    return dict(runs.flat({entry.candidate: entry.metrics for entry in model.leaderboard}, "leaderboard_"))


def _params(model: TrainedModel) -> dict[str, str]:
    best = next((entry.params for entry in model.leaderboard if entry.candidate == model.candidate), {})
    own = {"candidate": model.candidate, "seed": model.seed, "device": model.device, "metric": model.metric}
    return {name: runs.text(value) for name, value in {**best, **own}.items()}


def _tags(
    model: TrainedModel,
    evaluation: Evaluation,
    verdict: Verdict,
    package: Path,
    metrics: dict[str, float],
    home: Home,
) -> dict[str, str]:
    shown = {
        f"{part}_{model.metric}": f"{metrics[name]:.6g}"
        for part in evaluation.metrics
        if (name := f"{part}_{model.metric}") in metrics
    }
    return {
        TAG_FINGERPRINT: model.fingerprint,
        TAG_PACKAGE: home.relative(package),
        TAG_REFERENCE: evaluation.reference,
        TAG_CANDIDATE: model.candidate,
        TAG_METRICS: json.dumps(metrics),
        TAG_VERDICT: verdict.fingerprint,
        "ferroflow.evaluation": evaluation.fingerprint,
        **shown,
    }


def _trials(path: Path) -> list[dict[str, object]]:
    return list(json.loads(path.read_bytes())) if path.is_file() else []


def _lineage(package: Path) -> dict[str, str]:
    return dict(json.loads((package / CONTRACT).read_bytes())["lineage"])
