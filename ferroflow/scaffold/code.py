"""Python text as the formatter would lay it out: literals, names, and calls broken where a line is full."""

from __future__ import annotations

import keyword
import re
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

WIDTH = 120
_TAKEN = ("pa", "pl", "Field", "Config", "build_schema_", "empty", "example", "from_json", "from_yaml", "get_metadata",
          "pydantic_validate", "strategy", "to_json", "to_json_schema", "to_schema", "to_yaml", "validate")  # fmt: skip
"""Names that a class of columns uses itself."""


@dataclass(frozen=True)
class Group:
    """Items between brackets; ``head`` ends with the opening one. Items of a call may share a line of their own."""

    head: str
    items: tuple[tuple[str, Node], ...]
    tail: str
    is_call: bool


Node = str | Group


def call(name: str, *items: Node, **named: Node) -> Group:
    """``name(item, key=value)``."""
    placed = (*(("", item) for item in items), *((f"{key}=", value) for key, value in named.items()))
    return Group(f"{name}(", placed, ")", True)


def several(items: Iterable[Node], brackets: str = "()") -> Group:
    """A tuple, or a list with ``[]``."""
    return Group(brackets[0], tuple(("", item) for item in items), brackets[1], False)


def laid(prefix: str, node: Node, suffix: str = "", indent: int = 0) -> list[str]:
    """Lines of ``prefix node suffix``, none wider than 120 characters where it can be broken."""
    pad = " " * indent
    line = pad + prefix + _flat(node) + suffix
    if isinstance(node, str) or len(line) <= WIDTH:
        return [line]
    inner = " " * (indent + 4) + ", ".join(first + _flat(item) for first, item in node.items)
    begun, ended = pad + prefix + node.head, pad + node.tail + suffix
    if node.is_call and len(inner) <= WIDTH:
        return [begun, inner, ended]
    body = [line for first, item in node.items for line in laid(first, item, ",", indent + 4)]
    return [begun, *body, ended]


def _flat(node: Node) -> str:
    if isinstance(node, str):
        return node
    inner = ", ".join(prefix + _flat(item) for prefix, item in node.items)
    alone = "," if len(node.items) == 1 and node.head == "(" else ""
    return f"{node.head}{inner}{alone}{node.tail}"


def literal(value: object) -> str:
    """A text, number or truth as code; large whole numbers with underscores."""
    if isinstance(value, str):
        text = repr(value)
        if '"' in value and "'" not in value:
            return text
        inner = text[1:-1].replace("\\'", "'")
        return f'"{inner}"' if '"' not in value else '"' + inner.replace('"', '\\"') + '"'
    if isinstance(value, list | tuple):
        inner = ", ".join(map(literal, value))
        return f"[{inner}]"
    return f"{value:_}" if isinstance(value, int) and not isinstance(value, bool) else repr(value)


def comment(text: str, indent: int) -> list[str]:
    """Lines of a comment."""
    pad = " " * indent
    return textwrap.wrap(text, WIDTH, initial_indent=f"{pad}# ", subsequent_indent=f"{pad}# ", break_on_hyphens=False)


def said(name: str) -> str:
    """A column's name inside a sentence or a comment."""
    return name if name.isprintable() and name.strip() == name and name else repr(name)


def identifiers(names: Sequence[str]) -> dict[str, str]:
    """For each column a name that a class of columns can have; its own where that will do."""
    made: dict[str, str] = {name: name for name in names if _will_do(name)}
    for name in names:
        if name in made:
            continue
        plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
        base = re.sub(r"\W+", "_", plain).strip("_") or "column"
        base = f"column_{base}" if base[0].isdigit() else base
        base = base if _will_do(base) else f"{base}_"
        free = (base, *(f"{base}_{number}" for number in range(2, len(names) + 2)))
        made[name] = next(one for one in free if one not in made.values())
    return made


def _will_do(name: str) -> bool:
    plain = name.isidentifier() and unicodedata.normalize("NFKC", name) == name
    return plain and not name.startswith("_") and not keyword.iskeyword(name) and name not in _TAKEN
