"""The start of an extension that does nothing and is gone afterwards. What it writes to, the process
has to itself from then on, and need not copy when an extension is waited for.
"""

import json.scanner
import os
import sys
import types

import _quadriga_guest as guest

_SAMPLE = """
from dataclasses import dataclass
from typing import Any

from quadriga import host


@dataclass
class Point:
    \"""A point.\"""

    x: int
    y: float = 0.0


def greet(name: str, times: int = 1, *rest: Any) -> str:
    \"""Greets somebody.\"""
    host.log.info(f"greeting {name}")
    return ", ".join([name] * times)


def move(points: list[Point], by: dict[str, float] | None = None) -> list[Point]:
    return [Point(point.x + 1, point.y) for point in points]


async def wait(value: Any) -> Any:
    return await host.call_async("a.b", "c", value)


def count(to: int):
    yield from range(to)
"""


class _Host:
    """In the place of the host's functions."""

    class Timestamp:
        pass

    def __getattr__(self, name):
        return lambda *arguments: None


def rehearse(sdk):
    # A small module that is there anyway.
    entry = json.scanner.__file__
    space = guest.open_space("quadriga.rehearsal", os.path.dirname(entry), entry, _Host(), sdk)
    try:
        guest.compile_entry(space, entry)
        guest.load(space, entry)
        module = types.ModuleType(space.prefix + "sample")
        vars(module)["__builtins__"] = space.builtins
        sys.modules[module.__name__] = module
        exec(compile(_SAMPLE, "<sample>", "exec", dont_inherit=True), vars(module))
        guest.describe(space, module)
    finally:
        guest.close_space(space)
