"""Against a real HTTP server on loopback, with ranges and faults."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import polars as pl
import pytest

from ferroflow.adapters.home import Home
from ferroflow.adapters.sources import checksums
from ferroflow.adapters.sources.download import NotPublished, fetch
from ferroflow.adapters.sources.locate import locate
from ferroflow.core.addresses import public
from ferroflow.core.errors import DataError, SourceUnavailable
from ferroflow.core.spec import MonthlyFiles, SourceFile
from ferroflow.stations.ingest import ingest
from tests.parcels import AS_OF, GOOD, HEADER, NOW, a_mirror, parcels, settings_for

CONTENT = bytes(range(256)) * 4_000


@dataclass
class Site:
    """What the server holds, and what it was asked for."""

    files: dict[str, bytes]
    cuts: list[int] = field(default_factory=list)  # the next answers break off after so many bytes
    refusals: list[int] = field(default_factory=list)  # the next answers are these codes
    ranges: list[str | None] = field(default_factory=list)
    address: str = ""


@pytest.fixture
def site() -> Iterator[Site]:
    held = Site({"/file": CONTENT})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            held.ranges.append(self.headers.get("Range"))
            if held.refusals:
                self.send_error(held.refusals.pop(0))
            elif self.path in held.files:
                self._send(held.files[self.path])
            else:
                self.send_error(404)

        def _send(self, data: bytes) -> None:
            tag = f'"{hashlib.sha256(data).hexdigest()}"'
            start = 0
            if self.headers.get("If-Range") == tag and (asked := self.headers.get("Range")):
                start = int(asked.removeprefix("bytes=").rstrip("-"))
            self.send_response(206 if start else 200)
            self.send_header("ETag", tag)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            body = data[start:]
            self.wfile.write(body[: held.cuts.pop(0)] if held.cuts else body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that hangs up is part of these tests."""

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    held.address = f"http://127.0.0.1:{server.server_address[1]}"
    yield held
    server.shutdown()
    server.server_close()


def no_pause(_: float) -> None:
    return


def test_transfer_that_breaks_off_is_continued_where_it_was_cut(site: Site, tmp_path: Path) -> None:
    site.cuts = [300_000]
    told: list[tuple[str, int, int | None]] = []
    fetch(f"{site.address}/file", tmp_path / "file", progress=lambda *step: told.append(step), pause=no_pause)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert site.ranges[0] is None
    assert site.ranges[1:] == ["bytes=262144-"]  # what had arrived in whole chunks of 256 KiB
    assert told[-1] == ("file", len(CONTENT), len(CONTENT))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_file_that_changed_meanwhile_is_not_spliced(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(b"old" * 1000)
    (tmp_path / "file.etag").write_text('"of the old file"')
    fetch(f"{site.address}/file", tmp_path / "file", pause=no_pause)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_server_that_stumbles_is_asked_again(site: Site, tmp_path: Path) -> None:
    site.refusals = [503, 500]
    fetch(f"{site.address}/file", tmp_path / "file", pause=no_pause)
    assert len(site.ranges) == 3


def test_file_that_does_not_exist_is_not_asked_for_again(site: Site, tmp_path: Path) -> None:
    with pytest.raises(NotPublished, match=r"404.*FERROFLOW_MIRROR.*--simulate"):
        fetch(f"{site.address}/none", tmp_path / "none", pause=no_pause)
    assert len(site.ranges) == 1


def test_file_beyond_the_bound_is_refused(site: Site, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1,024,000 bytes, more than the 1,000"):
        fetch(f"{site.address}/file", tmp_path / "file", max_bytes=1000, pause=no_pause)


def test_nobody_there_is_told_with_both_ways_out(tmp_path: Path) -> None:
    pauses: list[float] = []
    with pytest.raises(SourceUnavailable, match=r"127\.0\.0\.1:9/file.*FERROFLOW_MIRROR.*--simulate"):
        fetch("http://127.0.0.1:9/file", tmp_path / "file", pause=pauses.append)
    assert len(pauses) == 1


def test_credentials_are_not_shown() -> None:
    assert public("https://me:secret@host:8/a/b.csv?token=1") == "https://host:8/a/b.csv"


def test_fetched_file_is_found_again_without_the_server(site: Site, home: Home) -> None:
    site.files["/parcels.csv"] = (HEADER + GOOD).encode()
    spec = parcels(site.address)
    file = spec.source.files.files(None, None)[0]
    first = locate(spec, file, home.downloads, settings_for(home))
    again = locate(spec, file, home.downloads, settings_for(home))
    assert (first.origin, again.origin, len(site.ranges)) == ("url", "cache", 1)
    assert first.sha256 == again.sha256 == checksums.recorded(home.downloads)["post/parcels.csv"]["sha256"]


def test_file_with_another_checksum_than_the_first_time_is_refused(site: Site, home: Home) -> None:
    site.files["/parcels.csv"] = b"first"
    spec = parcels(site.address)
    file = spec.source.files.files(None, None)[0]
    first = locate(spec, file, home.downloads, settings_for(home))
    first.path.write_bytes(b"damaged")
    site.files["/parcels.csv"] = b"second"
    with pytest.raises(DataError) as caught:
        locate(spec, file, home.downloads, settings_for(home))
    assert first.sha256 in str(caught.value)
    assert hashlib.sha256(b"second").hexdigest() in str(caught.value)


def test_damaged_download_is_fetched_again(site: Site, home: Home) -> None:
    site.files["/parcels.csv"] = b"first"
    spec = parcels(site.address)
    file = spec.source.files.files(None, None)[0]
    locate(spec, file, home.downloads, settings_for(home)).path.write_bytes(b"damaged")
    found = locate(spec, file, home.downloads, settings_for(home))
    assert (found.origin, found.path.read_bytes()) == ("url", b"first")


def test_mirror_folder_goes_before_the_address_and_is_read_in_place(home: Home, tmp_path: Path) -> None:
    mirror = a_mirror(tmp_path / "mirror")
    spec = parcels()
    file = spec.source.files.files(None, None)[0]
    found = locate(spec, file, home.downloads, settings_for(home, mirror=str(mirror)))
    assert (found.origin, found.path) == ("mirror", mirror / "post" / "parcels.csv")
    assert checksums.recorded(home.downloads)[str(found.path)]["sha256"] == found.sha256


def test_mirror_address_goes_first_and_what_it_lacks_comes_from_the_public_one(site: Site, home: Home) -> None:
    site.files |= {"/mirror/post/parcels.csv": b"mirrored", "/cities.csv": b"public"}
    spec = parcels(site.address)
    settings = settings_for(home, mirror=f"{site.address}/mirror")
    found = locate(spec, spec.source.files.files(None, None)[0], home.downloads, settings)
    assert (found.origin, found.path.read_bytes()) == ("mirror", b"mirrored")
    city = locate(spec, spec.references[0].file, home.downloads, settings)
    assert (city.origin, city.path.read_bytes()) == ("url", b"public")


def test_mirror_that_is_no_folder_is_told(home: Home) -> None:
    spec = parcels()
    with pytest.raises(SourceUnavailable, match="'/nowhere/at/all', which is no folder"):
        locate(spec, spec.references[0].file, home.downloads, settings_for(home, mirror="/nowhere/at/all"))


def test_member_is_taken_out_of_an_archive_that_is_fetched_once(site: Site, home: Home) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("inner/a.csv", "a")
        archive.writestr("b.csv", "b")
    site.files["/all.zip"] = packed.getvalue()
    spec, settings = parcels(), settings_for(home)
    url = f"{site.address}/all.zip"
    files = [SourceFile(url, "post/a.csv", member="inner/a.csv"), SourceFile(url, "post/b.csv", member="b.csv")]
    found = [locate(spec, file, home.downloads, settings).path.read_text() for file in files]
    assert found == ["a", "b"]
    assert len(site.ranges) == 1


def test_simulated_file_is_the_same_for_the_same_seed_only(home: Home) -> None:
    spec = parcels(simulator="tests.parcels:simulate")
    file = spec.source.files.files(None, None)[0]
    settings = [settings_for(home, simulate=True, seed=seed) for seed in (1, 1, 2)]
    found = [locate(spec, file, home.downloads, given) for given in settings]
    assert [entry.origin for entry in found] == ["simulator"] * 3
    assert found[0].sha256 == found[1].sha256 != found[2].sha256
    assert pl.read_csv(found[0].path).height == 20


def test_month_that_is_not_published_yet_is_left_out_aloud_and_a_gap_before_it_is_not_hidden(
    site: Site, home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    months = MonthlyFiles(f"{site.address}/{{year}}-{{month:02}}.csv", "post/{year}-{month:02}.csv", AS_OF)
    spec = parcels(site.address)
    spec = dataclasses.replace(spec, source=dataclasses.replace(spec.source, files=months))
    site.files |= {"/2024-04.csv": (HEADER + GOOD).encode(), "/cities.csv": b"city,country\n1,IS\n2,NO\n"}
    june = AS_OF.replace(month=6, day=30)
    snapshot = ingest(spec, june, home, now=NOW, settings=settings_for(home))
    assert [part.file for part in snapshot.parts] == ["2024-04.csv"]
    assert [record.args for record in caplog.records] == [("2024-05.csv",), ("2024-06.csv",)]
    site.files["/2024-06.csv"] = (HEADER + GOOD).encode()
    with pytest.raises(NotPublished, match="2024-05"):
        ingest(spec, june, home, now=NOW, settings=settings_for(home))
