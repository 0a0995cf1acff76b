from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ferroflow.adapters.feast.packed import PackedStore
from ferroflow.core.errors import NotFound

FEATURES = ["trips", "speed"]


@pytest.fixture
def store(tmp_path: Path) -> PackedStore:
    return PackedStore(tmp_path / "online.db")


def test_values_come_back_as_they_were_written_and_missing_ones_as_none(store: PackedStore) -> None:
    store.write("zone", FEATURES, [(1, 10, 10, [0.1, None]), (2, 11, 10, [float("nan"), -3e300])])
    assert store.read("zone", [1, 2, 3, 1], FEATURES) == {1: (10, [0.1, None]), 2: (11, [None, -3e300])}


def test_an_older_row_never_replaces_a_newer_one(store: PackedStore) -> None:
    assert store.write("zone", FEATURES, [(1, 20, 5, [2.0, 2.0])]) == 1
    assert store.write("zone", FEATURES, [(1, 10, 99, [1.0, 1.0])]) == 0
    assert store.read("zone", [1], FEATURES) == {1: (20, [2.0, 2.0])}


def test_a_correction_replaces_what_it_corrects_and_not_the_other_way_round(store: PackedStore) -> None:
    store.write("zone", FEATURES, [(1, 20, 5, [2.0, 2.0])])
    store.write("zone", FEATURES, [(1, 20, 6, [3.0, 3.0])])
    store.write("zone", FEATURES, [(1, 20, 5, [2.0, 2.0])])
    assert store.read("zone", [1], FEATURES) == {1: (20, [3.0, 3.0])}


def test_the_order_of_rows_within_a_batch_does_not_matter(store: PackedStore) -> None:
    store.write("zone", FEATURES, [(1, 30, 1, [3.0, 3.0]), (1, 10, 1, [1.0, 1.0]), (1, 20, 1, [2.0, 2.0])])
    assert store.read("zone", [1], FEATURES) == {1: (30, [3.0, 3.0])}


def test_a_number_and_a_text_of_the_same_digits_are_two_entities(store: PackedStore) -> None:
    store.write("zone", ["x"], [(7, 1, 1, [1.0]), ("7", 1, 1, [2.0])])
    assert store.read("zone", [7, "7"], ["x"]) == {7: (1, [1.0]), "7": (1, [2.0])}


def test_a_model_may_ask_for_fewer_features_in_another_order_or_for_one_that_is_not_there(store: PackedStore) -> None:
    store.write("zone", FEATURES, [(1, 1, 1, [1.0, 2.0])])
    assert store.read("zone", [1], ["speed"]) == {1: (1, [2.0])}
    assert store.read("zone", [1], ["speed", "new", "trips"]) == {1: (1, [2.0, None, 1.0])}


def test_rows_written_before_a_feature_was_added_stay_readable(store: PackedStore) -> None:
    store.write("zone", ["trips"], [(1, 1, 1, [1.0]), (2, 1, 1, [5.0])])
    store.write("zone", ["speed", "trips"], [(1, 2, 2, [9.0, 8.0])])
    assert store.read("zone", [1, 2], ["trips", "speed"]) == {1: (2, [8.0, 9.0]), 2: (1, [5.0, None])}


def test_more_keys_than_a_query_takes_are_all_read(store: PackedStore) -> None:
    store.write("zone", ["x"], ((key, 1, 1, [float(key)]) for key in range(2_500)))
    found = store.read("zone", range(2_600), ["x"])
    assert len(found) == 2_500
    assert found[2_499] == (1, [2499.0])


def test_a_failed_batch_leaves_nothing_behind(store: PackedStore) -> None:
    with pytest.raises(Exception, match="expected 2 items"):
        store.write("zone", FEATURES, [(1, 1, 1, [1.0, 1.0]), (2, 1, 1, [1.0])])
    assert store.read("zone", [1, 2], FEATURES) == {}


def test_views_do_not_see_each_other(store: PackedStore) -> None:
    store.write("hour", ["x"], [(1, 1, 1, [1.0])])
    store.write("week", ["x"], [(1, 1, 1, [2.0])])
    store.drop("hour")
    assert store.read("hour", [1], ["x"]) == {}
    assert store.read("week", [1], ["x"]) == {1: (1, [2.0])}


def test_a_watermark_is_only_what_somebody_said_and_never_moves_back(store: PackedStore) -> None:
    store.write("zone", ["x"], [(1, 5, 5, [1.0])])
    assert store.watermark("zone") is None
    store.advance("zone", 9)
    store.advance("zone", 3)
    assert store.watermark("zone") == 9


def test_a_reader_may_start_before_the_first_write(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "online.db"
    reader = PackedStore(path, read_only=True)
    assert reader.read("zone", [1], ["x"]) == {}
    assert reader.watermark("zone") is None
    PackedStore(path).write("zone", ["x"], [(1, 1, 1, [1.0])])
    assert reader.read("zone", [1], ["x"]) == {1: (1, [1.0])}


def test_a_read_only_store_refuses_to_write(store: PackedStore) -> None:
    with pytest.raises(NotFound, match="not open for writing"):
        PackedStore(store.path, read_only=True).write("zone", ["x"], [])


def test_a_reader_sees_whole_batches_only_while_another_writes(tmp_path: Path) -> None:
    path, keys, rounds = tmp_path / "online.db", range(300), 60
    PackedStore(path).write("zone", ["x"], ((key, 0, 0, [0.0]) for key in keys))

    def write() -> None:
        with PackedStore(path) as writer:
            for turn in range(1, rounds):
                writer.write("zone", ["x"], ((key, turn, turn, [float(turn)]) for key in keys))

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
    PackedStore(path).write("zone", ["x"], [(1, 1, 1, [1.0])])
    code = f"""
import os, signal
from pathlib import Path
from ferroflow.adapters.feast.packed import PackedStore
def rows():
    for key in range(100_000):
        if key == 50_000:
            os.kill(os.getpid(), signal.SIGKILL)
        yield key, 2, 2, [2.0]
PackedStore(Path({str(path)!r})).write("zone", ["x"], rows())
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert PackedStore(path).read("zone", [1, 2], ["x"]) == {1: (1, [1.0])}


def test_the_store_loads_no_feature_store_library() -> None:
    heavy = "{'feast', 'pandas', 'polars', 'pyarrow'}"
    code = f"import sys, ferroflow.adapters.feast.packed; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
