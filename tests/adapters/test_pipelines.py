from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ferroflow.adapters import pipelines
from ferroflow.core.errors import UnknownPipeline

_LOAD = "from ferroflow.adapters import pipelines as p; print(p.names()); print(p.load({name!r}).name)"


def loaded(folder: Path, name: str) -> subprocess.CompletedProcess[str]:
    """Names and one pipeline in a process of its own: a folder, once seen, stays in ``pipelines.__path__``."""
    environment = os.environ | {"FERROFLOW_PIPELINES": str(folder)}
    return subprocess.run(
        [sys.executable, "-c", _LOAD.format(name=name)], env=environment, capture_output=True, text=True
    )


def a_pipeline(folder: Path, text: str) -> None:
    (folder / "extra").mkdir()
    (folder / "extra" / "spec.py").write_text(text)


def test_misspelt_name_is_answered_with_the_close_one() -> None:
    name = pipelines.names()[0]
    with pytest.raises(UnknownPipeline, match=rf"No pipeline '{name}x'. Known: .*{name}.* Did you mean '{name}'\?"):
        pipelines.load(f"{name}x")


def test_every_folder_is_found_and_bears_its_own_name() -> None:
    assert pipelines.names() == sorted(pipelines.names())
    for name in pipelines.names():
        assert pipelines.load(name).name == name


def test_folder_of_the_variable_is_added_to_those_of_the_project(tmp_path: Path) -> None:
    a_pipeline(tmp_path, "from dataclasses import replace\nfrom ferroflow.adapters import pipelines\n"
               "pipeline = replace(pipelines.load(pipelines.names()[0]), name='extra')\n")  # fmt: skip
    done = loaded(tmp_path, "extra")
    assert done.stdout.splitlines()[-1] == "extra", done.stderr
    assert "extra" in done.stdout.splitlines()[0]
    assert pipelines.names()[0] in done.stdout.splitlines()[0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("x = 1\n", "pipelines/extra/spec.py has no 'pipeline'"),
        (
            "from ferroflow.adapters import pipelines as p\npipeline = p.load('income')\n",
            "describes 'income'. Give it the folder's name: name='extra'",
        ),
    ],
)
def test_folder_without_its_pipeline_is_told(tmp_path: Path, text: str, told: str) -> None:
    a_pipeline(tmp_path, text)
    assert told in loaded(tmp_path, "extra").stderr
