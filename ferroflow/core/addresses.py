"""Addresses as they may be shown. Imported by the service: the standard library only."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit


def public(address: str) -> str:
    """An address as it may be shown: without user name, password and query."""
    parts = urlsplit(address)
    if not parts.scheme.startswith("http"):
        return address
    host = parts.netloc.rsplit("@", 1)[-1]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))
