import csv
import gzip
import io
import random
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ferroflow.adapters.sources.delimited import delimited_batches
from ferroflow.core.errors import SpecError, UnreadableFile
from ferroflow.core.validation import LINE, PROBLEM, ROW

NOWHERE = Path(__file__)  # errors show the first bytes of a file
ABC = ("a", "b", "c")
Row = tuple[object, ...]


def read(
    data: bytes | str, columns: tuple[str, ...] = (), separator: str = ",", skip_rows: int = 0, block: int = 1 << 20
) -> tuple[pl.DataFrame, int]:
    """All rows, and the number of blank lines."""
    stream = io.BytesIO(data if isinstance(data, bytes) else data.encode())
    batches = delimited_batches(stream, columns, separator, skip_rows, "file.csv", NOWHERE, block=block)
    frames = list(batches)
    return pl.concat(frames) if frames else pl.DataFrame(), batches.blank_lines


def oracle(data: bytes, width: int, separator: str) -> tuple[list[Row], int]:
    """What Python's csv says of each record, told in the simplest way; a return in a cell is hidden from it."""
    lines = data.removesuffix(b"\n").split(b"\n") if data else []
    rows: list[Row] = []
    blank = at = 0
    while at < len(lines):
        line = lines[at].removesuffix(b"\r")
        if line == b"" or (width > 1 and separator.encode() not in line and not line.strip()):
            blank, at = blank + 1, at + 1
            continue
        cells, problem, count = _record(lines[at : at + 100], width, separator)
        raw = b"\n".join(lines[at : at + count]).removesuffix(b"\r").decode(errors="backslashreplace")
        rows.append((at + 1, *(cells or [None] * width), problem, raw if problem else None))
        at += count
    return rows, blank


def _record(lines: list[bytes], width: int, separator: str) -> tuple[list[str] | None, str | None, int]:
    problem = "a quote that is not closed"
    for count in range(1, len(lines) + 1):
        text = b"\n".join(lines[:count]).removesuffix(b"\r").decode(errors="surrogateescape").replace("\r", "\ue000")
        try:
            (cells,) = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        except csv.Error as error:
            if "unexpected end" in str(error):
                continue
            problem = "a quote in the wrong place"
            break
        if len(cells) != width:
            problem = f"{len(cells)} cells instead of {width}" if count == 1 else problem
            break
        if any("\udc80" <= letter <= "\udcff" for letter in text):
            return None, "bytes that are no UTF-8", count
        return [cell.replace("\ue000", "\r") for cell in cells], None, count
    try:
        lines[0].decode()
    except UnicodeDecodeError:
        problem = "bytes that are no UTF-8"
    return None, problem, 1


PIECES = [b"x", b"12", b" ", b"\t", b";", b",", b",", b"\n", b"\n", b"\r\n", b"\r", b'"', b'"', b'""', b'","', b'"\n"']
PIECES += [b',"', b'",', b'"\n', b'\n"', b"a,b\n", b"a,b,c\r\n", b'"p, q",r\n', b"caf\xc3\xa9", b"\xe2\x82", b"\xff"]


@settings(max_examples=800, deadline=None)
@given(
    pieces=st.lists(st.sampled_from(PIECES), max_size=60),
    width=st.integers(1, 3),
    separator=st.sampled_from([",", ";", "\t", " "]),
    block=st.integers(1, 90),
)
@example(pieces=[b"\r,"], width=2, separator=",", block=9)  # Polars makes an empty cell of one return
def test_any_bytes_are_split_as_pythons_csv_splits_them(
    pieces: list[bytes], width: int, separator: str, block: int
) -> None:
    data = b"".join(pieces)
    frame, blank = read(data, ABC[:width], separator, block=block)
    rows, blank_lines = oracle(data, width, separator)
    assert frame.rows() == rows
    assert blank == blank_lines


@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(st.tuples(*[st.text(alphabet='ab,"\n é€', max_size=6)] * 3), max_size=40),
    ending=st.sampled_from(["\n", "\r\n"]),
    block=st.integers(1, 200),
)
def test_what_pythons_csv_wrote_is_read_back_cell_by_cell(
    rows: list[tuple[str, str, str]], ending: str, block: int
) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=ending).writerows([ABC, *rows])
    frame, blank = read("\ufeff" + text.getvalue(), (), block=block)
    assert frame.select(ABC).rows() == rows if rows else frame.is_empty()
    assert blank == 0


def test_block_that_polars_splits_with_several_threads_is_split_as_pythons_csv_splits_it() -> None:
    dice = random.Random(3)
    kinds = [
        "{0},plain,{0}",
        '{0},"a, ""b""",x',
        '"{0}","two\nlines",x',
        "{0},short",
        "{0},much,too,long",
        '"{0}"x,y,z',
    ]
    lines = [dice.choices(kinds, (900, 200, 20, 1, 1, 1))[0].format(number) for number in range(60_000)]
    data = "\r\n".join(lines).encode()
    frame, _ = read(data, ABC, block=8 << 20)
    rows, _ = oracle(data, 3, ",")
    assert frame.rows() == rows
    assert frame[PROBLEM].n_unique() == 4  # none, short, long, a quote in the wrong place


def test_forgotten_quote_costs_one_row_wherever_the_blocks_end() -> None:
    lines = "".join(f"{number},x,y\n" for number in range(300))
    for block in (1, 7, 100, 1000, 1 << 20):
        frame, _ = read(f'7,"open,y\n{lines}', ABC, block=block)
        assert frame[PROBLEM].to_list() == ["a quote that is not closed"] + [None] * 300
        assert frame[LINE][0] == '7,"open,y'
        assert frame["a"].to_list()[1:] == [str(number) for number in range(300)]


def test_quoted_cell_may_have_a_hundred_lines_and_not_one_more() -> None:
    for lines, problem in ((100, None), (101, "a quote that is not closed")):
        frame, _ = read('1,"' + "\n".join("x" * lines) + '"\n', ("a", "b"), block=50)
        assert frame[PROBLEM][0] == problem


def test_short_lines_under_a_wide_header_come_in_frames_of_bounded_size() -> None:
    names = tuple(f"c{number}" for number in range(1000))
    frames = list(delimited_batches(io.BytesIO(b"x\n" * 5_000), names, ",", 0, "file.csv", NOWHERE))
    assert [frame.height for frame in frames] == [4001, 999]
    assert pl.concat(frames)[ROW].to_list() == list(range(1, 5_001))


def test_row_numbers_are_those_of_the_files_lines() -> None:
    frame, blank = read('a note\n\n"first\nname",b\n1,2\n\n"3\n",4\n5\n6,7', skip_rows=1, block=3)
    assert frame.columns == [ROW, "first\nname", "b", PROBLEM, LINE]
    assert frame[ROW].to_list() == [5, 7, 9, 10]
    assert (frame[ROW].dtype, blank) == (pl.UInt32, 2)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"a,a\n1,2\n", "repeated or empty names"),
        (b"a,,b\n1,2,3\n", "repeated or empty names"),
        (b"a,_row\n1,2\n", "a name that is kept for Ferroflow: _row"),
        (b"a,_cast:a\n1,2\n", "a name that is kept for Ferroflow: _cast:a"),
        (b",".join(b"c%d" % place for place in range(10_001)), "its header has 10,001 columns, more than 10,000"),
        (b"a,caf\xe9\n1,2\n", "its header has bytes that are no UTF-8"),
        (b'a,"b\n1,2\n', "its header has a quote that is not closed"),
        (b"a,b\n1,\x00\n", "it holds binary data"),
        (b"a,b\n1," + b"x" * (40 << 20), "line 2 is longer than 16 MB"),
    ],
)
def test_file_that_makes_no_table_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableFile, match=rf"file\.csv is no readable CSV file: .*{reason}"):
        read(data)


@pytest.mark.parametrize("data", ["", "a", "a,b", "a,b\n", "\ufeff"])
def test_file_without_a_line_after_its_header_gives_nothing(data: str) -> None:
    assert read(data)[0].is_empty()


@pytest.mark.parametrize("separator", ["", "||", "§", '"', "\n"])
def test_separator_that_cannot_be_one_is_refused(separator: str) -> None:
    with pytest.raises(SpecError, match="The separator"):
        read("a,b\n", separator=separator)


def test_stream_that_cannot_seek_is_read_from_front_to_back(tmp_path: Path) -> None:
    path = tmp_path / "file.tsv.gz"
    path.write_bytes(gzip.compress(b"a\tb\n\t\n1\t2\n"))
    with subprocess.Popen(["gzip", "-dc", path], stdout=subprocess.PIPE) as unpacking:
        assert unpacking.stdout is not None
        frames = list(delimited_batches(unpacking.stdout, (), "\t", 0, path.name, path))
    assert pl.concat(frames).select("a", "b").rows() == [("", ""), ("1", "2")]


READ = """
import sys
from pathlib import Path
from ferroflow.adapters.sources.delimited import delimited_batches
from ferroflow.adapters.sources.raw_parquet import write_raw
path = Path(sys.argv[1])
with path.open("rb") as file:
    rows, _ = write_raw(delimited_batches(file, (), ",", 0, path.name, path), path.with_suffix(".parquet"))
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(rows, int(peak.split()[1]) / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a process's peak memory is read from Linux's /proc")
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    dice = random.Random(1)
    lines = "".join(f'{dice.random()},{dice.random()},"x, {dice.random()}"\n' for _ in range(20_000)).encode()
    peaks = {}
    for times in (12, 60):  # 15 and 75 MB
        path = tmp_path / f"{times}.csv"
        with path.open("wb") as file:
            file.write(b"a,b,c\n")
            for _ in range(times):
                file.write(lines)
        told = subprocess.run([sys.executable, "-c", READ, path], capture_output=True, text=True, check=True).stdout
        rows, peak = told.split()
        assert int(rows) == 20_000 * times
        peaks[times] = float(peak)
        path.unlink()
    assert peaks[60] - peaks[12] < 40, peaks
