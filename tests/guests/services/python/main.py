"""The tests' guest that uses the host's services."""

from typing import Any

from quadriga import QuadrigaError, host

_heard: list[list[Any]] = []


def tell(topic: str, data: Any) -> host.Emitted:
    return host.emit(topic, data)


def listen(topic: str) -> None:
    host.subscribe(topic, "hear", overflow="drop-oldest")


def unlisten(topic: str) -> bool:
    return host.unsubscribe(topic, "hear")


def hear(event: host.Event) -> None:
    _heard.append([event["topic"], event["source"], event["data"]])


def heard() -> list[list[Any]]:
    return _heard


def get(key: str) -> Any:
    return host.kv.get(key)


def put(key: str, value: Any) -> None:
    host.kv.put(key, value)


def remove(key: str) -> bool:
    return host.kv.delete(key)


def keys(prefix: str, after: str | None = None) -> list[str]:
    return host.kv.list(prefix, after)


def secret(name: str) -> str:
    return host.secrets.get(name)


def caught(name: str) -> list[str]:
    """What code that catches sees of a secret that it does not get."""
    try:
        host.secrets.get(name)
    except QuadrigaError as error:
        return [error.code, error.message]
    return []


def persist() -> str:
    """Reads until that is denied, in one call."""
    for _ in range(10_000_000):
        try:
            host.kv.get("k")
        except QuadrigaError as error:
            return error.code
    return "never"
