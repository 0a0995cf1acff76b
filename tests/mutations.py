"""Whole files of every format, and what can happen to their bytes: seeded, so that a failure can be made again."""

from __future__ import annotations

import gzip
import io
import json
import random
from datetime import datetime, timedelta

import polars as pl

_NOISE = (
    b'"',
    b'""',
    b"{",
    b"}",
    b"[",
    b"\\",
    b"\\u",
    b",",
    b"\t",
    b"\r",
    b"\n",
    b"\r\n",
    b"\x00",
    b"\xff",
    b"\xef\xbb\xbf",
)
_LENGTHS = (b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\xff" * 8)


def csv_files() -> list[bytes]:
    """Plain, quoted with newlines, with \\r\\n and a byte order mark, of one column, with blank lines."""
    plain = "id,city,kilos,note\n" + "".join(f"{row},Oslo {row % 3},{row / 7},\n" for row in range(40))
    quoted = "a,b,c\n" + "".join(f'{row},"two\nlines, {row}","say ""no"""\n' for row in range(20))
    windows = "\ufeffnavn;by\r\n" + "".join(f"Åse {row};Tromsø\r\n" for row in range(20))
    return [text.encode() for text in (plain, quoted, windows.replace(";", ","), "x\n1\n\n2\n   \n3\n", plain[:-1])]


def ndjson_files() -> list[bytes]:
    """Of one shape, with escapes and nested values, with keys that come and go, with numbers that no double holds."""
    flat = [json.dumps({"id": row, "city": f"Oslo {row % 3}", "kilos": row / 7, "ok": True}) for row in range(40)]
    nested = [json.dumps({"a": {"b": [row, None]}, "t": 'é "q" \\ \n', "n": None}) for row in range(20)]
    loose = [json.dumps({f"k{row % 4}": row, "é": "ø"}, ensure_ascii=False) for row in range(30)]
    exact = ['{"n":1e5, "m" : -0.10 ,"big":123456789012345678901234567890}'] * 15
    texts = ("\n".join(lines) + "\n" for lines in (flat, nested, loose, exact, [*flat, "", *nested]))
    return [text.encode() for text in texts]


def frame(rows: int = 120) -> pl.DataFrame:
    """A small frame of many types."""
    start = datetime(2024, 1, 1)
    return pl.DataFrame(
        {
            "i": list(range(rows)),
            "s": [f"text {row % 37} é" if row % 5 else None for row in range(rows)],
            "f": [row / 7 for row in range(rows)],
            "d": [start + timedelta(hours=row) for row in range(rows)],
            "l": [[row, row + 1] if row % 3 else None for row in range(rows)],
            "st": [{"a": row, "b": str(row)} for row in range(rows)],
            "c": pl.Series([f"c{row % 4}" for row in range(rows)], dtype=pl.Categorical),
            "b": [row % 2 == 0 for row in range(rows)],
            "bin": [bytes([row % 256] * 3) for row in range(rows)],
        }
    )


def parquet_files() -> list[bytes]:
    """By Polars and by pyarrow, with several ways of packing and row groups."""
    import pyarrow.parquet as pq

    found = []
    for packing in ("zstd", "uncompressed", "snappy", "gzip"):
        by_polars, by_arrow = io.BytesIO(), io.BytesIO()
        frame().write_parquet(by_polars, compression=packing, row_group_size=50)
        pq.write_table(
            frame().drop("c").to_arrow(),
            by_arrow,
            compression="none" if packing == "uncompressed" else packing,
            data_page_version="2.0" if packing == "zstd" else "1.0",
        )
        found += [by_polars.getvalue(), by_arrow.getvalue()]
    return found


def arrow_files() -> list[bytes]:
    """Arrow IPC files and streams."""
    found = []
    for packing in ("uncompressed", "lz4", "zstd"):
        file, stream = io.BytesIO(), io.BytesIO()
        frame().write_ipc(file, compression=packing)
        frame().write_ipc_stream(stream, compression=packing)
        found += [file.getvalue(), stream.getvalue()]
    return found


def packed_files() -> list[bytes]:
    """CSV packed by gzip and zstd."""
    import pyarrow as pa

    files = csv_files()
    return [gzip.compress(data, mtime=0) for data in files] + [
        pa.compress(data, "zstd", asbytes=True) for data in files
    ]


def excel_row(row: int) -> tuple[int, str, float, datetime, int | str]:
    """Of the workbooks' rows 1 to 39: its number in the sheet (from 1) and its cells."""
    when = datetime(2024, 1, 1) + timedelta(hours=row)
    return row + row // 10 + 1, f"text {row}", row / 7, when, row if row % 2 else f"<{row}>"


def excel_files() -> list[bytes]:
    """Workbooks with texts, numbers, dates, errors and gaps, packed and not."""
    import zipfile

    import xlsxwriter

    file = io.BytesIO()
    with xlsxwriter.Workbook(file, {"in_memory": True}) as book:
        sheet = book.add_worksheet("one")
        day = book.add_format({"num_format": "yyyy-mm-dd hh:mm"})
        sheet.write_row(0, 0, ["text", "number", "when", "mixed"])
        for row in range(1, 40):
            place, text, number, when, mixed = excel_row(row)
            sheet.write_row(place - 1, 0, [text, number])
            sheet.write_datetime(place - 1, 2, when, day)
            sheet.write(place - 1, 3, mixed)
    unpacked = io.BytesIO()
    with zipfile.ZipFile(file) as packed, zipfile.ZipFile(unpacked, "w") as stored:
        for name in packed.namelist():
            stored.writestr(name, packed.read(name))
    return [file.getvalue(), unpacked.getvalue()]


FILES = {
    "csv": csv_files,
    "ndjson": ndjson_files,
    "parquet": parquet_files,
    "arrow": arrow_files,
    "packed": packed_files,
    "excel": excel_files,
}


def mutated(files: list[bytes], seed: int) -> bytes:
    """One of the files after one to eight accidents; one in thirty has none."""
    dice = random.Random(seed)
    data = bytearray(dice.choice(files))
    if dice.random() < 1 / 30:
        return bytes(data)
    for _ in range(dice.choice((1, 1, 2, 3, 8))):
        accident = dice.choice(_ACCIDENTS)
        data = accident(dice, data, files) if data else bytearray(dice.randbytes(dice.randrange(40)))
    return bytes(data)


def hurt_inside(files: list[bytes], seed: int) -> bytes:
    """One of the files with one or two wrong bits before its last quarter: among the values of Parquet and Arrow."""
    dice = random.Random(seed)
    data = bytearray(dice.choice(files))
    for _ in range(dice.choice((1, 1, 2))):
        data[dice.randrange(8, len(data) * 3 // 4)] ^= 1 << dice.randrange(8)
    return bytes(data)


def _flip(dice: random.Random, data: bytearray, files: list[bytes]) -> bytearray:
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    return data


def _near_the_end(dice: random.Random, data: bytearray, files: list[bytes]) -> bytearray:
    data[-dice.randrange(1, min(len(data), 1_500) + 1)] = dice.randrange(256)  # a Parquet or Arrow file's footer
    return data


def _cut_off(dice: random.Random, data: bytearray, files: list[bytes]) -> bytearray:
    return data[: dice.randrange(len(data))] if dice.random() < 0.4 else data[dice.randrange(min(len(data), 20)) :]


def _remove(dice: random.Random, data: bytearray, files: list[bytes]) -> bytearray:
    place = dice.randrange(len(data))
    del data[place : place + dice.randrange(1, 60)]
    return data


def _repeat(dice: random.Random, data: bytearray, files: list[bytes]) -> bytearray:
    place, other = dice.randrange(len(data)), dice.randrange(len(data))
    data[other:other] = data[place : place + dice.randrange(1, 200)]
    return data


def _insert(dice: random.Random, data: bytearray, files: list[bytes]) -> bytearray:
    place = dice.randrange(len(data))
    data[place:place] = dice.randbytes(dice.randrange(1, 50))
    return data


def _noise(dice: random.Random, data: bytearray, files: list[bytes]) -> bytearray:
    for _ in range(dice.randrange(1, 6)):
        place = dice.randrange(len(data) + 1)
        data[place:place] = dice.choice(_NOISE)
    return data


def _length(dice: random.Random, data: bytearray, files: list[bytes]) -> bytearray:
    place, value = dice.randrange(len(data)), dice.choice(_LENGTHS)
    data[place : place + len(value)] = value
    return data


def _join(dice: random.Random, data: bytearray, files: list[bytes]) -> bytearray:
    return data + dice.choice(files)


def _long_line(dice: random.Random, data: bytearray, files: list[bytes]) -> bytearray:
    place = dice.randrange(len(data))
    data[place:place] = dice.choice((b"x", b'"', b"[", b",", b"{", b"1")) * dice.choice((500, 20_000))
    return data


_ACCIDENTS = (_flip, _flip, _near_the_end, _cut_off, _remove, _repeat, _insert, _noise, _length, _join, _long_line)
