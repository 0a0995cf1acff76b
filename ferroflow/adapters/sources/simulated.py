"""Files made by a pipeline's own simulator, for machines without the real ones."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import polars as pl

from ferroflow.adapters.sources.files import format_of
from ferroflow.adapters.storage import replacing
from ferroflow.core.errors import SpecError
from ferroflow.core.fingerprint import file_digest, fingerprint
from ferroflow.core.spec import PipelineSpec, SourceFile

Simulator = Callable[[str, int], pl.DataFrame]
"""``simulate(file_name, seed)``: the raw frame of that file."""


def simulated(spec: PipelineSpec, file: SourceFile, folder: Path, seed: int) -> Path:
    """Make the file, or find it as the same simulator made it before with the same seed.

    Raises:
        SpecError: the source's ``simulator`` is no ``module:function``.
    """
    simulate, code = _load(spec)
    made = folder / f"{spec.name}-{fingerprint(code, seed)}" / file.name
    if not made.exists():
        frame = simulate(file.name, seed)
        with replacing(made) as temporary:
            _write(frame, temporary, made.name, file.skip_rows, spec)
    return made


def _load(spec: PipelineSpec) -> tuple[Simulator, str]:
    path = spec.source.simulator or ""
    module_name, _, name = path.partition(":")
    try:
        module = importlib.import_module(module_name)
        simulate: Simulator = getattr(module, name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SpecError(
            f"The simulator {path!r} of {spec.name!r} cannot be loaded: {error}. Write 'module:function'."
        ) from error
    code = file_digest(Path(module.__file__)) if module.__file__ else path
    return simulate, code


def _write(frame: pl.DataFrame, path: Path, name: str, skip_rows: int, spec: PipelineSpec) -> None:
    kind = format_of(name, spec.source.format)
    if kind == "parquet":
        frame.write_parquet(path)
    elif kind == "arrow":
        frame.write_ipc(path)
    elif kind == "ndjson":
        frame.write_ndjson(path)
    elif kind == "excel":
        raise SpecError(f"No simulator can stand in for {name!r}: Excel files are read and not written.")
    else:
        has_header = not spec.source.columns or spec.source.format == "parquet"
        separator = "\t" if kind == "tsv" else spec.source.separator
        text = frame.write_csv(separator=separator, include_header=has_header)
        path.write_text("simulated\n" * skip_rows + text, encoding="utf-8")
