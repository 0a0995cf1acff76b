"""What a person is asked where a file does not say it, and what is done when nobody can be asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ferroflow.core.errors import UsageError


@dataclass(frozen=True)
class Question:
    """A question with its answers: ``safe`` is taken when nobody objects, ``option`` answers it beforehand."""

    text: str
    option: str
    choices: tuple[str, ...]
    safe: str | None = None  # None: only a person can know


Ask = Callable[[Question], str]
"""Gives one of a question's choices."""


def safe_choice(question: Question) -> str:
    """The safe answer.

    Raises:
        UsageError: there is none.
    """
    if question.safe is None:
        raise UsageError(f"{question.text} Nobody can be asked: give {question.option}.{_known(question)}")
    return question.safe


def nobody(question: Question) -> str:
    """No answer, as there is no terminal to ask at.

    Raises:
        UsageError: always; it names the option that answers the question.
    """
    safe = "" if question.safe is None else f", or --yes for {_short(question.safe)!r}"
    raise UsageError(f"{question.text} Nobody can be asked: give {question.option}{safe}.{_known(question)}")


def _known(question: Question) -> str:
    more = ", …" if len(question.choices) > 30 else ""
    return f" Choices: {', '.join(question.choices[:30])}{more}." if question.choices else ""


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}…"
