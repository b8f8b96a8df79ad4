"""The exceptions that reach a user. Any other exception is a bug and keeps its traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from pydantic import ValidationError

from goalposts.benchmark.plain import short


class GoalpostsError(Exception):
    """Base of every error that Goalposts raises on purpose.

    Args:
        message: one line.
        hook: name of the mitigation's hook at fault, if there is one and it is known.
    """

    def __init__(self, message: str = "", *, hook: str | None = None) -> None:
        super().__init__(message)
        self.hook = hook


class RequestError(GoalpostsError):
    """The request is wrong. The message says what was wrong, the value, and how to fix it. Exit code 2."""


class MissingPackageError(RequestError):
    """The request needs a package that is not installed here."""


class UndeclaredKnowledgeError(GoalpostsError):
    """A mitigation asked its context for something that its ``uses`` does not declare."""


class HookError(GoalpostsError):
    """A mitigation's hook raised or returned something that the contract forbids."""


class NonFiniteError(GoalpostsError):
    """A loss or an observation held NaN or infinity. The message names the tensor and the step.

    Args:
        message: one line.
        what: the name of the tensor.
        hook: see :class:`GoalpostsError`.
    """

    def __init__(self, message: str = "", *, what: str | None = None, hook: str | None = None) -> None:
        super().__init__(message, hook=hook)
        self.what = what


class CorruptFileError(GoalpostsError):
    """A record or checkpoint does not match its checksum or its schema."""


def first_problem(error: Exception) -> str:
    """Return what is wrong with unreadable data. If a schema reports many problems, return the first."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> RequestError:
    """Return the error for a name that is not registered. It suggests the nearest registered name."""
    choices = sorted(known)
    near = difflib.get_close_matches(short(name), choices, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(choices)}."
    return RequestError(f"Unknown {kind} {short(name)!r}. {hint}")
