"""``python -m benchmarks NAME [--json]``: one benchmark and its figures. Exit code 1: a limit does not hold."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable
from typing import Any

NAMES = {
    "loop": "the loop under Prefect against the sum of its stations called as plain Python",
    "ingest": "a CSV file to a snapshot: the ingest station, Polars, pyarrow, DuckDB",
    "features": "point-in-time joins, materialization and online reads: ours, Feast's own, DuckDB, Polars by hand",
    "validate": "rows split into accepted and quarantined: ours, by hand, by pandera",
}


def main() -> None:
    """Parse, run, print."""
    told = "\n".join(f"  {name:10} {text}" for name, text in NAMES.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", epilog=f"benchmarks:\n{told}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=sorted(NAMES), metavar="NAME")
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")
    parser.add_argument("--pipeline", help="the pipeline to run [default: the first that brings a simulator]")
    parser.add_argument("--rounds", type=int, default=2, help="counted rounds; medians are printed [default: 2]")
    parser.add_argument("--rows", type=int, help="of the file that ingest reads [default: 2,000,000]")
    parser.add_argument("--part", help="of the benchmark features: join, materialize, reads or size [default: all]")
    given = parser.parse_args()
    if given.rows and given.name != "ingest":
        parser.error("--rows is an option of the benchmark ingest only")
    if given.part and given.name != "features":
        parser.error("--part is an option of the benchmark features only")
    measure: Callable[..., dict[str, Any]] = importlib.import_module(f"benchmarks.{given.name}").measure
    own = {name: value for name, value in (("rows", given.rows), ("part", given.part)) if value}
    figures = measure(pipeline=given.pipeline, rounds=given.rounds, **own)
    if given.json:
        print(json.dumps(figures))
    else:
        for key, value in figures.items():
            print(f"{key:28} {value}")
    sys.exit(0 if figures.get("passed", True) else 1)


main()
