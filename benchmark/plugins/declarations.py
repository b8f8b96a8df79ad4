"""Checks a mitigation's declarations before any of its hooks run."""

from __future__ import annotations

import json
from collections.abc import Mapping

from goalposts.benchmark.errors import RequestError
from goalposts.benchmark.plain import fault_of, one_line
from goalposts.benchmark.plugins.knowledge import Knowledge
from goalposts.benchmark.plugins.mitigation import Mitigation


def check_mitigation(cls: object, source: str) -> type[Mitigation]:
    """Return ``cls`` if it is a mitigation with consistent declarations.

    Raises:
        RequestError: it is not a subclass of ``Mitigation``, or it declares something impossible.
    """
    if not (isinstance(cls, type) and issubclass(cls, Mitigation)):
        raise RequestError(f"{source} is not a mitigation: {cls!r} must be a subclass of goalposts.Mitigation.")
    try:
        cls.uses = frozenset(Knowledge(flag) for flag in cls.uses)
    except (TypeError, ValueError) as error:
        known = ", ".join(flag.value for flag in Knowledge)
        raise RequestError(f"{source} declares unknown knowledge: {error}. Known flags: {known}.") from error
    for field in ("version", "author", "licence", "paper"):
        if not isinstance(getattr(cls, field), str):
            raise RequestError(f"{source} has {field} {getattr(cls, field)!r}; use a string.")
        if (fault := fault_of(getattr(cls, field))) is not None:
            raise RequestError(f"{source} has as its {field} {fault}; shorten it, or take them out.")
    if cls.fixed_alpha is not None:
        if not isinstance(cls.fixed_alpha, int | float):
            raise RequestError(f"{source} has fixed_alpha {cls.fixed_alpha!r}; give a number in [0, 1].")
        if not 0.0 <= cls.fixed_alpha <= 1.0:
            raise RequestError(f"{source} has fixed_alpha {cls.fixed_alpha!r}; give a number in [0, 1].")
        if Knowledge.LEVEL_GENERATOR not in cls.uses:
            raise RequestError(f"{source} fixes alpha, which needs 'level_generator' in its 'uses'.")
    try:
        cls()
    except Exception as error:
        problem = f"{type(error).__name__}: {one_line(error)}"
        raise RequestError(f"{source} cannot be built without arguments ({problem}); give each a default.") from error
    for name, value in cls.defaults().items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise RequestError(f"{source} has {name}={value!r} by default; use a finite JSON value.") from error
        if (fault := fault_of(value)) is not None:
            raise RequestError(f"{source} has by default {name} with {fault}; use a plain JSON value.")
    _check_search_space(cls, source)
    return cls


def _check_search_space(cls: type[Mitigation], source: str) -> None:
    defaults = cls.defaults()
    if not isinstance(cls.search_space, Mapping):
        raise RequestError(f"{source} has search_space {cls.search_space!r}; use a dict keyed by hyperparameter.")
    for name, where in cls.search_space.items():
        if not isinstance(where, Mapping):
            raise RequestError(f"{source} searches for {name!r} in {where!r}; give a dict with 'low' and 'high'.")
        if name not in defaults:
            raise RequestError(f"{source} searches for {name!r}, which is not one of its hyperparameters; remove it.")
        given, default = dict(where), defaults[name]
        choices, low, high, log = (given.pop(key, None) for key in ("choices", "low", "high", "log"))
        if choices is not None:
            fits = not given and low is high is log is None and isinstance(choices, list | tuple) and default in choices
        else:
            numbers = all(isinstance(value, int | float) for value in (low, high, default))
            fits = not given and numbers and low < high and low <= default <= high and (low > 0 or not log)
        if not fits:
            raise RequestError(
                f"{source} searches for {name!r} in {dict(where)!r}, and its default is {default!r}; give 'choices', "
                "or 'low' and 'high' (and 'log', above 0), with the default among them."
            )
