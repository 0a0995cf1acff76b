"""Find a source file: the mirror first, then what was fetched before, then its public address."""

from __future__ import annotations

import logging
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

from ferroflow.adapters.locks import locked
from ferroflow.adapters.settings import Settings
from ferroflow.adapters.sources import checksums
from ferroflow.adapters.sources.download import NotPublished, Progress, fetch
from ferroflow.adapters.sources.objects import is_object, store_of
from ferroflow.adapters.sources.simulated import simulated
from ferroflow.adapters.storage import replacing
from ferroflow.core.addresses import public
from ferroflow.core.errors import SourceUnavailable, UnreadableFile
from ferroflow.core.fingerprint import file_digest, fingerprint
from ferroflow.core.spec import PipelineSpec, SourceFile

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Located:
    """A file on this machine: ``origin`` as in ``Part``, the address without credentials.

    ``modified`` (ns) is when a file that others may write to was last changed; 0: the file is ours.
    """

    path: Path
    origin: str
    address: str
    sha256: str
    modified: int = 0

    def has_changed(self) -> bool:
        """Whether somebody wrote to the file since its checksum was taken."""
        if self.modified == 0:
            return False
        try:
            return self.path.stat().st_mtime_ns != self.modified
        except FileNotFoundError:
            return True


def in_place(path: Path, origin: str) -> Located:
    """A file that is read where it lies."""
    modified = path.stat().st_mtime_ns
    return Located(path, origin, str(path), file_digest(path), modified)


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
    mirror = mirror_folder(settings)
    if mirror is not None:
        place = mirror / file.mirror
        if place.is_file():
            return _checked(in_place(place, "mirror"), downloads)
        logger.info("%s is not in the mirror %s", file.mirror, mirror)
    if "://" not in file.url:
        return _checked(_local(file), downloads)
    address = settings.mirror if settings.mirror is not None and _is_address(settings.mirror) else None
    return _cached(file, downloads) or _fetched(file, downloads, address, progress)


def mirror_folder(settings: Settings) -> Path | None:
    """The mirror, when it is a folder; None when there is none or it is an address.

    Raises:
        SourceUnavailable: the setting names a folder that is not there.
    """
    if settings.mirror is None or _is_address(settings.mirror):
        return None
    folder = Path(settings.mirror).expanduser().absolute()
    if not folder.is_dir():
        raise SourceUnavailable(
            f"FERROFLOW_MIRROR is {settings.mirror!r}, which is no folder. Set it to a folder or an address (http://, "
            f"https://, s3://, gs://, az://) that holds the source files, or unset it to read the public addresses."
        )
    return folder


def _is_address(mirror: str) -> bool:
    return mirror.startswith(("http://", "https://")) or is_object(mirror)


def _local(file: SourceFile) -> Located:
    path = Path(file.url).expanduser().absolute()
    if not path.is_file():
        raise SourceUnavailable(
            f"{path} is no file. Put it there, mend its path in the source, or set FERROFLOW_MIRROR to a folder that "
            f"holds {file.mirror}."
        )
    return in_place(path, "local")


def _checked(found: Located, downloads: Path) -> Located:
    checksums.check(downloads, found.address, found.sha256, found.address)
    return found


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
        if mirror is not None:
            address = f"{mirror.rstrip('/')}/{file.mirror}"
            try:
                _bring(address, path, progress)
                return _recorded(file, downloads, "mirror", address)
            except NotPublished:
                logger.info("%s is not in the mirror %s", file.mirror, public(mirror))
        if file.member is None:
            _bring(file.url, path, progress)
        else:
            _extract(file.url, file.member, path, downloads, progress)
        return _recorded(file, downloads, "url", file.url)


def _bring(address: str, path: Path, progress: Progress | None) -> None:
    if is_object(address):
        store_of(address).fetch(address, path, progress=progress)
    else:
        fetch(address, path, progress=progress)


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
            _bring(url, archive, progress)
    try:
        with (
            zipfile.ZipFile(archive) as opened,
            opened.open(member) as packed,
            replacing(path) as temporary,
            temporary.open("wb") as file,
        ):
            shutil.copyfileobj(packed, file)
    except (zipfile.BadZipFile, KeyError) as error:
        with archive.open("rb") as file:
            head = file.read(16)
        archive.unlink()
        raise UnreadableFile(
            f"{public(url)} gives no zip archive with {member!r} ({error}; it begins with {head!r}). The file was "
            f"removed: run again, or set FERROFLOW_MIRROR to a folder that holds {path.name}."
        ) from error
