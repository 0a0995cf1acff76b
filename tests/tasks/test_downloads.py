from __future__ import annotations

from tasks.downloads import told_by


def test_download_is_told_in_ten_lines_however_small_its_chunks() -> None:
    lines: list[str] = []
    progress = told_by(lines.append)
    total = 20 * 2**20
    for have in range(0, total + 1, 2**16):
        progress("trips.parquet", have, total)
    assert len(lines) == 10
    assert lines[0] == "trips.parquet: 2.0 of 20.0 MiB (10%)"
    assert lines[-1] == "trips.parquet: 20.0 of 20.0 MiB (100%)"


def test_download_of_unknown_size_is_told_every_fifty_mebibytes() -> None:
    lines: list[str] = []
    progress = told_by(lines.append)
    for have in range(0, 120 * 2**20, 2**20):
        progress("trips.parquet", have, None)
    assert lines == ["trips.parquet: 50.0 MiB", "trips.parquet: 100.0 MiB"]
