"""Judge an evaluation by the pipeline's gates."""

from __future__ import annotations

from ferroflow.core import gates
from ferroflow.core.fingerprint import fingerprint
from ferroflow.core.records import Evaluation, Verdict
from ferroflow.core.spec import PipelineSpec


def judge(spec: PipelineSpec, evaluation: Evaluation) -> Verdict:
    """All gates; the verdict passes when every one does."""
    results = gates.judge(spec.gates, evaluation, spec.target.metric)
    return Verdict(
        pipeline=spec.name,
        fingerprint=fingerprint(evaluation.fingerprint, repr(spec.gates)),
        parent=evaluation.fingerprint,
        passed=all(result.passed for result in results),
        gates=results,
        against=evaluation.champion_version or "",
    )
