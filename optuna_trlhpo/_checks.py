"""Checks of arguments. Each error message is one sentence that gives the value and what is allowed."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

import numpy as np

_P = ParamSpec("_P")
_R = TypeVar("_R")


def is_integer(value: Any, *, least: int = 0) -> bool:
    """Return whether ``value`` is a Python or NumPy integer of at least ``least``; booleans do not count.

    Examples:
        >>> is_integer(3), is_integer(True), is_integer(2.0), is_integer(0, least=1)
        (True, False, False, False)
    """
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) >= least


def is_number(value: Any) -> bool:
    """Return whether ``value`` is a real number of Python or NumPy; booleans do not count."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def plain(value: Any) -> Any:
    """Return a number of NumPy as one of Python, and anything else unchanged.

    Examples:
        >>> plain(np.uint8(3)), plain(None)
        (3, None)
    """
    return value.item() if isinstance(value, np.generic) else value


def check_integer(name: str, value: Any, *, least: int = 0, optional: bool = False) -> None:
    """Raise a ``ValueError`` unless ``value`` is an integer of at least ``least``, or None if optional."""
    if not (optional and value is None) and not is_integer(value, least=least):
        hint = ", or None" if optional else ""
        raise ValueError(f"{name} is {value!r}; it must be an integer of at least {least}{hint}")


def check_positive_integer(name: str, value: Any) -> None:
    """Raise a ``ValueError`` unless ``value`` is a positive integer."""
    if not is_integer(value, least=1):
        raise ValueError(f"{name} is {value!r}; it must be a positive integer")


def check_positive_number(name: str, value: Any) -> None:
    """Raise a ``ValueError`` unless ``value`` is a positive, finite number."""
    if not is_number(value) or not 0 < value < math.inf:
        raise ValueError(f"{name} is {value!r}; it must be a positive number")


def check_share(name: str, value: Any) -> None:
    """Raise a ``ValueError`` unless ``value`` is None or a number from 0 to 1."""
    if value is not None and not (is_number(value) and 0 <= value <= 1):
        raise ValueError(f"{name} is {value!r}; it must be between 0 and 1, or None")


def named_only(advice: Mapping[str, str]) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Decorate a method that has keyword arguments only: a wrong call lists the arguments that it has.

    This helps users who replace another sampler by one line and leave its arguments in place.

    Args:
        advice: What to do instead of an argument that other samplers have, by the argument's name.

    Raises:
        TypeError: When the method is called with an unknown or a positional argument.

    Examples:
        >>> class Sampler:
        ...     @named_only({"gamma": "it has no quantile"})
        ...     def __init__(self, *, seed=None): ...
        >>> Sampler(gamma=0.1)
        Traceback (most recent call last):
        TypeError: Sampler has no argument 'gamma': it has no quantile; its arguments are seed
    """

    def decorate(method: Callable[_P, _R]) -> Callable[_P, _R]:
        known = [p.name for p in inspect.signature(method).parameters.values() if p.kind == p.KEYWORD_ONLY]
        owner = method.__qualname__.rpartition("<locals>.")[2].removesuffix(".__init__")

        @functools.wraps(method)
        def checked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            names = ", ".join(known)
            if len(args) > 1:  # the first is self
                raise TypeError(
                    f"{owner} takes keyword arguments only, but got {args[1]!r}; its arguments are {names}"
                )
            for name in kwargs:
                if name not in known:
                    instead = f": {advice[name]}" if name in advice else ""
                    raise TypeError(f"{owner} has no argument {name!r}{instead}; its arguments are {names}")
            return method(*args, **kwargs)

        return checked

    return decorate
