"""A guest with a contract."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import TypedDict


@dataclasses.dataclass
class Person:
    """Someone."""

    name: str
    tags: list[str]
    friends: list[Person]
    age: int | None = None


class Measured(TypedDict):
    size: int
    at: datetime
    counts: dict[str, int]


def greet(person: Person, times: int = 1) -> str:
    """Greets someone, perhaps more than once."""
    return "; ".join([f"Hello, {person.name}"] * times)


def older(person: Person, years: int) -> Person:
    """Returns someone who is older, and the friends with them."""
    friends = [older(friend, years) for friend in person.friends]
    return dataclasses.replace(person, age=(person.age or 0) + years, friends=friends)


def measure(data: bytes, at: datetime) -> Measured:
    """Tells the size of data, and when it came."""
    return {"size": len(data), "at": at, "counts": {str(byte): data.count(byte) for byte in set(data)}}


def lie() -> int:
    """Returns something else than it says."""
    return "no number"
