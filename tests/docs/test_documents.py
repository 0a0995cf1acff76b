"""Every code block of the documents is run, in the order in which a reader meets it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
NOT_RUN = {"text"}  # pictures and trees
ELSEWHERE = {"add-a-pipeline.md"}  # its blocks are files, and a test of its own builds and runs them


class Block(NamedTuple):
    document: str
    number: int
    language: str
    code: str


def blocks() -> list[Block]:
    found = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        if path.name not in ELSEWHERE:
            for number, match in enumerate(FENCE.finditer(path.read_text()), 1):
                found.append(Block(path.name, number, match[1], match[2]))
    return found


def is_set_up(block: Block) -> bool:
    """The two set-up commands: `.ci/run` runs one of them, and the demonstration's own test the work of the other."""
    lines = [line.split("#")[0].strip() for line in block.code.splitlines()]
    return lines == ["make demo", "make test"]


def test_the_two_set_up_commands_stand_in_the_readme_once() -> None:
    assert [block.document for block in blocks() if is_set_up(block)] == ["README.md"]


def test_every_block_has_a_language_that_is_run_or_is_a_picture() -> None:
    assert {block.language for block in blocks()} <= {"bash", "python"} | NOT_RUN


def test_every_link_between_documents_leads_somewhere() -> None:
    broken = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
            if "://" not in target and not (path.parent / target).exists():
                broken.append(f"{path.name}: {target}")
    assert broken == []


@pytest.mark.servers
@pytest.mark.timeout(400)
def test_every_command_of_the_documents_works(tmp_path: Path, mirror: Path) -> None:
    environment = os.environ | {"FERROFLOW_HOME": str(tmp_path / "home"), "FERROFLOW_MIRROR": str(mirror)}
    try:
        for block in blocks():
            if block.language in NOT_RUN or is_set_up(block):
                continue
            command = ["bash", "-euo", "pipefail", "-c", block.code]
            if block.language == "python":
                command = ["python", "-c", block.code]
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
            where = f"{block.document}, block {block.number}"
            assert done.returncode == 0, f"{where}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    finally:
        subprocess.run(["ferroflow", "down"], env=environment, capture_output=True, timeout=120)
