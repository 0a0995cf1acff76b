"""Station 2: ``Snapshot`` → ``Validated``: accepted rows go on, every other one is in quarantine with its reasons."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from ferroflow.adapters import corrections
from ferroflow.adapters.home import Home
from ferroflow.adapters.storage import read_record, write_record
from ferroflow.core.errors import RowsLost, UnreadableFile
from ferroflow.core.fingerprint import fingerprint
from ferroflow.core.records import Snapshot, Validated
from ferroflow.core.spec import PipelineSpec
from ferroflow.core.validation import changed_types
from ferroflow.stations.checked import CheckedPart, Checking, checked_part
from ferroflow.stations.judges import sources
from ferroflow.stations.references import reference_is_whole
from ferroflow.stations.repeated import without_repeated
from ferroflow.stations.superseded import without_superseded

_RULES = 4  # raised when the same rows are to be judged differently


def validate(spec: PipelineSpec, snapshot: Snapshot, home: Home) -> Validated:
    """Check every part against the schema; parts that were checked by the same rules before are not checked again.

    The snapshot's corrections are laid over the raw rows first. Of rows with one key (``Source.key``) the last of all
    parts is accepted; then rows of different parts that share a value which the schema calls unique are all refused.

    Raises:
        SchemaError: a column is missing, or a whole column has the wrong type, or the evolution policy stops.
        SpecError: ``derive`` drops or multiplies rows, or cleaning or the key contradict the columns.
        UnreadableFile: a raw part or a reference is missing or damaged.
        DataError: the snapshot's corrections are missing or damaged.
        RowsLost: rows in are not rows accepted plus rows quarantined.
    """
    for reference in snapshot.references.values():
        if not reference_is_whole(home.absolute(reference)):
            raise UnreadableFile(f"{home.absolute(reference)} is missing or damaged. Ingest again: it is made anew.")
    changes = corrections.changes(home, spec.name, snapshot.corrections)
    checking = Checking(spec, snapshot, home, _rules(spec, snapshot), changes)
    checked = without_superseded(checking, [checked_part(checking, part) for part in snapshot.parts])
    checked = without_repeated(checking, checked)
    name = fingerprint(snapshot.fingerprint, [entry.fingerprint for entry in checked])
    path = home.data(spec.name) / "validated" / f"{name}.json"
    validated = _merged(checking, name, checked)
    known = read_record(path, Validated)
    if known is None or known.model_copy(update={"as_of": snapshot.as_of}) != validated:
        write_record(path, validated)
    else:
        path.touch()  # the last verdicts on a snapshot are those that were met last
    return validated


def _merged(checking: Checking, name: str, checked: list[CheckedPart]) -> Validated:
    snapshot, home = checking.snapshot, checking.home
    folders = [home.relative(checking.folder(entry.fingerprint)) for entry in checked]
    validated = Validated(
        pipeline=checking.spec.name,
        fingerprint=name,
        parent=snapshot.fingerprint,
        as_of=snapshot.as_of,
        accepted=tuple(f"{folder}/accepted.parquet" for folder in folders),
        quarantined=tuple(f"{folder}/quarantined.parquet" for folder in folders),
        rows_in=snapshot.rows,
        rows_accepted=sum(entry.rows_accepted for entry in checked),
        rows_quarantined=sum(entry.rows_quarantined for entry in checked),
        reasons=_total(entry.reasons for entry in checked),
        casts=changed_types([part.columns for part in snapshot.parts], checking.spec.schema),
        warnings=_total(entry.warnings for entry in checked),
        cleaned=_total(entry.cleaned for entry in checked),
    )
    if validated.rows_in != validated.rows_accepted + validated.rows_quarantined:
        raise RowsLost(
            f"snapshot {snapshot.fingerprint}: {validated.rows_in} rows came in, {validated.rows_accepted} were "
            f"accepted and {validated.rows_quarantined} quarantined. Remove the pipeline's validated/ folder and run "
            f"again; if it stays so, this is a bug of ours."
        )
    return validated


def _total(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for entry in counts:
        total.update(entry)
    return dict(total.most_common())


def _rules(spec: PipelineSpec, snapshot: Snapshot) -> str:
    """What the verdict on a row depends on beside the row: schema, derive (the text of all their files), references,
    cleaning.
    """
    labelled = any(part.label for part in snapshot.parts)
    # The text of a schema may hold addresses of functions: those change with every process.
    schema = re.sub(r" at 0x[0-9a-f]+", "", str(spec.schema.to_schema()))
    declared = [repr(spec.cleaning), repr(spec.source.evolution), spec.personal, spec.source.null_values]
    return fingerprint(_RULES, schema, sources(spec), snapshot.references, labelled, declared)
