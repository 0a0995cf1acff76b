"""Features as functions: a column is named as its function, and depends on what the function's arguments are named.

A function takes expressions and gives one, so it can be tested alone, with a few values. ``features`` ties functions
together; an argument that names another function of the set is that function's column, any other argument is a field
of the request.
This module is imported by the prediction service: Polars and the standard library only.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from types import FrameType, FunctionType
from typing import Any, overload

import polars as pl

from ferroflow.core.errors import SpecError
from ferroflow.core.features import RequestFeatures


@dataclass(frozen=True)
class Feature:
    """A function of columns. Called, it is that function; ``arguments`` are the columns it depends on."""

    function: Callable[..., Any]
    owner: str = ""
    arguments: tuple[str, ...] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "arguments", _arguments(self.function))

    def __call__(self, *given: Any, **named: Any) -> Any:
        """What the function gives."""
        return self.function(*given, **named)

    @property
    def name(self) -> str:
        """The column it makes."""
        return self.function.__name__

    @property
    def description(self) -> str:
        """The first line of its docstring."""
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    def evaluate(self, frame: pl.DataFrame) -> pl.Series:
        """The column for a frame that has all arguments as columns: for tests.

        Raises:
            SpecError: a column is missing, or the function gives no expression.
        """
        missing = [name for name in self.arguments if name not in frame.columns]
        if missing:
            raise SpecError(
                f"Feature {self.name!r} needs {', '.join(missing)}. The frame has: {', '.join(frame.columns)}."
            )
        return frame.select(expression_of(self, {}).alias(self.name)).to_series()


@overload
def feature(function: Callable[..., Any]) -> Feature: ...
@overload
def feature(*, owner: str) -> Callable[[Callable[..., Any]], Feature]: ...
def feature(
    function: Callable[..., Any] | None = None, *, owner: str = ""
) -> Feature | Callable[[Callable[..., Any]], Feature]:
    """Declare a function as a feature: ``@feature`` or ``@feature(owner="pricing")``.

    Raises:
        SpecError: an argument is no dependency (it has a default, or stands for many), or is named as the feature.
    """
    return (lambda declared: Feature(declared, owner)) if function is None else Feature(function, owner)


@dataclass(frozen=True)
class FeatureSet(RequestFeatures):
    """Request features that were written as functions."""

    parts: tuple[Feature, ...] = field(default=(), compare=False)
    """One for each column, with name, description and owner."""

    @property
    def fields(self) -> tuple[str, ...]:
        """The request fields that they need."""
        return tuple(dict.fromkeys(name for made in self.expressions() for name in made.meta.root_names()))

    def evaluate(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The features' columns for a frame of request fields: for tests."""
        return frame.select(self.expressions())


def features(name: str, *parts: Feature, intermediate: Sequence[Feature] = (), description: str = "") -> FeatureSet:
    """Tie functions to request features; ``intermediate`` functions are inlined where they are used, and no columns.

    Args:
        name: of the variable that holds the set; the prediction service imports it as ``module:name``.

    Raises:
        SpecError: two functions of one name, functions that need each other, a function that gives no expression.
    """
    made = inlined(name, [*intermediate, *parts])
    if not parts:
        raise SpecError(f"Features {name!r} have no function. Give at least one.")
    outputs = [made[part.name].alias(part.name) for part in parts]

    def expressions() -> Sequence[pl.Expr]:
        return outputs

    return FeatureSet(placed(expressions, name, description, sys._getframe(1)), parts)


def inlined(owner: str, parts: Sequence[Feature]) -> dict[str, pl.Expr]:
    """Function's name -> its expression over columns that no function makes.

    Raises:
        SpecError: see ``features``.
    """
    by_name = unique(owner, parts)
    needs = {part.name: [name for name in part.arguments if name in by_name] for part in parts}
    try:
        order = list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        raise SpecError(f"Features {owner!r} need each other: {' -> '.join(reversed(error.args[1]))}.") from error
    made: dict[str, pl.Expr] = {}
    for name in order:
        made[name] = expression_of(by_name[name], made)
    return made


def unique(owner: str, parts: Iterable[Feature]) -> dict[str, Feature]:
    """Name -> feature.

    Raises:
        SpecError: two have one name, or one is no feature.
    """
    found: dict[str, Feature] = {}
    for part in parts:
        if not isinstance(part, Feature):
            raise SpecError(
                f"Features {owner!r} hold {part!r}, which is no feature. Declare the function with @feature."
            )
        if part.name in found:
            raise SpecError(f"Features {owner!r} have two functions named {part.name!r}. Rename one.")
        found[part.name] = part
    return found


def expression_of(part: Feature, made: Mapping[str, pl.Expr]) -> pl.Expr:
    """The function's expression, over the expressions made so far and columns.

    Raises:
        SpecError: it gives something else, several columns, or reads a column that is none of its arguments.
    """
    result = part(*arguments_of(part, made))
    if not isinstance(result, pl.Expr):
        raise SpecError(f"Feature {part.name!r} gives {type(result).__name__}, not a Polars expression.")
    if result.meta.has_multiple_outputs():
        raise SpecError(f"Feature {part.name!r} gives several columns; a function makes one.")
    refuse_hidden(part, [result], made)
    return result


def arguments_of(part: Feature, made: Mapping[str, pl.Expr]) -> list[pl.Expr]:
    """What the function is called with."""
    return [made[name] if name in made else pl.col(name) for name in part.arguments]


def refuse_hidden(
    part: Feature, results: Iterable[pl.Expr], made: Mapping[str, pl.Expr], allowed: Iterable[str] = ()
) -> None:
    """See that the function reads nothing but its arguments, and columns that are ``allowed`` beside them.

    Raises:
        SpecError: it names a column by itself: a dependency that nobody sees.
    """
    seen = {name for argument in arguments_of(part, made) for name in argument.meta.root_names()}
    hidden = {name for result in results for name in result.meta.root_names()} - seen - set(allowed)
    if hidden:
        raise SpecError(
            f"Feature {part.name!r} reads {', '.join(sorted(hidden))}, which is none of its arguments. "
            f"Its dependencies are its arguments: {', '.join(part.arguments) or 'none'}."
        )


def placed(function: Callable[..., Any], name: str, description: str, where: FrameType) -> Callable[..., Any]:
    """The function as if it were written at ``where``, under that name.

    Whoever asks which module and file a feature comes from (imports, fingerprints of code) is led to the pipeline's
    own file, and a traceback shows the line of the definition instead of one in here.

    Raises:
        SpecError: the name is no Python name.
    """
    if not name.isidentifier():
        raise SpecError(f"Features {name!r}: give the name of the variable that holds them.")
    if not isinstance(function, FunctionType):
        raise TypeError(f"{function!r} is no Python function")
    code = function.__code__.replace(
        co_filename=where.f_code.co_filename, co_firstlineno=where.f_lineno - 1, co_name=name, co_qualname=name
    )
    moved = FunctionType(code, function.__globals__, name, function.__defaults__, function.__closure__)
    moved.__module__ = where.f_globals.get("__name__", "__main__")
    moved.__doc__ = description
    return moved


def _arguments(function: Callable[..., Any]) -> tuple[str, ...]:
    named = getattr(function, "__name__", repr(function))
    if not named.isidentifier():
        raise SpecError(f"Feature {named}: a feature is a function with a name. Write it with def.")
    parameters = inspect.signature(function).parameters
    odd = [
        name
        for name, found in parameters.items()
        if found.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD or found.default is not inspect.Parameter.empty
    ]
    if odd:
        raise SpecError(
            f"Feature {named!r}: argument {', '.join(odd)} is no dependency. Arguments are names of columns, "
            "without default, * or **."
        )
    if named in parameters:
        raise SpecError(f"Feature {named!r} is named as its own argument. Rename the function.")
    return tuple(parameters)
