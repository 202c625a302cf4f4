"""Calls another extension through a client that bindgen wrote."""

from datetime import UTC, datetime
from typing import Any

from quadriga import QuadrigaError

import typed


def visit(name: str) -> list[Any]:
    """Calls every method of the typed guest, and tells what came of it."""
    friend: typed.Person = {"name": "Bob", "tags": ["friend"], "friends": [], "age": None}
    aged = typed.older({"name": name, "tags": [], "friends": [friend], "age": 36}, 1)
    measured = typed.measure(b"\x07\x07", datetime.fromtimestamp(1, UTC))
    try:
        refused = typed.lie()
    except QuadrigaError as error:
        refused = error.code
    return [
        typed.greet(friend),
        typed.greet(aged, 2),
        aged["age"],
        aged["friends"][0]["age"],
        measured["size"],
        measured["counts"]["7"],
        int(measured["at"].timestamp() * 1000),
        refused,
    ]
