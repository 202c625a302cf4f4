"""A client of typed.python 1.2.0. `quadriga bindgen` wrote it: do not edit.

The manifest must ask for the calls: [permissions] call = ["typed.python/*"]
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict

from quadriga import host

EXTENSION = "typed.python"

_LEFT_OUT: Any = object()


class Person(TypedDict):
    """Someone."""
    name: str
    tags: list[str]
    friends: list[Person]
    age: NotRequired[int | None]


class PersonResult(TypedDict):
    """Someone."""
    name: str
    tags: list[str]
    friends: list[PersonResult]
    age: int | None


class Measured(TypedDict):
    size: int
    at: datetime
    counts: dict[str, int]


def greet(person: Person, times: int = _LEFT_OUT) -> str:
    """Greets someone, perhaps more than once."""
    return host.call(EXTENSION, "greet", *_given(person, times))


def older(person: Person, years: int) -> PersonResult:
    """Returns someone who is older, and the friends with them."""
    return host.call(EXTENSION, "older", *_given(person, years))


def measure(data: bytes, at: datetime) -> Measured:
    """Tells the size of data, and when it came."""
    return host.call(EXTENSION, "measure", *_given(data, at))


def lie() -> int:
    """Returns something else than it says."""
    return host.call(EXTENSION, "lie")


def _given(*args: Any) -> list[Any]:
    """The arguments that a call passes: those at the end that were left out are not among them."""
    given = list(args)
    while given and given[-1] is _LEFT_OUT:
        given.pop()
    return [None if one is _LEFT_OUT else one for one in given]
