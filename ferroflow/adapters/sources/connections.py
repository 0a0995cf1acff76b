"""Addresses of servers: out of the environment where the description says so, and never shown with a password."""

from __future__ import annotations

import os
from contextlib import suppress
from urllib.parse import unquote, urlsplit

from ferroflow.core.errors import SettingsError

_ENVIRONMENT = "env:"


def address_of(url: str) -> str:
    """The address itself; that of ``env:NAME`` is in the environment variable of that name.

    Raises:
        SettingsError: there is no such variable.
    """
    if not url.startswith(_ENVIRONMENT):
        return url
    name = url.removeprefix(_ENVIRONMENT)
    address = os.environ.get(name, "")
    if not address:
        raise SettingsError(
            f"The source's address is {url!r}, but the environment variable {name} is not set. Set it to an address "
            f"such as postgresql://user:password@host/database."
        )
    return address


def shown(address: str) -> str:
    """An address of any kind as it may be shown: without user name, password and query."""
    if address.startswith(_ENVIRONMENT):
        return address
    scheme, mark, rest = address.partition("://")
    place, slash, path = rest.partition("?")[0].partition("#")[0].partition("/")
    return f"{scheme}{mark}{place.rpartition('@')[2]}{slash}{path}"


def without_secrets(text: object, address: str) -> str:
    """One line of what a library says, with the address's secrets masked."""
    line = " ".join(str(text).split())
    for secret in sorted(_secrets(address), key=len, reverse=True):
        line = line.replace(secret, "***")
    return line


def _secrets(address: str) -> set[str]:
    """Password and query of an address, as written and as meant."""
    found = {address}
    with suppress(ValueError):
        parts = urlsplit(address)
        secret = parts.netloc.rsplit("@", 1)[0].partition(":")[2] if "@" in parts.netloc else ""
        found |= {secret, unquote(secret), parts.query}
    return found - {""}
