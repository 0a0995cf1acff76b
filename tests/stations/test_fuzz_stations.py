"""Mutated files in the landing folder, through ingest and validate: nothing is lost, nothing ends the run."""

from __future__ import annotations

import gzip
import io
import json
from hashlib import sha256
from pathlib import Path

import polars as pl
import pytest

from ferroflow.adapters.home import Home
from ferroflow.core.records import Snapshot
from ferroflow.core.spec import Evolution, PipelineSpec
from ferroflow.stations.ingest import ingest
from ferroflow.stations.validate import validate
from tests.mutations import mutated
from tests.parcels import AS_OF, GOOD, HEADER, NOW, a_mirror, parcels, settings_for

TEXT = HEADER + GOOD + "".join(f'{row},2024-01-03 10:00,{row % 3},"{row / 3}",{row % 40}\n' for row in range(3, 40))


def parcel_files() -> dict[str, list[bytes]]:
    """The same parcels by ending: what is mutated."""
    rows = pl.read_csv(TEXT.encode(), infer_schema=False)
    typed = pl.read_csv(TEXT.encode())
    lines = [json.dumps(row) + "\n" for row in typed.to_dicts()]
    parquet, texts, arrow = io.BytesIO(), io.BytesIO(), io.BytesIO()
    typed.write_parquet(parquet)
    rows.write_parquet(texts, compression="uncompressed")
    typed.write_ipc(arrow)
    return {
        "csv": [TEXT.encode(), TEXT.replace("\n", "\r\n").encode()],
        "ndjson": ["".join(lines).encode()],
        "parquet": [parquet.getvalue(), texts.getvalue()],
        "arrow": [arrow.getvalue()],
        "csv.gz": [gzip.compress(TEXT.encode(), mtime=0)],
    }


def landed(spec: PipelineSpec, home: Home, first: int, count: int) -> dict[str, bytes]:
    """Put mutated files into the landing folder: sha256 → bytes of each that differs."""
    folder = home.landing(spec.name)
    folder.mkdir(parents=True, exist_ok=True)
    files = parcel_files()
    endings = ["csv", "csv", "ndjson", "ndjson", "parquet", "arrow", "csv.gz"]
    found = {}
    for seed in range(first, first + count):
        ending = endings[seed % len(endings)]
        data = mutated(files[ending], seed)
        (folder / f"{seed:04}.{ending}").write_bytes(data)
        found[sha256(data).hexdigest()] = data
    return found


def accounted(snapshot: Snapshot, files: dict[str, bytes], home: Home) -> None:
    """Every file is a part, or lies in quarantine with its bytes and the reason."""
    whole = {part.sha256 for part in snapshot.parts}
    broken = {file.sha256: file for file in snapshot.unreadable}
    assert not whole & broken.keys()
    assert files.keys() <= whole | broken.keys()
    for digest, file in broken.items():
        assert home.absolute(file.path).read_bytes() == files[digest]
        assert (file.size, file.file in file.reason) == (len(files[digest]), True)


@pytest.mark.parametrize("first", [0, 100, 200])
def test_every_mutated_file_is_a_part_or_kept_whole_and_every_row_has_a_verdict(
    home: Home, tmp_path: Path, first: int
) -> None:
    # Nearly all files hold the same ids: the last row of each is accepted.
    spec = parcels(evolution=Evolution(missing="quarantine"), key=("id",))
    files = landed(spec, home, first, 100)
    settings = settings_for(home, mirror=str(a_mirror(tmp_path / "mirror")))
    snapshot = ingest(spec, AS_OF, home, now=NOW, settings=settings)
    accounted(snapshot, files, home)
    validated = validate(spec, snapshot, home)
    raw = [
        f"{part.fingerprint}:{row}"
        for part in snapshot.parts
        for row in pl.read_parquet(home.absolute(part.path), columns=["_row"])["_row"]
    ]
    accepted, quarantined = (
        pl.concat([pl.read_parquet(home.absolute(path)) for path in paths])
        for paths in (validated.accepted, validated.quarantined)
    )
    assert sorted([*accepted["row_id"], *quarantined["row_id"]]) == sorted(raw)
    assert validated.rows_in == len(raw) == snapshot.rows
    assert quarantined["reasons"].list.len().min() >= 1
    assert accepted.height and snapshot.unreadable
    again = ingest(spec, AS_OF, home, now=NOW, settings=settings)
    assert again == snapshot
