"""Packed rows: what cannot be asked and what cannot be given is told by its name."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from ferroflow.adapters.feast.packed import PackedStore
from ferroflow.adapters.feast.packed_rows import PackedRows
from ferroflow.adapters.feast.plan import KeyPlan, PackedPlan, ReadPlan, ViewPlan
from ferroflow.adapters.feast.rows import RowLayout
from ferroflow.core.errors import DataError
from serving.errors import Refused
from serving.requests import parse

LAYOUT = RowLayout((("seen", "time"), ("value", "proto")))
VIEW = ViewPlan(
    view="users",
    table="users",
    keys=(KeyPlan(name="user", field="user", kind="text"),),
    features=LAYOUT.features,
)


@pytest.fixture
def rows(tmp_path: Path) -> PackedRows:
    path = tmp_path / "online.db"
    with PackedStore(path) as store:
        store.write("users", LAYOUT, [("a", 0, 0, [1_700_000_000_000, None]), ("b", 0, 0, [5, b"\xff"])])
    return PackedRows(ReadPlan(store=PackedPlan(path=str(path)), project="shop", views=(VIEW,)))


def test_a_stored_value_that_cannot_be_given_is_told_with_view_feature_and_key(rows: PackedRows) -> None:
    with pytest.raises(DataError, match=r"^'seen' of 'users' cannot be 1700000000000, which is stored for 'a': "):
        rows.read("users", ["a", "b"], ["seen"])
    with pytest.raises(DataError, match=r"^'value' of 'users' cannot be .* stored for 'b': Bytes are no Feast value"):
        rows.read("users", ["a", "b"], ["value"])
    ((event, values),) = rows.read("users", ["b"], ["seen"]).values()
    assert (event, values[0].timestamp()) == (0, 5)
    rows.close()


def test_a_thread_that_ends_closes_its_file_and_so_does_one_that_finds_another_file(rows: PackedRows) -> None:
    path = Path(rows.plan.store.path)  # type: ignore[union-attr]

    def opened() -> int:
        return sum(os.path.realpath(entry) == str(path) for entry in Path("/proc/self/fd").iterdir())

    for _ in range(30):
        thread = threading.Thread(target=rows.read, args=("users", ["b"], []))
        thread.start()
        thread.join()
    assert (opened(), len(rows._open)) == (0, 0)
    assert rows.read("users", ["b"], []) == {"b": (0, [])}
    assert (opened(), len(rows._open)) == (1, 1)
    path.rename(path.with_name("old.db"))
    with PackedStore(path) as store:
        store.write("users", LAYOUT, [("b", 7, 0, [5, None])])
    assert rows.read("users", ["b"], []) == {"b": (7, [])}
    assert (opened(), len(rows._open)) == (1, 1)
    rows.close()
    assert (opened(), len(rows._open)) == (0, 0)


def test_a_text_key_that_cannot_be_written_is_refused_and_never_gets_through_a_request(rows: PackedRows) -> None:
    with pytest.raises(DataError, match=r"A key of 'users' is no text: .*surrogates not allowed"):
        rows.read("users", ["b", "a\ud800"], ["seen"])
    rows.close()
    for body in (b'{"rows": [{"user": "a\\ud800"}]}', b'{"rows": [{"user": "\xed\xa0\x80"}]}'):
        with pytest.raises(Refused, match="no JSON") as refused:
            parse(body)
        assert refused.value.status == 400
