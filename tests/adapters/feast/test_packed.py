from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from ferroflow.adapters.feast import packed
from ferroflow.adapters.feast.packed import VERSION, OutdatedStore, PackedStore
from ferroflow.adapters.feast.rows import RowLayout, Watermark
from ferroflow.core.errors import DataError, NotFound

FEATURES = ["trips", "speed"]
X = RowLayout((("x", "double"),))
BOTH = RowLayout((("trips", "double"), ("speed", "double")))


@pytest.fixture
def store(tmp_path: Path) -> PackedStore:
    return PackedStore(tmp_path / "online.db")


def test_values_come_back_as_they_were_written_and_missing_ones_as_none(store: PackedStore) -> None:
    store.write("zone", BOTH, [(1, 10, 10, [0.1, None]), (2, 11, 10, [float("nan"), -3e300])])
    assert store.read("zone", [1, 2, 3, 1], FEATURES) == {1: (10, [0.1, None]), 2: (11, [None, -3e300])}


def test_an_older_row_never_replaces_a_newer_one(store: PackedStore) -> None:
    assert store.write("zone", BOTH, [(1, 20, 5, [2.0, 2.0])]) == 1
    assert store.write("zone", BOTH, [(1, 10, 99, [1.0, 1.0])]) == 0
    assert store.read("zone", [1], FEATURES) == {1: (20, [2.0, 2.0])}


def test_a_correction_replaces_what_it_corrects_and_not_the_other_way_round(store: PackedStore) -> None:
    store.write("zone", BOTH, [(1, 20, 5, [2.0, 2.0])])
    store.write("zone", BOTH, [(1, 20, 6, [3.0, 3.0])])
    store.write("zone", BOTH, [(1, 20, 5, [2.0, 2.0])])
    assert store.read("zone", [1], FEATURES) == {1: (20, [3.0, 3.0])}


def test_the_order_of_rows_within_a_batch_does_not_matter(store: PackedStore) -> None:
    store.write("zone", BOTH, [(1, 30, 1, [3.0, 3.0]), (1, 10, 1, [1.0, 1.0]), (1, 20, 1, [2.0, 2.0])])
    assert store.read("zone", [1], FEATURES) == {1: (30, [3.0, 3.0])}


def test_a_number_and_a_text_of_the_same_digits_are_two_entities(store: PackedStore) -> None:
    store.write("zone", X, [(7, 1, 1, [1.0]), ("7", 1, 1, [2.0])])
    assert store.read("zone", [7, "7"], ["x"]) == {7: (1, [1.0]), "7": (1, [2.0])}


def test_a_model_may_ask_for_fewer_features_in_another_order_or_for_one_that_is_not_there(store: PackedStore) -> None:
    store.write("zone", BOTH, [(1, 1, 1, [1.0, 2.0])])
    assert store.read("zone", [1], ["speed"]) == {1: (1, [2.0])}
    assert store.read("zone", [1], ["speed", "new", "trips"]) == {1: (1, [2.0, None, 1.0])}


def test_rows_written_before_a_feature_was_added_stay_readable(store: PackedStore) -> None:
    store.write("zone", RowLayout((("trips", "double"),)), [(1, 1, 1, [1.0]), (2, 1, 1, [5.0])])
    store.write("zone", RowLayout((("speed", "double"), ("trips", "double"))), [(1, 2, 2, [9.0, 8.0])])
    assert store.read("zone", [1, 2], ["trips", "speed"]) == {1: (2, [8.0, 9.0]), 2: (1, [5.0, None])}


def test_more_keys_than_a_query_takes_are_all_read(store: PackedStore) -> None:
    store.write("zone", X, ((key, 1, 1, [float(key)]) for key in range(2_500)))
    found = store.read("zone", range(2_600), ["x"])
    assert len(found) == 2_500
    assert found[2_499] == (1, [2499.0])


def test_a_failed_batch_leaves_nothing_behind(store: PackedStore) -> None:
    with pytest.raises(DataError, match="1 values for 2 features"):
        store.write("zone", BOTH, [(1, 1, 1, [1.0, 1.0]), (2, 1, 1, [1.0])])
    assert store.read("zone", [1, 2], FEATURES) == {}


def test_views_do_not_see_each_other(store: PackedStore) -> None:
    store.write("hour", X, [(1, 1, 1, [1.0])])
    store.write("week", X, [(1, 1, 1, [2.0])])
    store.drop("hour")
    assert store.read("hour", [1], ["x"]) == {}
    assert store.read("week", [1], ["x"]) == {1: (1, [2.0])}


def test_a_watermark_is_only_what_somebody_said_and_never_moves_back(store: PackedStore) -> None:
    store.write("zone", X, [(1, 5, 5, [1.0])])
    assert store.watermark("zone") is None
    store.advance("zone", 9)
    store.advance("zone", 3)
    assert store.watermark("zone") == Watermark(9, None)
    store.advance("zone", 4, 7)
    store.advance("zone", 12, 6)
    store.advance("zone", 11)
    assert store.watermark("zone") == Watermark(12, 7)


def test_a_reader_may_start_before_the_first_write(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "online.db"
    reader = PackedStore(path, read_only=True)
    assert reader.read("zone", [1], ["x"]) == {}
    assert reader.watermark("zone") is None
    PackedStore(path).write("zone", X, [(1, 1, 1, [1.0])])
    assert reader.read("zone", [1], ["x"]) == {1: (1, [1.0])}


def test_a_read_only_store_refuses_to_write(store: PackedStore) -> None:
    with pytest.raises(NotFound, match="not open for writing"):
        PackedStore(store.path, read_only=True).write("zone", X, [])


def version_one(path: Path) -> None:
    """A file as it was before rows had kinds."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE layouts (id INTEGER PRIMARY KEY AUTOINCREMENT, view TEXT, features TEXT)")
        connection.execute("CREATE TABLE entries (view TEXT, key, event, created, layout, packed)")
        connection.execute("CREATE TABLE watermarks (view TEXT PRIMARY KEY, event INTEGER NOT NULL)")
        connection.execute("INSERT INTO layouts VALUES (1, 'zone', '[\"x\"]')")
        connection.execute("INSERT INTO entries VALUES ('zone', 1, 1, 1, 1, ?)", (bytes(8),))
        connection.commit()


def test_a_file_of_another_version_is_refused_by_readers_and_replaced_by_the_next_writer(tmp_path: Path) -> None:
    path = tmp_path / "online.db"
    version_one(path)
    reader = PackedStore(path, read_only=True)
    for _ in range(2):
        with pytest.raises(sqlite3.DatabaseError, match=r"online\.db has layout 0, .* reads 2\. Materialize again"):
            reader.read("zone", [1], ["x"])
        with pytest.raises(OutdatedStore):
            reader.watermark("zone")
    PackedStore(path).write("zone", X, [(2, 1, 1, [2.0])])
    assert reader.read("zone", [1, 2], ["x"]) == {2: (1, [2.0])}
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)


def test_a_reader_that_was_open_when_another_version_replaced_the_tables_unpacks_by_their_layouts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = tmp_path / "online.db", RowLayout((("y", "double"), ("x", "double")))
    with PackedStore(path) as store:
        store.write("zone", X, [(1, 1, 1, [1.0])])
    with PackedStore(path, read_only=True) as reader:
        assert reader.read("zone", [1], ["x"]) == {1: (1, [1.0])}
        for changed in (VERSION + 1, VERSION):
            monkeypatch.setattr(packed, "VERSION", changed)
            with PackedStore(path) as store:
                store.write("zone", other, [(1, 2, 2, [5.0, 6.0])])
            monkeypatch.setattr(packed, "VERSION", VERSION)
            if changed != VERSION:
                with pytest.raises(OutdatedStore, match="Materialize again"):
                    reader.read("zone", [1], ["x"])
        assert reader.read("zone", [1], ["x"]) == {1: (2, [6.0])}


def test_a_layout_that_went_between_two_looks_is_told(store: PackedStore) -> None:
    store.write("zone", X, [(1, 1, 1, [1.0])])
    with closing(sqlite3.connect(store.path)) as connection:
        connection.execute("DELETE FROM layouts")
        connection.commit()
    with pytest.raises(OutdatedStore, match="was replaced while it was read"):
        store.read("zone", [1], ["x"])


def test_many_processes_that_open_one_new_file_at_once_all_write(tmp_path: Path) -> None:
    path = tmp_path / "online.db"
    version_one(path)
    code = """
import sys
from pathlib import Path
from ferroflow.adapters.feast.packed import PackedStore
from ferroflow.adapters.feast.rows import RowLayout
number = int(sys.argv[2])
sys.stdin.readline()
PackedStore(Path(sys.argv[1])).write("zone", RowLayout((("x", "double"),)), [(number, 1, 1, [float(number)])])
"""
    command = [sys.executable, "-c", code, str(path)]
    writers = [subprocess.Popen([*command, str(i)], stdin=subprocess.PIPE, text=True) for i in range(4)]
    for writer in writers:
        assert writer.stdin
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    assert PackedStore(path).read("zone", range(4), ["x"]) == {i: (1, [float(i)]) for i in range(4)}


def test_rows_that_are_packed_already_are_guarded_as_others_and_progress_is_told(store: PackedStore) -> None:
    seen: list[int] = []
    blobs = [X.pack([float(i)]) for i in range(15_000)]
    assert store.write("zone", X, [(7, 9, 9, [99.0]), (8, 1, 2, [88.0]), (9, 1, 1, [77.0])]) == 3
    keys, times = list(range(15_000)), [1] * 15_000
    assert store.write_packed("zone", X, keys, times, times, blobs, seen.append) == 14_998
    assert sum(seen) == 15_000
    assert store.read("zone", [7, 8, 9, 14_999], ["x"]) == {
        7: (9, [99.0]), 8: (1, [88.0]), 9: (1, [9.0]), 14_999: (1, [14_999.0])
    }  # fmt: skip
    with pytest.raises(ValueError, match="zip"):
        store.write_packed("zone", X, [1, 2], [5, 5], [5, 5], [X.pack([1.0])])
    assert store.read("zone", [1], ["x"]) == {1: (1, [1.0])}


def test_a_row_may_be_had_as_it_is_stored_with_its_layout(store: PackedStore) -> None:
    layout = RowLayout((("name", "text"), ("seen", "time"), ("raw", "bytes")))
    store.write("zone", layout, [(b"key", 3, 3, ["ü", 1_700_000_000, None])])
    ((key, (event, found, blob)),) = store.read_rows("zone", [b"key", b"other"]).items()
    assert (key, event, found, found.unpack(blob)) == (b"key", 3, layout, ("ü", 1_700_000_000, None))


def test_a_reader_sees_whole_batches_only_while_another_writes(tmp_path: Path) -> None:
    path, keys, rounds = tmp_path / "online.db", range(300), 60
    PackedStore(path).write("zone", X, ((key, 0, 0, [0.0]) for key in keys))

    def write() -> None:
        with PackedStore(path) as writer:
            for turn in range(1, rounds):
                writer.write("zone", X, ((key, turn, turn, [float(turn)]) for key in keys))

    thread = threading.Thread(target=write)
    seen: list[float] = []
    with PackedStore(path, read_only=True) as reader:
        thread.start()
        while thread.is_alive() or not seen:
            values = {values[0] for _, values in reader.read("zone", keys, ["x"]).values()}
            assert len(values) == 1
            seen.append(values.pop() or 0.0)
        thread.join()
        assert reader.read("zone", [0], ["x"]) == {0: (rounds - 1, [float(rounds - 1)])}
    assert seen == sorted(seen)


def test_a_writer_that_is_killed_leaves_a_readable_store(tmp_path: Path) -> None:
    path = tmp_path / "online.db"
    PackedStore(path).write("zone", X, [(1, 1, 1, [1.0])])
    code = f"""
import os, signal
from pathlib import Path
from ferroflow.adapters.feast.packed import PackedStore
from ferroflow.adapters.feast.rows import RowLayout
def rows():
    for key in range(100_000):
        if key == 50_000:
            os.kill(os.getpid(), signal.SIGKILL)
        yield key, 2, 2, [2.0]
PackedStore(Path({str(path)!r})).write("zone", RowLayout((("x", "double"),)), rows())
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert PackedStore(path).read("zone", [1, 2], ["x"]) == {1: (1, [1.0])}


def test_the_store_loads_no_feature_store_library() -> None:
    heavy = "{'feast', 'pandas', 'polars', 'pyarrow'}"
    code = f"import sys, ferroflow.adapters.feast.packed; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
