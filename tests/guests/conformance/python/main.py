"""The conformance guest: what each case of tests/conformance/values.toml is in Python."""

import struct
from datetime import datetime
from typing import Any

from literals import LITERALS
from quadriga import host


def make(name: str) -> Any:
    return LITERALS[name]()


def matches(name: str, value: Any) -> bool:
    """Whether a value is the literal, in value and in type."""
    return _same(LITERALS[name](), value)


def echo(value: Any) -> Any:
    return value


def relay(extension: str, method: str, value: Any) -> Any:
    return host.call(extension, method, value)


def send(extension: str, method: str, name: str) -> Any:
    """Passes the literal of a case to another extension."""
    return host.call(extension, method, LITERALS[name]())


def _same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return struct.pack(">d", a) == struct.pack(">d", b)
    if isinstance(a, datetime):
        return a == b and a.utcoffset() == b.utcoffset()
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict):
        return _same(list(a.items()), list(b.items()))
    return a == b
