"""The tests' guest with a state that outlives a reload."""

count = 0


def add(n: int) -> int:
    global count
    count += n
    return count


async def snapshot() -> int:
    return count


def restore(before: int) -> None:
    global count
    if before < 0:
        raise ValueError("a count is not negative")
    count = before
