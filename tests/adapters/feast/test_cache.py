"""The cache in front of online rows: by time, by use and by watermark."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ferroflow.adapters.feast.cache import CachedRows
from ferroflow.adapters.feast.plan import Entry, Key, OnlineStoreAway
from ferroflow.adapters.feast.rows import Watermark
from ferroflow.core.errors import SpecError

W1, W2 = Watermark(1, None), Watermark(2, 5)


class Table:
    """Rows in memory, with a count of what was asked."""

    def __init__(self, rows: dict[Key, Entry]) -> None:
        self.rows, self.mark, self.away, self.closed = rows, W1, False, False
        self.asked: list[list[Key]] = []
        self.watched = 0

    def read(self, view: str, keys: Sequence[Key], features: Sequence[str]) -> Mapping[Key, Entry]:
        if self.away:
            raise OnlineStoreAway("away")
        self.asked.append(list(keys))
        return {key: self.rows[key] for key in keys if key in self.rows}

    def watermark(self, view: str) -> Watermark | None:
        self.watched += 1
        return self.mark

    def close(self) -> None:
        self.closed = True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def cached(table: Table, ttl: float = 10, capacity: int = 100, check: float = 1.0) -> tuple[CachedRows, Clock]:
    clock = Clock()
    return CachedRows(table, ttl, capacity, check, clock), clock


def test_what_was_read_once_is_not_asked_again_and_absence_neither() -> None:
    table = Table({1: (7, [1.0])})
    rows, _ = cached(table)
    assert rows.read("v", [1, 2, 1], ["a"]) == {1: (7, [1.0])}
    assert rows.read("v", [2, 1], ["a"]) == {1: (7, [1.0])}
    assert table.asked == [[1, 2]]
    assert rows.statistics()[:3] == (2, 2, 0)


def test_other_features_and_other_views_are_other_entries() -> None:
    table = Table({1: (7, [1.0])})
    rows, _ = cached(table)
    for view, features in (("v", ["a"]), ("v", ["b"]), ("w", ["a"]), ("v", ["a"])):
        rows.read(view, [1], features)
    assert len(table.asked) == 3


def test_a_number_and_a_text_of_the_same_digits_are_two_entries() -> None:
    table = Table({1: (7, [1.0]), "1": (8, [2.0])})
    rows, _ = cached(table)
    assert rows.read("v", [1, "1"], ["a"]) == {1: (7, [1.0]), "1": (8, [2.0])}
    assert rows.read("v", ["1"], ["a"]) == {"1": (8, [2.0])}


def test_an_entry_ends_with_its_time_and_is_read_again() -> None:
    table = Table({1: (7, [1.0])})
    rows, clock = cached(table, check=1000)
    rows.read("v", [1, 2], ["a"])
    clock.now += 9.9
    assert rows.read("v", [1], ["a"])[1] == (7, [1.0])
    table.rows[1] = (8, [2.0])
    clock.now += 0.1
    assert rows.read("v", [1], ["a"]) == {1: (8, [2.0])}
    assert rows.statistics().expired == 1


def test_the_entry_used_longest_ago_makes_room() -> None:
    table = Table({n: (n, [n]) for n in range(4)})
    rows, _ = cached(table, capacity=2)
    for key in (0, 1, 0, 2):  # 1 is evicted: 0 was used after it
        rows.read("v", [key], ["a"])
    table.asked.clear()
    rows.read("v", [0, 2], ["a"])
    assert table.asked == []
    rows.read("v", [1], ["a"])
    assert table.asked == [[1]]
    assert (rows.statistics().evicted, rows.statistics().entries) == (2, 2)


def test_a_moved_watermark_drops_the_entries_of_its_view_after_the_check() -> None:
    table = Table({1: (7, [1.0])})
    rows, clock = cached(table)
    rows.read("v", [1], ["a"])
    table.rows[1], table.mark = (9, [3.0]), W2
    assert (rows.watermark("v"), rows.read("v", [1], ["a"])) == (W1, {1: (7, [1.0])})
    clock.now += 1
    assert (rows.watermark("v"), rows.read("v", [1], ["a"])) == (W2, {1: (9, [3.0])})
    assert rows.statistics().dropped == 1


def test_an_unmoved_watermark_is_asked_for_once_a_check() -> None:
    table = Table({})
    rows, clock = cached(table, check=1.0)
    for _ in range(5):
        rows.read("v", [1], ["a"])
        rows.watermark("v")
    assert table.watched == 1
    clock.now += 1.0
    rows.watermark("v")
    assert (table.watched, len(table.asked)) == (2, 1)


def test_rows_read_while_the_watermark_moved_are_not_kept_under_the_new_one() -> None:
    table = Table({1: (7, [1.0])})
    rows, clock = cached(table)
    rows.watermark("v")
    plain = table.read

    def slow(view: str, keys: Sequence[Key], features: Sequence[str]) -> Mapping[Key, Entry]:
        found = plain(view, keys, features)
        table.mark = W2  # another thread's look at the watermark comes between the read and the keeping
        clock.now += 1
        rows.watermark(view)
        return found

    table.read = slow  # type: ignore[method-assign]
    rows.read("v", [1], ["a"])
    table.read, table.rows[1] = plain, (9, [3.0])  # type: ignore[method-assign]
    assert (rows.watermark("v"), rows.read("v", [1], ["a"])) == (W2, {1: (9, [3.0])})


def test_a_store_that_is_away_is_told_and_nothing_is_remembered_of_it() -> None:
    table = Table({1: (7, [1.0]), 2: (8, [2.0])})
    rows, _ = cached(table)
    rows.read("v", [1], ["a"])
    table.away = True
    assert rows.read("v", [1], ["a"]) == {1: (7, [1.0])}
    with pytest.raises(OnlineStoreAway):
        rows.read("v", [1, 2], ["a"])
    table.away = False
    assert rows.read("v", [2], ["a"]) == {2: (8, [2.0])}


def test_a_closed_cache_has_forgotten_everything() -> None:
    table = Table({1: (7, [1.0])})
    rows, _ = cached(table)
    rows.read("v", [1], ["a"])
    rows.close()
    assert (table.closed, rows.statistics().entries) == (True, 0)


@pytest.mark.parametrize(("ttl", "capacity", "check"), [(0, 1, 1), (1, 0, 1), (1, 1, -1)])
def test_a_cache_without_room_or_time_is_refused(ttl: float, capacity: int, check: float) -> None:
    with pytest.raises(SpecError, match="no meaning"):
        CachedRows(Table({}), ttl, capacity, check)


STEPS = st.one_of(
    st.tuples(st.just("read"), st.lists(st.integers(0, 5), max_size=4)),
    st.tuples(st.just("wait"), st.sampled_from([0.4, 1.0, 11.0])),
    st.tuples(st.just("write"), st.integers(0, 5)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, max_size=30), st.integers(1, 4))
def test_reads_are_those_of_a_plain_model(steps: list[Any], capacity: int) -> None:
    """The model keeps entries in a plain ordered table; each write moves the watermark."""
    table = Table({n: (n, [n]) for n in range(4)})
    rows, clock = cached(table, capacity=capacity)
    model: OrderedDict[int, tuple[float, Entry | None]] = OrderedDict()
    mark, checked = None, float("-inf")
    for number, (what, given_) in enumerate(steps):
        if what == "wait":
            clock.now += given_
        elif what == "write":
            table.rows[given_], table.mark = (number, [number]), Watermark(number + 10, None)
        else:
            if clock.now - checked >= 1.0:
                if mark != table.mark:
                    model.clear()
                mark, checked = table.mark, clock.now
            expected = {}
            missed = []
            for key in dict.fromkeys(given_):
                until, entry = model.get(key, (0.0, None))
                if until <= clock.now:
                    model.pop(key, None)
                    missed.append(key)
                    entry = table.rows.get(key)
                else:
                    model.move_to_end(key)
                if entry is not None:
                    expected[key] = entry
            for key in missed:
                model[key] = (clock.now + 10, table.rows.get(key))
            while len(model) > capacity:
                model.popitem(last=False)
            assert rows.read("v", given_, ["a"]) == expected
            assert rows.watermark("v") == mark
            assert rows.statistics().entries == len(model) <= capacity


def test_threads_that_read_at_once_get_whole_answers_and_true_counts() -> None:
    table = Table({n: (n, [n]) for n in range(50)})
    rows = CachedRows(table, 60, 20, 0.0)
    wrong: list[Any] = []

    def work(seed: int) -> None:
        for step in range(200):
            keys: list[Key] = [(seed * 7 + step * 3 + n) % 60 for n in range(5)]
            found = rows.read("v", keys, ["a"])
            if found != {key: (key, [key]) for key in keys if key in table.rows}:
                wrong.append(found)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert rows.statistics().hits + rows.statistics().misses == 4 * 200 * 5
