"""What the host does for an extension."""

from __future__ import annotations

from typing import Any

from . import _host


def call(extension: str, method: str, *args: Any) -> Any:
    """Calls a method of another extension and waits for its result.

    Raises QuadrigaError, with the code `permission_denied` unless the manifest asks for the call
    under `[permissions]` and the host granted it.
    """
    return _host.call(extension, method, args)


def config() -> dict[str, Any]:
    """The extension's settings: the manifest's defaults under what the host has set."""
    return _host.config()


def cancelled() -> bool:
    """Whether the caller of the running call no longer waits for it."""
    return _host.cancelled()


class _Log:
    """Writes lines to the host's log. What is printed gets there too, at the level info."""

    def trace(self, message: object) -> None:
        _host.log("trace", str(message))

    def debug(self, message: object) -> None:
        _host.log("debug", str(message))

    def info(self, message: object) -> None:
        _host.log("info", str(message))

    def warn(self, message: object) -> None:
        _host.log("warn", str(message))

    def error(self, message: object) -> None:
        _host.log("error", str(message))


log = _Log()
