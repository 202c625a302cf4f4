"""Points in time finer than a datetime."""

from __future__ import annotations

from datetime import datetime, timedelta, tzinfo
from typing import Any, Optional


class Timestamp(datetime):
    """A datetime with nanoseconds.

    A point in time that arrives is one if it has more than whole microseconds, else a plain
    datetime. What comes out of arithmetic keeps the nanoseconds; a difference of two points in time
    is a timedelta, which has none.
    """

    __slots__ = ("_nanosecond",)
    __module__ = "quadriga"
    _nanosecond: int

    def __new__(cls, *args: Any, nanosecond: int = 0, **kwargs: Any) -> Timestamp:
        if not 0 <= nanosecond <= 999:
            raise ValueError("the nanoseconds after the microsecond are 0 to 999")
        self = super().__new__(cls, *args, **kwargs)
        self._nanosecond = nanosecond
        return self

    @classmethod
    def of(cls, time: datetime, nanosecond: int = 0) -> Timestamp:
        """A datetime, and the nanoseconds after its microsecond."""
        date = (time.year, time.month, time.day, time.hour, time.minute, time.second, time.microsecond)
        return cls(*date, time.tzinfo, fold=time.fold, nanosecond=nanosecond)

    @property
    def nanosecond(self) -> int:
        """The nanoseconds after the microsecond."""
        return self._nanosecond

    def _plain(self) -> datetime:
        date = (self.year, self.month, self.day, self.hour, self.minute, self.second, self.microsecond)
        return datetime(*date, self.tzinfo, fold=self.fold)

    def replace(self, *args: Any, nanosecond: Optional[int] = None, **kwargs: Any) -> Timestamp:
        nanosecond = self._nanosecond if nanosecond is None else nanosecond
        return self.of(self._plain().replace(*args, **kwargs), nanosecond)

    def astimezone(self, tz: Optional[tzinfo] = None) -> Timestamp:
        return self.of(self._plain().astimezone(tz), self._nanosecond)

    def isoformat(self, sep: str = "T", timespec: str = "auto") -> str:
        if timespec != "auto" or self._nanosecond == 0:
            return super().isoformat(sep, timespec)
        text = super().isoformat(sep, "microseconds")
        end = text.index(".") + 7
        return f"{text[:end]}{self._nanosecond:03}{text[end:]}"

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, nanosecond={self._nanosecond})"

    def __add__(self, other: Any) -> Any:
        moved = self._plain().__add__(other)
        return moved if moved is NotImplemented else self.of(moved, self._nanosecond)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        difference = self._plain().__sub__(other)
        return self.of(difference, self._nanosecond) if isinstance(other, timedelta) else difference

    def __eq__(self, other: object) -> Any:
        equal = super().__eq__(other)
        return self._nanosecond == getattr(other, "nanosecond", 0) if equal is True else equal

    def __ne__(self, other: object) -> Any:
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    def __hash__(self) -> int:
        return hash((super().__hash__(), self._nanosecond)) if self._nanosecond else super().__hash__()

    def __lt__(self, other: Any) -> Any:
        if super().__eq__(other) is True:
            return self._nanosecond < getattr(other, "nanosecond", 0)
        return super().__lt__(other)

    def __gt__(self, other: Any) -> Any:
        if super().__eq__(other) is True:
            return self._nanosecond > getattr(other, "nanosecond", 0)
        return super().__gt__(other)

    def __le__(self, other: Any) -> Any:
        return self == other or self < other

    def __ge__(self, other: Any) -> Any:
        return self == other or self > other

    def __reduce_ex__(self, protocol: Any) -> Any:
        return type(self).of, (self._plain(), self._nanosecond)
