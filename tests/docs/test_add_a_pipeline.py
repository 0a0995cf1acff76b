"""docs/add-a-pipeline.md, followed block by block in an empty folder."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import polars as pl
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "add-a-pipeline.md"
BLOCK = re.compile(r"(?:<!-- file: (?P<file>\S+) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder after the last block, and what the commands printed."""
    folder = tmp_path_factory.mktemp("newcomer")
    environment = os.environ | {
        "FERROFLOW_HOME": str(folder / "home"),
        "FERROFLOW_PIPELINES": str(folder / "pipelines"),
        "PYTHONUNBUFFERED": "1",
    }
    printed = []
    for block in BLOCK.finditer(PAGE.read_text(encoding="utf-8")):
        if block["file"]:
            path = folder / block["file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block["text"], encoding="utf-8")
        else:
            assert block["language"] == "sh", f"a block nobody runs: {block[0]}"
            done = subprocess.run(
                ["bash", "-e", "-c", block["text"]], cwd=folder, env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stdout + done.stderr
            printed.append(done.stdout)
    return folder, "\n".join(printed)


def told(printed: str) -> dict[str, object]:
    """The JSON document among the printed lines."""
    start = printed.index("\n{") + 1
    found, _ = json.JSONDecoder().raw_decode(printed[start:])
    return found


def test_page_ends_with_a_registered_champion(followed: tuple[Path, str]) -> None:
    folder, printed = followed
    assert told(printed)["promoted"] is True
    [package] = (folder / "home" / "packages" / "houses").glob("*/serving.json")
    assert json.loads(package.read_text())["pipeline"] == "houses"


def test_the_three_broken_rows_are_in_quarantine_and_no_other(followed: tuple[Path, str]) -> None:
    folder, _ = followed
    files = (folder / "home" / "data" / "houses" / "validated").glob("*/quarantined.parquet")
    rows = pl.concat([pl.read_parquet(file) for file in files])
    assert sorted(rows["row"]) == [12, 22, 32]  # lines of the file


def test_stored_feature_of_the_page_reaches_the_model(followed: tuple[Path, str]) -> None:
    folder, _ = followed
    [package] = (folder / "home" / "packages" / "houses").glob("*/serving.json")
    assert "district_week__price_of_metre" in json.loads(package.read_text())["inputs"]
