"""Object stores (``s3://``, ``gs://``, ``az://``): list objects, and bring one here in pieces.

Credentials come from the environment in each vendor's own variables; without any, the store is asked anonymously.
S3: ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_SESSION_TOKEN``, ``AWS_PROFILE``, ``AWS_REGION``,
``AWS_ENDPOINT_URL``. Google: ``GOOGLE_APPLICATION_CREDENTIALS``. Azure: ``AZURE_STORAGE_ACCOUNT``,
``AZURE_STORAGE_KEY``, ``AZURE_STORAGE_SAS_TOKEN``.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from ferroflow.adapters.locks import locked
from ferroflow.adapters.sources.download import MAX_BYTES, NotPublished, Progress
from ferroflow.adapters.storage import is_whole, read_record, write_record
from ferroflow.core.errors import DataError, SourceUnavailable
from ferroflow.core.fingerprint import file_digest, fingerprint

logger = logging.getLogger(__name__)

SCHEMES = ("s3://", "gs://", "az://")

_TRIES = 4
_TRIES_TO_CONNECT = 2
_CHUNK = 8 * 2**20
_RETRIED = timedelta(seconds=10)
_SETTLED = 60 * 10**9  # ns: an object that was this old when it was fetched cannot have changed within that moment
_DENIED = ("ACCESS_DENIED", "PERMISSION_DENIED", "HTTP status 403")
_HOPELESS = ("INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "INVALID_CLIENT_TOKEN_ID", "NO_SUCH_BUCKET")
_OUR_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_NOBODY = ("curlCode: 6,", "curlCode: 7,", "CURL error [6]", "CURL error [7]")  # no such host, no such port
_SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI")

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Entry:
    """An object as its store lists it; ``mtime`` in nanoseconds."""

    address: str
    size: int
    mtime: int

    @property
    def version(self) -> str:
        """What changes when the object does."""
        return f"{self.size}-{self.mtime}"


class Fetched(BaseModel):
    """What vouches for a fetched object: written when the whole of it is here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str
    version: str
    tag: str
    sha256: str
    settled: bool  # False: an object listed as this version may still be another one


def is_object(address: str) -> bool:
    """Whether the address is one of an object store."""
    return address.startswith(SCHEMES)


class Store:
    """One bucket of an object store. Ask ``store_of`` for one.

    Its methods raise ``NotPublished`` where the store answers that there is no such object or bucket, or that it may
    not be read, and ``SourceUnavailable`` where it does not answer or refuses the credentials.
    """

    def __init__(self, bucket: str, system: Any, pause: Callable[[float], None] = time.sleep) -> None:
        self.bucket = bucket  # s3://name
        self.system = system  # a pyarrow.fs.FileSystem
        self.pause = pause

    def listed(self, folder: str, *, deep: bool) -> list[Entry]:
        """The objects of a folder (``""``: of the bucket), with those of its subfolders when ``deep``; by name."""
        from pyarrow.fs import FileSelector, FileType

        path = self._path(f"{self.bucket}/{folder}").rstrip("/")
        selector = FileSelector(path, allow_not_found=True, recursive=deep)
        found = self._asked(f"{self.bucket}/{folder}", lambda: self.system.get_file_info(selector))
        if not found:
            self._exists()
        scheme = self.bucket.partition("://")[0]
        files = [info for info in found if info.type == FileType.File]
        entries = [Entry(f"{scheme}://{info.path}", info.size, info.mtime_ns or 0) for info in files]
        return sorted(entries, key=lambda entry: entry.address)

    def _exists(self) -> None:
        """See that the bucket is there: an absent one is listed like an empty one."""
        from pyarrow.fs import FileType

        info = self._asked(self.bucket, lambda: self.system.get_file_info(self._path(self.bucket)))
        if info.type == FileType.NotFound:
            raise NotPublished(_unavailable(self.bucket, "there is no such bucket"))

    def tag(self, address: str) -> str:
        """What the store says about an object's content (its ETag, where it has one)."""

        def asked() -> str:
            with self.system.open_input_file(self._path(address)) as remote:
                return _tag(remote)

        return self._asked(address, asked)

    def fetch(self, address: str, target: Path, *, progress: Progress | None = None, max_bytes: int = MAX_BYTES) -> str:
        """Bring an object to ``target`` and give its tag; what a broken transfer left beside it is continued.

        Raises:
            DataError: the object is larger than ``max_bytes``.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        return self._asked(address, lambda: self._transfer(address, target, progress, max_bytes))

    def _transfer(self, address: str, target: Path, progress: Progress | None, max_bytes: int) -> str:
        part, known = target.with_name(target.name + ".part"), target.with_name(target.name + ".etag")
        with self.system.open_input_file(self._path(address)) as remote:
            total, tag = remote.size(), _tag(remote)
            if total > max_bytes:
                raise DataError(f"{address} has {total:,} bytes, more than the {max_bytes:,} that are allowed.")
            if not (part.exists() and known.exists() and known.read_text() == tag and part.stat().st_size <= total):
                part.write_bytes(b"")
                known.write_text(tag)
            remote.seek(have := part.stat().st_size)
            with part.open("ab") as file:
                while have < total:
                    chunk = remote.read(min(_CHUNK, total - have))
                    if not chunk:
                        raise OSError(f"the transfer ended after {have:,} of {total:,} bytes")
                    have += file.write(chunk)
                    if progress is not None:
                        progress(address.rpartition("/")[2], have, total)
        if self.tag(address) != tag:  # pieces of two versions make no file
            known.unlink()
            raise OSError("it changed while it was fetched")
        part.replace(target)
        known.unlink()
        return tag

    def _path(self, address: str) -> str:
        """The address as the file system wants it: ``bucket/key``."""
        return address.partition("://")[2]

    def _asked(self, address: str, ask: Callable[[], Answer]) -> Answer:
        """Ask, and ask again after a growing pause where a failure may pass."""
        for attempt in range(1, _TRIES + 1):
            try:
                return ask()
            except FileNotFoundError as error:
                raise NotPublished(_unavailable(address, "there is no such object")) from error
            except OSError as error:
                if error.errno in _OUR_DISK:
                    raise
                told = _plain(str(error))
                if any(sign in told for sign in _DENIED):
                    raise NotPublished(_unavailable(address, told)) from error
                logger.warning("%s: try %d failed: %s", address, attempt, told)
                tries = _TRIES_TO_CONNECT if any(sign in told for sign in _NOBODY) else _TRIES
                if attempt >= tries or any(sign in told for sign in _HOPELESS):
                    raise SourceUnavailable(_unavailable(address, told)) from error
                self.pause(0.5 * 2**attempt)
        raise AssertionError("the last try ends the loop")


def store_of(address: str) -> Store:
    """The store that holds an address, with the environment's credentials.

    Raises:
        SourceUnavailable: the environment lacks what the store needs to be asked at all.
    """
    scheme, _, rest = address.partition("://")
    bucket = rest.partition("/")[0]
    given = tuple(sorted((k, v) for k, v in os.environ.items() if k.startswith(("AWS_", "GOOGLE_", "AZURE_"))))
    return Store(f"{scheme}://{bucket}", _system(scheme, bucket, given))


def here(store: Store, entry: Entry, downloads: Path, progress: Progress | None = None) -> tuple[Path, str, bool]:
    """Where the object's bytes lie below ``downloads``, their SHA-256, and whether they had to be fetched.

    An object that changed since it was fetched is fetched again.
    """
    path = downloads / "objects" / fingerprint(entry.address)
    record = path.with_name(f"{path.name}.json")
    with locked(path):  # whoever waited here finds it fetched
        known = read_record(record, Fetched)
        if known is not None and _is_same(store, entry, known) and is_whole(path, known.sha256):
            return path, known.sha256, False
        tag = store.fetch(entry.address, path, progress=progress)
        settled = path.stat().st_mtime_ns - entry.mtime > _SETTLED
        made = Fetched(address=entry.address, version=entry.version, tag=tag, sha256=file_digest(path), settled=settled)
        write_record(record, made)
        return path, made.sha256, True


def _is_same(store: Store, entry: Entry, known: Fetched) -> bool:
    return known.version == entry.version and (known.settled or store.tag(entry.address) == known.tag)


def _tag(remote: Any) -> str:
    metadata = remote.metadata()
    tag = metadata.get("ETag") or metadata.get("etag") or metadata.get("Last-Modified") or b""
    return f"{tag.decode() if isinstance(tag, bytes) else tag} {remote.size()}"


def _unavailable(address: str, why: str) -> str:
    variables = {"s3": "AWS_…", "gs": "GOOGLE_…", "az": "AZURE_STORAGE_…"}[address.partition("://")[0]]
    return (
        f"{address} cannot be had: {_plain(why)}. Ways out: mend the address in the source, set the store's "
        f"credentials and endpoint ({variables}) in the environment, or use the simulator (--simulate) where the "
        f"pipeline has one."
    )


def _plain(told: str) -> str:
    """What a store's library says, without what only its makers can read."""
    return re.sub(r"^\[Errno \d+\] |\s*\(Request ID: [^)]*\)|\s*error_info=.*", "", told).strip().rstrip(".")


@lru_cache(maxsize=8)
def _system(scheme: str, bucket: str, given: tuple[tuple[str, str], ...]) -> Any:
    """The file system; ``given`` are the environment's variables: others make another one."""
    environment = dict(given)
    if scheme == "s3":
        return _s3(bucket, environment)
    if scheme == "gs":
        from pyarrow.fs import GcsFileSystem

        own = Path("~/.config/gcloud/application_default_credentials.json").expanduser()
        anonymous = "GOOGLE_APPLICATION_CREDENTIALS" not in environment and not own.exists()
        return GcsFileSystem(anonymous=anonymous, retry_time_limit=_RETRIED)  # its own limit is 15 minutes
    from pyarrow.fs import AzureFileSystem

    account = environment.get("AZURE_STORAGE_ACCOUNT")
    if not account:
        raise SourceUnavailable(_unavailable(f"az://{bucket}", "AZURE_STORAGE_ACCOUNT is not set"))
    key, token = environment.get("AZURE_STORAGE_KEY"), environment.get("AZURE_STORAGE_SAS_TOKEN")
    return AzureFileSystem(account, account_key=key, sas_token=None if key else token)


def _s3(bucket: str, environment: dict[str, str]) -> Any:
    from pyarrow.fs import S3FileSystem, resolve_s3_region

    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
    if region is None and endpoint is None:
        try:
            region = resolve_s3_region(bucket)
        except OSError as error:
            raise SourceUnavailable(_unavailable(f"s3://{bucket}", str(error))) from error
    own = any(Path("~/.aws", name).expanduser().exists() for name in ("credentials", "config"))
    anonymous = not own and not any(environment.get(name) for name in _SECRETS)
    return S3FileSystem(
        anonymous=anonymous, region=region or "us-east-1", endpoint_override=endpoint, connect_timeout=5
    )
