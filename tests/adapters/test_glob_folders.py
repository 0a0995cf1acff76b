from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ferroflow.adapters.home import Home
from ferroflow.adapters.sources.globs import looked_in
from ferroflow.core.errors import EmptySource
from ferroflow.core.spec import Glob, Source
from ferroflow.stations.ingest import ingest
from tests.parcels import AS_OF, NOW, parcels, settings_for


def test_a_pattern_that_matches_nothing_says_in_which_folders_was_looked(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, mirror = tmp_path / "here", tmp_path / "mirror"
    here.mkdir()
    mirror.mkdir()
    monkeypatch.chdir(here)
    spec = replace(parcels(), source=Source(files=Glob(pattern="post/*/in.csv"), format="csv", time="sent_at"))
    with pytest.raises(EmptySource, match=f"looked in {mirror}/post and {here}/post"):
        ingest(spec, AS_OF, home, now=NOW, settings=settings_for(home, mirror=str(mirror)))


@pytest.mark.parametrize(
    ("pattern", "folder"), [("/data/in/*.csv", "/data/in"), ("/*.csv", "/"), ("s3://post/in/*.csv", "s3://post/in")]
)
def test_a_whole_path_is_looked_at_in_one_place(home: Home, pattern: str, folder: str) -> None:
    assert looked_in(Glob(pattern=pattern), settings_for(home)) == [folder]
