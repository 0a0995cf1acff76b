"""What it costs to take a CSV file in without losing anything: the ingest station against Polars, pyarrow and DuckDB.

All write the same rows to one Parquet file (zstd, level 3, row groups of 122,880) in a stream. Each measurement is a
fresh process, the ways in turn; what is told are medians, without the start of the process and its imports.

What each way does **not** do, on a file whose lines are all well-formed as here:

- ``polars`` (``scan_csv().sink_parquet()``, the limit): it infers types from the first 100 lines, fills up a line that
  is too short in silence, hashes nothing and reads nothing back.
- ``polars_text``: the same with all cells as text, as a raw part holds them.
- ``pyarrow`` (``csv.open_csv`` → ``ParquetWriter``): stops at the first line with too few or too many cells; infers
  types from the first block; hashes nothing, reads nothing back.
- ``duckdb`` (``COPY (FROM read_csv(…)) TO``, in file order, two threads): stops at the first bad line; infers types;
  hashes nothing, reads nothing back.
- ``ours``, the whole station: SHA-256 of the file, every line judged, text cells with line numbers, SHA-256 of the
  Parquet file, read back, records written and synced to the disk.

``parts`` are ours one by one, in one more process; ``bad`` is the same file with one line in a thousand spoilt.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.memory import peak_mb

ROWS = 2_000_000
LIMIT = 2.0  # times Polars
PEAK_MB = 1_000  # however many rows
_ROW_GROUP = 122_880
_CHUNK = 250_000  # rows generated at once
_SPOILT = 1_000  # one line of so many
_CHILD = "import sys; from benchmarks.ingest import child; child(*sys.argv[1:])"

# ----------------------------------------------------------------------------------------------------------- the files


def generate(path: Path, rows: int) -> dict[str, int]:
    """Write ``rows`` orders of 12 columns to ``path``, and beside it ``bad.csv``; gives the bad lines of each kind."""
    dealt: dict[str, int] = {}
    with path.open("wb") as good, path.with_name("bad.csv").open("wb") as bad:
        for first in range(0, rows, _CHUNK):
            text = _orders(first, min(_CHUNK, rows - first)).write_csv(include_header=first == 0).encode()
            good.write(text)
            bad.write(_spoil(text, first, dealt))
    return dealt


def _orders(first: int, rows: int) -> Any:
    import numpy as np
    import polars as pl

    dice = np.random.default_rng(first)
    words = np.array(["amber", "basalt", "cedar", "delta", "ember", "fjord", "granite", "harbour", "iris", "juniper"])
    seconds = np.arange(first, first + rows) * 7 + dice.integers(0, 7, rows)
    note = np.char.add(words[dice.integers(0, 10, rows)], np.where(dice.random(rows) < 0.3, ", ", " "))
    return pl.DataFrame(
        {
            "order": np.arange(first, first + rows),
            "placed_at": pl.Series(seconds + 1_704_067_200).cast(pl.Int64) * 1_000_000,
            "customer": dice.integers(1, 500_000, rows),
            "city": words[dice.integers(0, 10, rows)],
            "status": np.array(["paid", "open", "sent", "back"])[dice.integers(0, 4, rows)],
            "quantity": dice.integers(1, 20, rows),
            "price": dice.lognormal(3, 1, rows).round(2),
            "discount": dice.random(rows).round(3),
            "weight": dice.gamma(2, 2, rows).round(4),
            "latitude": (60 + dice.normal(0, 1, rows)).round(6),
            "is_gift": dice.random(rows) < 0.5,
            "note": np.char.add(note, words[dice.integers(0, 10, rows)]),  # 3 in 10 hold a comma, and are quoted
        }
    ).with_columns(placed_at=pl.col("placed_at").cast(pl.Datetime("us")).dt.strftime("%Y-%m-%d %H:%M:%S"))


def _spoil(text: bytes, first: int, dealt: dict[str, int]) -> bytes:
    manners: list[tuple[str, Callable[[bytes], bytes]]] = [
        ("too few cells", lambda line: line[: line.index(b",", 20)]),
        ("too many cells", lambda line: b"more," + line),
        ("a quote in the wrong place", lambda line: b'"' + line[:4] + b'"x' + line[4:]),
        ("bytes that are no UTF-8", lambda line: line.replace(b",", b"\xe9,", 1)),
    ]
    lines = text.split(b"\n")
    for place in range(first == 0, len(lines) - 1, _SPOILT):
        kind, spoil = manners[place // _SPOILT % len(manners)]
        lines[place] = spoil(lines[place])
        dealt[kind] = dealt.get(kind, 0) + 1
    return b"\n".join(lines)


# ------------------------------------------------------------------------------------------------------------ the ways


def polars(path: Path, home: Path) -> dict[str, Any]:
    """Polars' streaming engine, types inferred."""
    import polars as pl

    return _to_parquet(pl.scan_csv(path), home)


def polars_text(path: Path, home: Path) -> dict[str, Any]:
    """The same, all cells as text with line numbers."""
    import polars as pl

    return _to_parquet(pl.scan_csv(path, infer_schema=False, row_index_name="_row"), home)


def _to_parquet(rows: Any, home: Path) -> dict[str, Any]:
    target = home / "rows.parquet"
    rows.sink_parquet(target, compression="zstd", compression_level=3, row_group_size=_ROW_GROUP)
    return {"megabytes": round(target.stat().st_size / 1e6, 1)}


def pyarrow(path: Path, home: Path) -> dict[str, Any]:
    """pyarrow's streaming reader, batch by batch into its writer, which gathers row groups as the others do."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    target = home / "rows.parquet"
    reader = pa.csv.open_csv(path, read_options=pa.csv.ReadOptions(block_size=4 << 20))
    options = {"compression": "zstd", "compression_level": 3}
    waiting: list[Any] = []
    with reader, pa.parquet.ParquetWriter(target, reader.schema, **options) as writer:
        for batch in reader:
            waiting.append(batch)
            if sum(entry.num_rows for entry in waiting) >= _ROW_GROUP:
                table = pa.Table.from_batches(waiting)
                whole = table.num_rows // _ROW_GROUP * _ROW_GROUP
                writer.write_table(table.slice(0, whole), row_group_size=_ROW_GROUP)
                waiting = table.slice(whole).to_batches()
        if waiting:
            writer.write_table(pa.Table.from_batches(waiting), row_group_size=_ROW_GROUP)
    return {"megabytes": round(target.stat().st_size / 1e6, 1)}


def duckdb(path: Path, home: Path) -> dict[str, Any]:
    """DuckDB's COPY."""
    import duckdb as duck

    target = home / "rows.parquet"
    duck.execute(
        f"COPY (FROM read_csv('{path}')) TO '{target}' "
        f"(FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 3, ROW_GROUP_SIZE {_ROW_GROUP})"
    )
    return {"megabytes": round(target.stat().st_size / 1e6, 1)}


def ours(path: Path, home: Path) -> dict[str, Any]:
    """The ingest station: from the file in the mirror to the snapshot's record."""
    from datetime import UTC, datetime

    from ferroflow.adapters.home import Home
    from ferroflow.adapters.settings import Settings
    from ferroflow.stations.ingest import ingest

    now = datetime(2025, 1, 1, tzinfo=UTC)
    settings = Settings(home=home, mirror=str(path.parent))
    snapshot = ingest(_spec(path.name), now, Home(home), now=now, settings=settings)
    (part,) = snapshot.parts
    return {"megabytes": round((home / part.path).stat().st_size / 1e6, 1), "rows": part.rows}


def _spec(name: str) -> Any:
    from ferroflow.core.spec import FixedFiles, PipelineSpec, Regression, Source, SourceFile

    return PipelineSpec(
        name="orders",
        description="Orders, as they come.",
        source=Source(files=FixedFiles((SourceFile(f"http://127.0.0.1:9/{name}", name),)), format="csv"),
        schema=object,  # the station reads no schema
        inputs=("quantity", "price"),
        target=Regression("weight"),
    )


def parts(path: Path, home: Path) -> dict[str, Any]:
    """What the station does with a file, step by step; ``split_only`` is the reading without a check."""
    import polars as pl

    from ferroflow.adapters.sources.delimited import delimited_batches
    from ferroflow.adapters.sources.raw_parquet import write_raw
    from ferroflow.core.fingerprint import file_digest

    home.mkdir(exist_ok=True)
    target = home / "rows.parquet"
    names = tuple(path.open().readline().strip().split(","))

    def batches() -> Any:
        return delimited_batches(path.open("rb"), (), ",", 0, path.name, path)

    def split_only() -> None:
        schema = dict.fromkeys(names, pl.String)
        with path.open("rb") as file:
            rest = b""
            while data := file.read(4 << 20):
                block, newline, rest = (rest + data).rpartition(b"\n")
                pl.read_csv(block + newline, has_header=False, schema=schema, empty_string_is_null=False)

    def sync() -> None:
        with target.open("rb") as file:
            os.fsync(file.fileno())

    steps: dict[str, Callable[[], object]] = {
        "hash_file": lambda: file_digest(path),
        "split_only": split_only,
        "read_and_check": lambda: sum(frame.height for frame in batches()),
        "read_check_and_write": lambda: write_raw(batches(), target),
        "sync": sync,
        "hash_part": lambda: file_digest(target),
        "read_back": lambda: pl.scan_parquet(target).select(pl.len()).collect().item(),
    }
    return {"parts": {name: _timed(step)[1] for name, step in steps.items()}}


def bad(path: Path, home: Path) -> dict[str, Any]:
    """The spoilt file: what ours makes of it, and what Polars says and, where it is made to go on, gives."""
    import polars as pl

    told, figures = _timed(lambda: ours(path, home))
    (part,) = home.glob("data/orders/parts/*.parquet")
    problems = pl.scan_parquet(part).filter(pl.col("_problem").is_not_null())
    kinds = problems.select(pl.col("_problem").str.replace(r"\d+ cells", "wrong number of cells")).collect()
    found = {"rows": told["rows"], "problems": dict(kinds["_problem"].value_counts().iter_rows())} | figures
    try:
        pl.scan_csv(path).sink_parquet(home / "polars.parquet")
        refused = ""
    except pl.exceptions.PolarsError as error:
        refused = str(error).splitlines()[0]
    forced = pl.scan_csv(path, ignore_errors=True, truncate_ragged_lines=True, encoding="utf8-lossy")
    try:
        rows = int(forced.select(pl.len(), pl.all().count()).collect()["len"][0])
    except pl.exceptions.PolarsError as error:
        return {"ours": found, "polars": refused, "polars_forced": str(error).splitlines()[0]}
    return {"ours": found, "polars": refused, "polars_forced_rows": rows}


# ----------------------------------------------------------------------------------------------------------- measuring

WAYS = {"polars": polars, "polars_text": polars_text, "pyarrow": pyarrow, "duckdb": duckdb, "ours": ours}


def child(kind: str, path: str, rows: str) -> None:
    """Generate the files, or run one way with a fresh home; prints JSON."""
    file = Path(path)
    if kind == "generate":
        print("FIGURES " + json.dumps(generate(file, int(rows))))
        return
    _import(kind)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        base = peak_mb()
        run = WAYS.get(kind) or {"parts": parts, "bad": bad}[kind]
        found, figures = _timed(lambda: run(file, Path(folder)))
    print("FIGURES " + json.dumps(figures | {"peak_mb": peak_mb(), "base_mb": base} | found))


def _import(kind: str) -> None:
    import numpy  # noqa: F401

    if kind in {"pyarrow", "duckdb"}:
        import pyarrow.csv
        import pyarrow.parquet  # noqa: F401
    else:
        import ferroflow.stations.ingest  # noqa: F401


def _timed(step: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    begin, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    result = step()
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    return result, {"seconds": round(wall, 3), "cpu_seconds": round(cpu, 3)}


def measure(*, pipeline: str | None = None, rounds: int = 2, rows: int = ROWS) -> dict[str, Any]:
    """Run all ways in turn; ratios are of medians. ``pipeline`` has no meaning here."""
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory(prefix="ingest-") as folder:
        path = Path(folder) / "orders.csv"
        dealt = _run("generate", path, rows)
        size = path.stat().st_size
        for _ in range(rounds):
            for way, done in runs.items():
                done.append(_run(way, path, rows))
        steps = _run("parts", path, rows)["parts"]
        spoilt = _run("bad", path.with_name("bad.csv"), rows)
    keys = ("seconds", "cpu_seconds", "peak_mb", "base_mb", "megabytes")
    ways = {
        way: {key: round(statistics.median(run[key] for run in done), 3) for key in keys} for way, done in runs.items()
    }
    ratio = round(ways["ours"]["seconds"] / ways["polars"]["seconds"], 3)
    return {
        "benchmark": "ingest",
        "rows": rows,
        "columns": 12,
        "megabytes": round(size / 1e6),
        "rounds": rounds,
        "ours_to_polars": ratio,
        "ours_to_polars_cpu": round(ways["ours"]["cpu_seconds"] / ways["polars"]["cpu_seconds"], 3),
        "ours_to_pyarrow": round(ways["ours"]["seconds"] / ways["pyarrow"]["seconds"], 3),
        "ours_to_duckdb": round(ways["ours"]["seconds"] / ways["duckdb"]["seconds"], 3),
        "passed": ratio <= LIMIT and ways["ours"]["peak_mb"] < PEAK_MB,
        **ways,
        "parts": steps,
        "bad": {key: spoilt[key] for key in spoilt if key.startswith(("ours", "polars"))} | {"lines": dealt},
    }


def _run(kind: str, path: Path, rows: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, kind, str(path), str(rows)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"The run {kind!r} failed:\n{done.stderr[-3000:]}")
    line = next(line for line in done.stdout.splitlines() if line.startswith("FIGURES "))
    return dict(json.loads(line.removeprefix("FIGURES ")))
