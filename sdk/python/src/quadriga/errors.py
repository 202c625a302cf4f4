"""What a call to the host raises."""

from __future__ import annotations

from datetime import datetime
from typing import Optional, Union

from . import _host

Value = Union[None, bool, int, float, str, bytes, datetime, "list[Value]", "dict[Value, Value]"]
"""Whatever can cross between languages."""


class QuadrigaError(Exception):
    """An error of the host, or of another extension, with the same fields in every language."""

    received: bool = False
    """Whether it came from a call, rather than being raised here."""

    def __init__(
        self,
        code: str,
        message: str,
        hint: Optional[str] = None,
        extension: Optional[str] = None,
        stack: Optional[str] = None,
        cause: Optional[QuadrigaError] = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        """A stable name, such as `permission_denied`."""
        self.message = message
        self.hint = hint
        """What to do about it."""
        self.extension = extension
        """Where it happened."""
        self.stack = stack
        """The stack trace of that extension."""
        self.cause = cause
        """The error that led to it."""

    def __str__(self) -> str:
        return self.message


def _receive(*fields) -> QuadrigaError:
    error = QuadrigaError(*fields)
    error.received = True
    return error


_host.raises(_receive)
