"""What the literals are written with."""

import enum
from datetime import datetime, timedelta, timezone

from quadriga import Timestamp

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def at(microseconds, nanoseconds=0):
    time = EPOCH + timedelta(microseconds=microseconds)
    return Timestamp.of(time, nanoseconds) if nanoseconds else time


def nested(depth):
    value = None
    for _ in range(depth):
        value = [value]
    return value


def nested_maps(depth):
    value = None
    for _ in range(depth):
        value = {"k": value}
    return value


def cycle():
    items = []
    items.append(items)
    return items


class Colour(enum.IntEnum):
    GREEN = 2


class Name(str):
    pass


class Pile(list):
    pass
