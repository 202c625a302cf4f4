"""The tests' guest that has its host run programs."""

from typing import Any

from quadriga import QuadrigaError, host


def run(
    program: str,
    args: list[str],
    stdin: str | None = None,
    env: dict[str, str] | None = None,
    timeout: float | None = None,
    folder: str | None = None,
) -> list[Any]:
    """Has a program run, and says how it ended."""
    ended = host.process.run(program, args, stdin=stdin, env=env, timeout=timeout, folder=folder)
    return [ended["status"], ended["signal"], ended["stdout"], ended["stderr"]]


def caught(program: str) -> list[str]:
    """What code that catches sees of a program that it may not have run."""
    try:
        host.process.run(program)
    except QuadrigaError as error:
        return [error.code, error.message]
    return []


def persist(program: str) -> str:
    """Has a program run again and again until that is denied, in one call."""
    for _ in range(100_000):
        try:
            host.process.run(program)
        except QuadrigaError as error:
            return error.code
    return "never"
