"""Stands for the host where there is none, so that extensions can be imported by their tests.

A test replaces these functions; inside a host, this module is the host itself.
"""

from typing import Any, Callable

from .timestamp import Timestamp as Timestamp


def raises(make: Callable[..., Exception]) -> None:
    pass


def call(extension: str, method: str, args: tuple[Any, ...]) -> Any:
    raise RuntimeError(f"there is no host to call {extension}/{method}")


def call_async(extension: str, method: str, args: tuple[Any, ...]) -> Any:
    raise RuntimeError(f"there is no host to call {extension}/{method}")


def stream(extension: str, method: str, args: tuple[Any, ...]) -> Any:
    raise RuntimeError(f"there is no host to stream {extension}/{method}")


def config() -> dict[str, Any]:
    return {}


def cancelled() -> bool:
    return False


def log(level: str, message: str) -> None:
    print(f"{level}: {message}")
