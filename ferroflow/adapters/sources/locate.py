"""Find a source file: the mirror first, then what was fetched before, then its public address."""

from __future__ import annotations

import logging
import zipfile
from dataclasses import dataclass
from pathlib import Path

from ferroflow.adapters.locks import locked
from ferroflow.adapters.settings import Settings
from ferroflow.adapters.sources import checksums
from ferroflow.adapters.sources.download import NotPublished, Progress, fetch
from ferroflow.adapters.sources.simulated import simulated
from ferroflow.adapters.storage import replacing
from ferroflow.core.addresses import public
from ferroflow.core.errors import SourceUnavailable, UnreadableFile
from ferroflow.core.fingerprint import file_digest, fingerprint
from ferroflow.core.spec import PipelineSpec, SourceFile

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Located:
    """A file on this machine: ``origin`` as in ``Part``, the address without credentials."""

    path: Path
    origin: str
    address: str
    sha256: str


def locate(
    spec: PipelineSpec, file: SourceFile, downloads: Path, settings: Settings, progress: Progress | None = None
) -> Located:
    """Find ``file``, fetch it if need be, and compare it with the checksum of its first time.

    Raises:
        SourceUnavailable: it can be had from nowhere.
        DataError: its bytes are not those that were recorded.
    """
    if settings.simulate and spec.source.simulator is not None:
        path = simulated(spec, file, downloads / "simulated", settings.seed)
        return Located(path, "simulator", spec.source.simulator, file_digest(path))
    mirror = settings.mirror
    if mirror is not None and not _is_address(mirror):
        place = _folder(mirror) / file.mirror
        if place.is_file():
            sha256 = file_digest(place)
            checksums.check(downloads, str(place), sha256, str(place))
            return Located(place, "mirror", str(place), sha256)
        logger.info("%s is not in the mirror %s", file.mirror, mirror)
    return _cached(file, downloads) or _fetched(file, downloads, mirror, progress)


def _is_address(mirror: str) -> bool:
    return mirror.startswith(("http://", "https://"))


def _folder(mirror: str) -> Path:
    folder = Path(mirror).expanduser().absolute()
    if not folder.is_dir():
        raise SourceUnavailable(
            f"FERROFLOW_MIRROR is {mirror!r}, which is no folder. Set it to a folder or an http(s) address that holds "
            f"the source files, or unset it to read the public addresses."
        )
    return folder


def _cached(file: SourceFile, downloads: Path) -> Located | None:
    path = downloads / file.mirror
    known = checksums.recorded(downloads).get(file.mirror)
    if known is None or not path.is_file():
        return None
    sha256 = file_digest(path)
    if sha256 != known["sha256"]:
        logger.warning("%s is damaged (%s instead of %s) and is fetched again", path, sha256, known["sha256"])
        return None
    return Located(path, "cache", known["address"], sha256)


def _fetched(file: SourceFile, downloads: Path, mirror: str | None, progress: Progress | None) -> Located:
    path = downloads / file.mirror
    with locked(path):  # whoever waited here finds it fetched
        found = _cached(file, downloads)
        if found is not None:
            return found
        if mirror is not None and _is_address(mirror):
            address = f"{mirror.rstrip('/')}/{file.mirror}"
            try:
                fetch(address, path, progress=progress)
                return _recorded(file, downloads, "mirror", address)
            except NotPublished:
                logger.info("%s is not in the mirror %s", file.mirror, public(mirror))
        if file.member is None:
            fetch(file.url, path, progress=progress)
        else:
            _extract(file.url, file.member, path, downloads, progress)
        return _recorded(file, downloads, "url", file.url)


def _recorded(file: SourceFile, downloads: Path, origin: str, address: str) -> Located:
    path = downloads / file.mirror
    sha256 = file_digest(path)
    checksums.check(downloads, file.mirror, sha256, public(address))
    return Located(path, origin, public(address), sha256)


def _extract(url: str, member: str, path: Path, downloads: Path, progress: Progress | None) -> None:
    """Take one member out of a zip archive, which is kept: other files may come out of it."""
    archive = downloads / "archives" / f"{fingerprint(url)}.zip"
    with locked(archive):
        if not archive.exists():
            fetch(url, archive, progress=progress)
    try:
        with zipfile.ZipFile(archive) as opened, replacing(path) as temporary:
            temporary.write_bytes(opened.read(member))
    except (zipfile.BadZipFile, KeyError) as error:
        head = archive.read_bytes()[:16]
        archive.unlink()
        raise UnreadableFile(
            f"{public(url)} gives no zip archive with {member!r} ({error}; it begins with {head!r}). The file was "
            f"removed: run again, or set FERROFLOW_MIRROR to a folder that holds {path.name}."
        ) from error
