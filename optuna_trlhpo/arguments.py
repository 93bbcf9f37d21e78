"""A sentence for arguments that a function does not have, where Python says only that one is unexpected.

Whoever changes one line of a pipeline carries over the arguments of another sampler.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_R = TypeVar("_R")


def named_only(advice: Mapping[str, str]) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Decorate a method of keyword arguments alone: it names what it does not have, and what it has.

    Args:
        advice: By the name of an argument that others have, what to do instead.

    Raises:
        TypeError: When the method is called with an argument that it does not have, or without its name.

    Example:
        >>> class Sampler:
        ...     @named_only({"gamma": "it has no quantile"})
        ...     def __init__(self, *, seed=None): ...
        >>> Sampler(gamma=0.1)
        Traceback (most recent call last):
        TypeError: Sampler has no argument 'gamma': it has no quantile; its arguments are seed
    """

    def decorate(method: Callable[_P, _R]) -> Callable[_P, _R]:
        known = [p.name for p in inspect.signature(method).parameters.values() if p.kind == p.KEYWORD_ONLY]
        whose = method.__qualname__.rpartition("<locals>.")[2].removesuffix(".__init__")

        @functools.wraps(method)
        def checked(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            names = ", ".join(known)
            if len(args) > 1:  # the first is self
                raise TypeError(
                    f"{whose} has {args[1]!r} without a name; its arguments, all by name, are {names}"
                )
            for name in kwargs:
                if name not in known:
                    instead = f": {advice[name]}" if name in advice else ""
                    raise TypeError(f"{whose} has no argument {name!r}{instead}; its arguments are {names}")
            return method(*args, **kwargs)

        return checked

    return decorate
