"""The tests' guest for streams: the same behaviour in each language."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import count as naturals
from itertools import islice

from quadriga import host


def count(n: int) -> Iterator[int]:
    """The numbers below `n`."""
    yield from range(n)


async def blocks(n: int, size: int) -> AsyncIterator[bytes]:
    """So many blocks of so many bytes."""
    for _ in range(n):
        yield bytes(size)


def broken(n: int) -> Iterator[int]:
    yield from range(n)
    raise ValueError("the source ran dry")


async def sum(numbers: AsyncIterator[int]) -> int:
    """Adds up what it is sent."""
    total = 0
    async for number in numbers:
        total += number
    return total


def sum_first(numbers: Iterator[int], n: int) -> int:
    total = 0
    for number in islice(numbers, n):
        total += number
    return total


def double(numbers: Iterator[int]) -> Iterator[int]:
    for number in numbers:
        yield 2 * number


def total(extension: str, n: int) -> int:
    total = 0
    for number in host.stream(extension, "count", n):
        total += number
    return total


async def first(extension: str, n: int) -> list[int]:
    items = []
    numbers = host.stream(extension, "count", 2**64 - 1)
    async for number in numbers:
        if len(items) == n:
            break
        items.append(number)
    numbers.close()
    return items


async def numbers(n: int) -> AsyncIterator[int]:
    for number in range(n):
        yield number


async def send(extension: str, n: int) -> int:
    return await host.call_async(extension, "sum", numbers(n))


def send_endless(extension: str, n: int) -> int:
    return host.call(extension, "sum_first", naturals(), n)


def read_broken(extension: str, n: int) -> int:
    total = 0
    for number in host.stream(extension, "broken", n):
        total += number
    return total


async def pause() -> None:
    try:
        host.log.info("waiting")
        await asyncio.sleep(3600)
    finally:
        host.log.info("cleaned up")


def whole(extension: str, n: int) -> list[int]:
    return host.call(extension, "count", n)
