"""Every error a user can meet.

    FerroflowError (1)
    ├── UsageError (2)
    │   ├── SpecError            a pipeline's description is wrong
    │   │   └── LeakageError     a feature tells the target
    │   ├── UnknownPipeline      no folder of that name
    │   ├── SettingsError        a setting is wrong
    │   └── NotFound             no such snapshot, model, version, prediction
    ├── DataError (3)
    │   ├── SourceUnavailable    the file can be had from nowhere
    │   ├── UnreadableFile       the file is there, its bytes make no table
    │   ├── EmptySource          no row at all
    │   ├── SchemaError          a column is missing, or a whole column has the wrong type
    │   ├── BatchRefused         too many rows refused, or a rule about all rows failed: nothing is trained on them
    │   └── RowsLost             rows in are not rows accepted + rows quarantined
    ├── ModelError (4)           no candidate trained, an export differs from its model
    ├── RegistryError (5)        the registry refuses or is away
    │   └── VersionUnusable      a version does not load, or answers otherwise than its package
    ├── ServiceError (6)         a server did not start, or did not answer
    └── PromiseBroken (7)        the demonstration ran, and one of its promises failed

The number is the exit code of the command line. A message names the thing, the value and the way out.
"""

from __future__ import annotations

from typing import ClassVar


class FerroflowError(Exception):
    """The root: anything below is told to the user in one line, without a traceback."""

    exit_code: ClassVar[int] = 1


class UsageError(FerroflowError):
    """What was asked for cannot be."""

    exit_code = 2


class SpecError(UsageError):
    """A pipeline's description contradicts itself or its data."""


class LeakageError(SpecError):
    """A feature reproduces the target, or was not known at prediction time."""


class UnknownPipeline(UsageError):
    """No pipeline folder of that name."""


class SettingsError(UsageError):
    """A setting has no meaning."""


class NotFound(UsageError):
    """No snapshot, model, version or prediction of that name."""


class DataError(FerroflowError):
    """The data cannot be used."""

    exit_code = 3


class SourceUnavailable(DataError):
    """A source file can be had neither from its mirror nor from its address."""


class UnreadableFile(DataError):
    """A file's bytes make no table."""


class EmptySource(DataError):
    """A source without a single row."""


class SchemaError(DataError):
    """A column is missing, or a whole column has a type that the schema cannot take."""


class BatchRefused(DataError):
    """The rows together are too bad to train on."""


class RowsLost(DataError):
    """Rows in are not rows accepted plus rows quarantined."""


class ModelError(FerroflowError):
    """No candidate trained, or an exported graph differs from its model."""

    exit_code = 4


class RegistryError(FerroflowError):
    """The registry refuses or is away, or a registered version does not load."""

    exit_code = 5


class VersionUnusable(RegistryError):
    """A registered version does not load, or answers otherwise than its package."""


class ServiceError(FerroflowError):
    """A server did not start or did not answer."""

    exit_code = 6


class PromiseBroken(FerroflowError):
    """The demonstration ran to its end, and one of its promises failed."""

    exit_code = 7
