"""The house rules that no linter checks."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LONGEST_FILE = 400
LONGEST_FUNCTION = 50


def tracked(*patterns: str) -> list[Path]:
    done = subprocess.run(["git", "ls-files", "--", *patterns], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout: which files belong to it is not known")
    return [path for line in done.stdout.splitlines() if (path := ROOT / line).is_file()]


def test_no_file_and_no_function_is_too_long() -> None:
    files = tracked("*.py")
    assert len(files) > 100
    found = []
    for path in files:
        text = path.read_text()
        if (lines := text.count("\n")) > LONGEST_FILE:
            found.append(f"{path.relative_to(ROOT)}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > LONGEST_FUNCTION:
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {length} lines")
    assert found == []


def test_no_page_names_a_folder_of_somebodys_machine() -> None:
    pages = [path for path in tracked("README.md", "docs") if path.suffix in (".md", ".svg", ".json", ".txt", ".html")]
    assert pages
    home = re.compile(r"(?<![\w.~/-])/(?:home|Users|root|work)/")
    assert [path.name for path in pages if home.search(path.read_text())] == []


def test_no_room_imports_a_higher_one() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    if not linter.exists():
        pytest.skip("import-linter is not installed: pip install -e '.[dev]'")
    done = subprocess.run([str(linter), "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
