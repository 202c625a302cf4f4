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


def keep(event: host.Event) -> None:
    """Fails as often as it is told to, and says which attempt it is then."""
    if event["attempt"] <= event["data"]:
        raise ValueError(f"no {event['attempt']}")
    _heard.append([event["id"], None, event["attempt"]])


def listen_kept(topic: str) -> None:
    host.subscribe(topic, "keep", delivery="at-least-once", first_delay="1ms", attempts=4)


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


def count(key: str, times: int) -> None:
    """Counts on from what is there, whatever others do meanwhile."""
    done = 0
    while done < times:
        entry = host.kv.entry(key)
        value, version = (entry["value"], entry["version"]) if entry else (0, 0)
        done += host.kv.put(key, value + 1, version=version)


def relocate(key: str, to: tuple[str, str]) -> bool:
    """Has a value in another place, if there is one and nothing is there yet."""
    entry = host.kv.entry(key)
    if entry is None:
        return False
    gone = {"delete": key, "version": entry["version"]}
    return host.kv.batch([gone, {"put": to, "value": entry["value"], "version": 0}])


def brief(key: str, value: Any) -> bool:
    return host.kv.put(key, value, ttl=0.05)


def page(namespace: str, most: int) -> list[list[Any]]:
    entries = host.kv.entries((namespace, ""), most=most)
    return [[entry["key"], entry["value"]] for entry in entries]


def share(store: str, key: str, value: Any) -> None:
    host.store(store).put(("shared", key), value)


def shared(store: str) -> list[list[Any]]:
    return [[entry["key"], entry["value"]] for entry in host.store(store).entries(("shared", ""))]


def older(age: int, fields: list[str] | None) -> list[dict[str, Any]]:
    page = host.data.query("people", fields=fields, where=[("age", ">", age)], order=[("age", "desc")])
    return page["rows"]


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
