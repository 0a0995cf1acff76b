"""Files by a pattern: what a ``Glob`` matches at this moment, on this machine or in an object store."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from ferroflow.adapters.settings import Settings
from ferroflow.adapters.sources.download import Progress
from ferroflow.adapters.sources.locate import Located, in_place, mirror_folder
from ferroflow.adapters.sources.objects import Entry, here, is_object, store_of
from ferroflow.core.errors import SpecError
from ferroflow.core.spec import Glob

_HIVE = re.compile(r"([^=]+)=(.*)")
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class Match:
    """One file: ``name`` is its path below the part of the pattern that has no wildcard.

    ``hive`` holds the columns that its folders' names give. ``origin`` as in ``Part``.
    """

    name: str
    address: str
    origin: str
    hive: dict[str, str | None] = field(default_factory=dict)
    entry: Entry | None = None  # of an object store


def matched(wanted: Glob, settings: Settings) -> list[Match]:
    """All files that match now, by name; those below the mirror go before those below the current folder.

    Raises:
        SourceUnavailable: the mirror is no folder, or the object store does not answer.
        SpecError: the pattern is an address whose server cannot list files.
    """
    if is_object(wanted.pattern):
        return _objects(wanted)
    if "://" in wanted.pattern:
        raise SpecError(
            f"Glob(pattern={wanted.pattern!r}): only folders and s3://, gs://, az:// can be listed. Name the files one "
            f"by one in FixedFiles(...)."
        )
    pattern = Path(wanted.pattern).expanduser()
    if pattern.is_absolute():
        return _below(wanted, pattern, Path("/"), "local")
    mirror = mirror_folder(settings)
    found = _below(wanted, pattern, mirror, "mirror") if mirror is not None else []
    return found or _below(wanted, pattern, Path.cwd(), "local")


def looked_in(wanted: Glob, settings: Settings) -> list[str]:
    """The folders where ``matched`` looks: the part of the pattern without a wildcard, below the mirror and here."""
    if is_object(wanted.pattern):
        return [_split(wanted.pattern)[0]]
    base = Path(_split(Path(wanted.pattern).expanduser().as_posix())[0] or ("/" if wanted.pattern[:1] == "/" else "."))
    roots = [root for root in (mirror_folder(settings), Path.cwd()) if root is not None]
    return list(dict.fromkeys((root / base).as_posix() for root in roots))


def located(match: Match, downloads: Path, progress: Progress | None = None) -> Located:
    """The match as a file on this machine; an object is fetched, again when it changed since the last time."""
    if match.entry is None:
        return in_place(Path(match.address), match.origin)
    path, sha256, fetched = here(store_of(match.address), match.entry, downloads, progress)
    return Located(path, "url" if fetched else "cache", match.address, sha256)


def _below(wanted: Glob, pattern: Path, root: Path, origin: str) -> list[Match]:
    base, rest = _split(pattern.as_posix())
    folder = root / base
    # A bracket is a letter of the name; a lone ** at the end means files, not only folders.
    asked = re.sub(r"(^|/)\*\*$", r"\1**/*", rest.replace("[", "[[]"))
    names = {path.relative_to(folder).as_posix() for path in folder.glob(asked) if path.is_file()}
    return [
        Match(name, str(folder / name), origin, _hive(wanted, f"{base}/{name}"))
        for name in sorted(names)
        if not _is_hidden(name)
    ]


def _objects(wanted: Glob) -> list[Match]:
    store = store_of(wanted.pattern)
    base, rest = _split(wanted.pattern.removeprefix(f"{store.bucket}/"))
    fits = _regex(rest)
    found = []
    for entry in store.listed(base, deep="/" in rest or rest == "**"):
        name = entry.address.removeprefix(f"{store.bucket}/").removeprefix(f"{base}/" if base else "")
        if fits.fullmatch(name) and not _is_hidden(name):
            found.append(Match(name, entry.address, "url", _hive(wanted, f"{base}/{name}"), entry))
    return found


def _split(pattern: str) -> tuple[str, str]:
    """The leading folders without a wildcard, and the rest."""
    parts = pattern.split("/")
    wild = next((place for place, part in enumerate(parts) if "*" in part or "?" in part), len(parts) - 1)
    return "/".join(parts[: min(wild, len(parts) - 1)]), "/".join(parts[min(wild, len(parts) - 1) :])


def _regex(rest: str) -> re.Pattern[str]:
    *folders, last = rest.split("/")
    text = "".join("(?:[^/]+/)*" if part == "**" else f"{_spelt(part)}/" for part in folders)
    return re.compile(text + (".*" if last == "**" else _spelt(last)))


def _spelt(part: str) -> str:
    wild = {"*": "[^/]*", "?": "[^/]"}
    return "".join(wild.get(letter) or re.escape(letter) for letter in part)


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _hive(wanted: Glob, path: str) -> dict[str, str | None]:
    if not wanted.hive:
        return {}
    pairs = [found for part in path.split("/")[:-1] if (found := _HIVE.fullmatch(part))]
    return {unquote(pair[1]): None if pair[2] == _HIVE_NULL else unquote(pair[2]) for pair in pairs}
