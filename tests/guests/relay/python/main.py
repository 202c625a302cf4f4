"""The tests' guest: the same behaviour in each language."""

from typing import Any

from quadriga import host


def echo(value: Any) -> Any:
    """Returns what it is given."""
    return value


def add(a: int, b: int) -> int:
    return a + b


def greet(name: str) -> str:
    return f"Hello, {name}, from python"


def relay(extension: str, method: str, args: list) -> Any:
    """Calls another extension."""
    return host.call(extension, method, *args)


def broadcast(tag: str | None, method: str, args: list) -> list:
    """Calls many at once."""
    answers = host.broadcast({"tag": tag} if tag else {}, method, *args)
    code = lambda answer: answer["error"]["code"] if "error" in answer else None
    return [[answer["extension"], answer.get("value"), code(answer)] for answer in answers]


def chain(path: list[str]) -> list[str]:
    """Calls along a path of extensions, and returns the languages that it passed."""
    rest = host.call(path[0], "chain", path[1:]) if path else []
    return ["python", *rest]


def fail(message: str) -> None:
    raise Exception(message)


def crash() -> None:
    raise SystemExit("the guest gave up")


def spin() -> None:
    while True:
        pass


def unplaced() -> object:
    return object()


def log(message: str) -> None:
    host.log.info(message)


def setting(name: str) -> Any:
    return host.config()[name]
