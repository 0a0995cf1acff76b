from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from pydantic import BaseModel

from ferroflow.adapters.home import Home
from ferroflow.adapters.storage import write_record
from ferroflow.core.errors import NotFound, RegistryError
from ferroflow.core.records import ModelVersion, Snapshot, Validated
from ferroflow.stations import retention, versions
from ferroflow.stations.ingest import ingest
from ferroflow.stations.validate import validate
from tests.parcels import AS_OF, HEADER, NOW, a_mirror, parcels, settings_for
from tests.toy_model import registered

LATER = NOW + timedelta(days=400)


def rows(start: int, count: int, kilos: float = 1.0) -> str:
    return "".join(
        f"{n},2024-01-{1 + n % 28:02},{1 + n % 2},{kilos + n % 7},{1 + n % 9}\n" for n in range(start, start + count)
    )


def taken(home: Home, mirror: Path, text: str, day: int) -> tuple[Snapshot, Validated]:
    """A snapshot of a file with this text, made so many days after the first one."""
    a_mirror(mirror, parcels=text)
    made = NOW + timedelta(days=day)
    snapshot = ingest(parcels(), AS_OF, home, now=made, settings=settings_for(home, mirror=str(mirror)))
    checked = validate(parcels(), snapshot, home)
    for path in home.data("parcels").rglob("*"):
        if path.is_file() and path.stat().st_mtime > made.timestamp():
            os.utime(path, (made.timestamp(), made.timestamp()))
    return snapshot, checked


@pytest.fixture
def three(home: Home, tmp_path: Path) -> list[tuple[Snapshot, Validated]]:
    """Three snapshots, a day apart: the second has more rows and a refused one, the third other weights."""
    dirty = rows(0, 60) + "99,2024-01-03,1,heavy,3\n"
    texts = [rows(0, 40), dirty, rows(0, 60, kilos=50.0)]
    return [taken(home, tmp_path / f"mirror-{day}", HEADER + text, day) for day, text in enumerate(texts)]


def needs(version: ModelVersion, home: Home, snapshot: Snapshot, checked: Validated) -> None:
    """Let the version's package say that it was made of these."""
    path = home.absolute(version.package) / "serving.json"
    contract = json.loads(path.read_bytes())
    contract["lineage"] |= {"snapshot": snapshot.fingerprint, "validated": checked.fingerprint}
    path.write_text(json.dumps(contract))


def test_history_and_parents_are_in_the_order_they_were_made(
    home: Home, three: list[tuple[Snapshot, Validated]]
) -> None:
    names = [snapshot.fingerprint for snapshot, _ in three]
    assert [kept.snapshot.fingerprint for kept in versions.history("parcels", home)] == names
    assert [snapshot.parent for snapshot, _ in three] == [None, *names[:2]]
    assert versions.find("parcels", "latest", home).fingerprint == names[-1]


def test_difference_names_files_refusals_and_the_column_that_moved(
    home: Home, three: list[tuple[Snapshot, Validated]]
) -> None:
    found = versions.difference(three[1][0], three[2][0], home)
    assert found.rows == (61, 60)
    assert (found.files, found.schema) == (("- parcels.csv", "+ parcels.csv"), ())
    assert found.reasons == {"kilos: not a Float64": (1, 0)}
    assert found.columns[0].column == "kilos"
    assert found.columns[0].drifted
    assert not any(column.drifted for column in found.columns[1:])


def test_difference_tells_added_missing_and_retyped_columns(home: Home, tmp_path: Path) -> None:
    from tests.parcels import simulate

    frames = [simulate("a", 1), simulate("a", 1).with_columns(pl.col("city").cast(pl.Int32), tip=pl.lit(1.5))]
    snapshots = []
    for day, frame in enumerate(frames):
        landing = home.landing("parcels")
        landing.mkdir(parents=True, exist_ok=True)
        frame.write_parquet(landing / "a.parquet")
        snapshots.append(taken(home, tmp_path / "mirror", HEADER + rows(100, 5), day)[0])
    found = versions.difference(*snapshots, home)
    assert found.schema == ("+ tip (Float64)", "~ city: Int64 and String -> Int32 and String")


def test_time_travel_finds_what_was_newest_then(home: Home, three: list[tuple[Snapshot, Validated]]) -> None:
    noon = timedelta(hours=12)
    for day, (snapshot, _) in enumerate(three):
        assert versions.current("parcels", NOW + timedelta(days=day) + noon, home) == snapshot
    with pytest.raises(NotFound, match="had no snapshot at 2024-04-30"):
        versions.current("parcels", NOW - noon, home)


def test_a_flipped_byte_is_found_in_any_file(home: Home, three: list[tuple[Snapshot, Validated]]) -> None:
    read, damaged = versions.verify("parcels", home)
    # Of each: a raw part, accepted and quarantined rows, four records; and a reference with its record.
    assert (read, damaged) == (23, [])
    first, last = three[0][0], three[2][1]
    for name in [first.parts[0].path, first.references["cities"], last.accepted[0]]:
        path = home.absolute(name)
        good = path.read_bytes()
        path.write_bytes(good[:60] + bytes([good[60] ^ 1]) + good[61:])
        assert [one.path for one in versions.verify("parcels", home)[1]] == [home.relative(path)]
        path.write_bytes(good)
    home.absolute(three[1][1].quarantined[0]).unlink()
    (gone,) = versions.verify("parcels", home)[1]
    assert gone.problem == "is missing"


@pytest.mark.parametrize("name", ["snapshots/*", "parts/*", "references/*", "validated/*", "validated/*/manifest"])
@pytest.mark.parametrize("harm", [b"", b"\xff\x00", b"{}", b"[1]"])
def test_damaged_record_is_named_and_ends_nothing(
    home: Home, three: list[tuple[Snapshot, Validated]], name: str, harm: bytes
) -> None:
    path = next(home.data("parcels").glob(f"{name}.json"))
    path.write_bytes(harm)
    told = {one.path: one.problem for one in versions.verify("parcels", home)[1]}
    assert told[home.relative(path)].startswith("is no record that was written here")


def test_files_that_have_no_seal_are_no_damage(home: Home, three: list[tuple[Snapshot, Validated]]) -> None:
    for name in ("studies/s/mlp-0/config.json", "batch/b.json", "models/m/trials.json"):
        path = home.data("parcels") / name
        path.parent.mkdir(parents=True)
        path.write_text("{}")
    assert versions.verify("parcels", home) == (23, [])


def test_snapshot_that_is_met_again_is_the_current_one_from_then_on(home: Home, tmp_path: Path) -> None:
    first, _ = taken(home, tmp_path / "a", HEADER + rows(0, 4), 0)
    second, _ = taken(home, tmp_path / "b", HEADER + rows(0, 5), 1)
    assert taken(home, tmp_path / "a", HEADER + rows(0, 4), 2)[0].fingerprint == first.fingerprint
    days = {0.5: first, 1.5: second, 2.5: first}
    found = {day: versions.current("parcels", NOW + timedelta(days=day), home).fingerprint for day in days}
    assert found == {day: snapshot.fingerprint for day, snapshot in days.items()}


def test_prune_keeps_why_an_unreadable_file_is_none_and_that_its_bytes_expired(home: Home, tmp_path: Path) -> None:
    landing = home.landing("parcels")
    landing.mkdir(parents=True)
    for name in ("bad", "worse"):
        (landing / f"{name}.parquet").write_bytes(f"PAR1 {name} PAR1".encode())
    snapshot, _ = taken(home, tmp_path / "mirror", HEADER + rows(0, 4), 0)
    gone = home.absolute(snapshot.unreadable[0].path)
    gone.with_name(f"{gone.name}.expired").touch()
    gone.unlink()
    files = sorted((home.data("parcels") / "unreadable").iterdir())
    for path in files:
        os.utime(path, (NOW.timestamp(), NOW.timestamp()))
    retention.prune("parcels", home, keep=1, older_than=None, now=LATER, dry_run=False)
    assert sorted((home.data("parcels") / "unreadable").iterdir()) == files
    assert len(files) == 4


def test_prune_keeps_what_a_registered_model_was_made_of(home: Home, three: list[tuple[Snapshot, Validated]]) -> None:
    _, version = registered(home, 1, name="parcels")
    needs(version, home, *three[0])
    plan = retention.prune("parcels", home, keep=1, older_than=None, now=LATER, dry_run=True)
    assert versions.verify("parcels", home)[0] == 26  # three records of the model's
    done = retention.prune("parcels", home, keep=1, older_than=None, now=LATER, dry_run=False)
    assert done == plan
    assert done.removed == (three[1][0].fingerprint,)
    assert done.kept == {
        three[0][0].fingerprint: "version 1 was trained on it",
        three[2][0].fingerprint: "one of the 1 newest",
    }
    assert versions.verify("parcels", home) == (19, [])
    assert versions.accepted(three[0][1], home).collect().height == 40
    assert [kept.snapshot for kept in versions.history("parcels", home)] == [three[0][0], three[2][0]]
    again = retention.prune("parcels", home, keep=1, older_than=None, now=LATER, dry_run=False)
    assert (again.removed, again.files) == ((), 0)


def test_prune_keeps_the_accepted_rows_that_the_offline_store_can_be_computed_from_again(
    home: Home, three: list[tuple[Snapshot, Validated]]
) -> None:
    class Latest(BaseModel):
        as_of: datetime
        validated: Validated

    path = home.offline("parcels") / "latest.json"
    write_record(path, Latest(as_of=NOW, validated=three[0][1]))
    done = retention.prune("parcels", home, keep=1, older_than=None, now=LATER, dry_run=False)
    assert done.removed == (three[0][0].fingerprint, three[1][0].fingerprint)
    assert versions.accepted(three[0][1], home).collect().height == 40
    assert versions.verify("parcels", home)[1] == []
    path.unlink()
    retention.prune("parcels", home, keep=1, older_than=None, now=LATER, dry_run=False)
    assert not home.absolute(three[0][1].accepted[0]).exists()


def test_prune_leaves_young_snapshots_and_files_of_a_run_under_way(
    home: Home, three: list[tuple[Snapshot, Validated]]
) -> None:
    fresh = home.data("parcels") / "parts" / "0123456789abcdef.parquet"
    fresh.write_bytes(b"half a part")
    now = datetime.now(UTC)
    day = timedelta(days=(now - NOW).days)
    done = retention.prune("parcels", home, keep=1, older_than=day, now=now, dry_run=False)
    assert done.removed == (three[0][0].fingerprint,)
    assert fresh.exists()


def test_prune_stops_when_it_cannot_tell_what_a_model_needs(
    home: Home, three: list[tuple[Snapshot, Validated]]
) -> None:
    _, version = registered(home, 1, name="parcels")
    (home.absolute(version.package) / "serving.json").write_text("{}")
    with pytest.raises(RegistryError, match=r"version 1 of 'parcels'.*cannot be told"):
        retention.prune("parcels", home, keep=1, older_than=None, now=LATER, dry_run=False)
    assert len(versions.history("parcels", home)) == 3


def test_pruned_snapshot_is_made_again_from_its_source(
    home: Home, tmp_path: Path, three: list[tuple[Snapshot, Validated]]
) -> None:
    retention.prune("parcels", home, keep=1, older_than=None, now=LATER, dry_run=False)
    snapshot, checked = taken(home, tmp_path / "mirror-0", HEADER + rows(0, 40), 3)
    assert snapshot.fingerprint == three[0][0].fingerprint
    assert checked.rows_accepted == 40
