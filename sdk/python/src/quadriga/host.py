"""What the host does for an extension."""

from __future__ import annotations

from typing import (
    Any,
    AsyncIterator,
    Iterator,
    Literal,
    Mapping,
    NotRequired,
    Protocol,
    Required,
    Sequence,
    TypedDict,
)

from . import _host


class Items(Protocol):
    """The items of a stream, read with `for` or with `async for`."""

    def __iter__(self) -> Iterator[Any]: ...

    def __next__(self) -> Any: ...

    def __aiter__(self) -> AsyncIterator[Any]: ...

    async def __anext__(self) -> Any: ...

    def close(self) -> None:
        """Gives the call up."""


def call(extension: str, method: str, *args: Any) -> Any:
    """Calls a method of another extension and waits for its result.

    An iterator among the arguments, such as a generator, is sent as a stream, until the callee has
    heard enough. What streams comes back as a list.

    Raises QuadrigaError, with the code `permission_denied` unless the manifest asks for the call
    under `[permissions]` and the host granted it.
    """
    return _host.call(extension, method, args)


async def call_async(extension: str, method: str, *args: Any) -> Any:
    """The same for coroutines: others of the extension go on while it waits.

    A stream that it sends may be an async iterator too.
    """
    return await _host.call_async(extension, method, args)


def stream(extension: str, method: str, *args: Any) -> Items:
    """Calls a method of another extension and iterates over its result while it runs.

    Works with `for` and with `async for`. A method that does not stream gives its one result.
    """
    return _host.stream(extension, method, args)


class To(TypedDict, total=False):
    """For whom a broadcast is: the extensions for which all that is said here holds."""

    runtime: str
    """What runs them: "javascript", "python", "webassembly", "native"."""
    tag: str
    """One of the `tags` in their manifests."""
    provides: str
    """A capability that they provide, such as "cache" or "cache@^1.2"."""
    timeout: float
    """Seconds that all of it may take; 30 if left out."""
    each: float
    """Seconds that each extension may take."""
    parallel: int
    """How many are called at the same time, up to 64; 16 if left out."""


class AnswerError(TypedDict):
    """Why an extension has no answer. `code` is a stable name such as "unknown_method"."""

    code: str
    message: str
    hint: str | None


class Answer(TypedDict, total=False):
    """What one extension answered to a broadcast: it has a `value`, or an `error`."""

    extension: Required[str]
    value: Any
    error: AnswerError


def broadcast(to: To, method: str, *args: Any) -> list[Answer]:
    """Calls a method of each extension that `to` is for, with the same arguments, but never this one.

    Gives one answer for each that this extension may call, by id; those that it may not call are left
    out. Coroutines call `quadriga.calls` with `call_async`: `to`, the method and a list of arguments.

    Raises QuadrigaError with the code `permission_denied` unless the permission `call` was granted for
    a method of this name.
    """
    return call("quadriga.calls", "broadcast", dict(to), method, list(args))


class Emitted(TypedDict):
    """The queues that an event stands in, and the events that were dropped for it."""

    queued: int
    dropped: int


class Event(TypedDict):
    """What a function that is subscribed to a topic gets. `source` is None for the host."""

    topic: str
    source: str | None
    data: Any
    id: NotRequired[str]
    """Names it, if it is delivered at least once: it may come more than once, with the same each time."""
    attempt: NotRequired[int]
    """Which attempt this is, from 1 on, if it is delivered at least once."""


def emit(topic: str, data: Any = None) -> Emitted:
    """Emits an event, for all who are subscribed to the topic.

    It is delivered later, to each at most once, or at least once if it asked for that. Coroutines call `quadriga.events` with `call_async`.

    Raises QuadrigaError with the code `permission_denied` unless the permission `emit` was granted.
    """
    return call("quadriga.events", "emit", topic, data)


def subscribe(
    topic: str,
    method: str,
    overflow: Literal["drop-newest", "drop-oldest"] = "drop-newest",
    *,
    delivery: Literal["at-most-once", "at-least-once"] = "at-most-once",
    attempts: int | None = None,
    first_delay: str | None = None,
    longest_delay: str | None = None,
) -> None:
    """Has events on a topic given to a public function of this extension, one after another.

    The topic may be the beginning of several, with a final `*`. `overflow` says which events are
    dropped when too many wait. With `delivery="at-least-once"` each event is kept until the function has
    returned: it is called up to `attempts` times, with growing delays, such as "1s". What the manifest says
    under `[events]` needs no call.

    Raises QuadrigaError with the code `permission_denied` unless the permission `subscribe` was
    granted.
    """
    options = {
        "overflow": overflow,
        "delivery": delivery,
        "attempts": attempts,
        "first-delay": first_delay,
        "longest-delay": longest_delay,
    }
    call("quadriga.events", "subscribe", topic, method, options)


def unsubscribe(topic: str, method: str) -> bool:
    """Ends what `subscribe` began, and says whether there was anything to end."""
    return call("quadriga.events", "unsubscribe", topic, method)


def proceed(patch: dict[str, Any] | None = None) -> Any:
    """Has the host's work go on, in a handler of a hook with `mode = "around"`.

    Returns what comes of the work. `patch` changes the context before, as a JSON Merge Patch
    (RFC 7396). Only once in each call. Coroutines call `quadriga.hooks` with `call_async`.

    Raises QuadrigaError with what the work fails with, or with the code `invalid_arguments` if there
    is none to go on with.
    """
    return call("quadriga.hooks", "proceed", patch)


def config() -> dict[str, Any]:
    """The extension's settings: the manifest's defaults under what the host has set."""
    return _host.config()


def cancelled() -> bool:
    """Whether the caller of the running call no longer waits for it."""
    return _host.cancelled()


Key = str | tuple[str, str]
"""A key of 1 to 512 bytes, or a namespace and a key within it. The same keys in others are others."""


class Entry(TypedDict):
    """A value that is kept. `key` is there in what `entries` gives."""

    key: NotRequired[str]
    value: Any
    version: int
    """Each put gives a value a higher version than any before it."""
    ttl: float | None
    """The seconds that it has left, or None if it stays."""


_Keys = list[str]
_Entries = list[Entry]
_Rows = list[dict[str, Any]]


class _KeyValue:
    """What the extension keeps with its host, by key. It needs the permission `kv`.

    Coroutines call `quadriga.kv` with `call_async` instead, so that others go on.
    """

    def __init__(self, service: str, *first: str) -> None:
        self._service = service
        self._first = first

    def _call(self, method: str, *args: Any) -> Any:
        return call(self._service, method, *self._first, *args)

    def get(self, key: Key) -> Any:
        """The value of a key, or None."""
        return self._call("get", key)

    def entry(self, key: Key) -> Entry | None:
        """The value of a key with what is known of it, or None."""
        return self._call("entry", key)

    def put(self, key: Key, value: Any, *, ttl: float | None = None, version: int | None = None) -> bool:
        """Puts a value in the place of the one before, and says whether it did.

        It is gone after `ttl` seconds. With `version` it is put only if the value that is there has
        this version; 0 if there must be none.

        Raises QuadrigaError with the code `quota_exceeded` if there is no room for it.
        """
        return self._call("put", key, value, {"ttl": ttl, "version": version})

    def delete(self, key: Key, *, version: int | None = None) -> bool:
        """Takes a key away, if its version is as it should be, and says whether it did."""
        return self._call("delete", key, {"version": version})

    def list(self, prefix: Key = "", after: str | None = None) -> _Keys:
        """The keys that begin with `prefix`, in order: the first 1000, or the first after `after`."""
        return self._call("list", prefix, after)

    def entries(self, prefix: Key = "", after: str | None = None, most: int | None = None) -> _Entries:
        """The same with their values: the first `most` of them, or fewer if they are large.

        There are no more when none come back.
        """
        return self._call("entries", prefix, after, most)

    def batch(self, changes: Sequence[Mapping[str, Any]]) -> bool:
        """Makes all changes, in their order, or none if a version is not as it should be.

        Each is `{"put": key, "value": value}`, with `ttl` and `version` if they are wanted,
        `{"delete": key}`, with `version` if that is wanted, or `{"check": key, "version": version}`.
        Says whether they were made.

        Raises QuadrigaError with the code `quota_exceeded` if there is no room for what there would
        be in the end.
        """
        return self._call("batch", changes)


def store(name: str) -> _KeyValue:
    """A store that several extensions share, by its name.

    To read there it needs the permission `stores` with `"NAME:ro"`, to change something `"NAME:rw"`.
    """
    return _KeyValue("quadriga.store", name)


class Page(TypedDict):
    """Some rows of the host's data. `next` is where the next page begins, or None."""

    rows: _Rows
    next: str | None


class _Data:
    """Data of the host, of which the extension sees the fields that the permission `data` names."""

    def query(
        self,
        source: str,
        *,
        fields: Sequence[str] | None = None,
        where: Sequence[tuple[str, Literal["=", "<", "<=", ">", ">="], Any]] = (),
        order: Sequence[tuple[str, Literal["asc", "desc"]]] = (),
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Page:
        """The rows of a source that all conditions hold for: a page of them, of 100 unless `limit` says
        something else, and of 1000 at most.

        Without `fields` they have all that were granted. `cursor` is the `next` of the page before.

        Raises QuadrigaError with the code `permission_denied` if a field is named that was not granted,
        and `message_too_large` if the page is.
        """
        query = {"fields": fields, "where": where, "order": order, "limit": limit, "cursor": cursor}
        return call("quadriga.data", "query", source, query)


class _Secrets:
    """The host's secrets that the extension was granted, under the permission `secrets`."""

    def get(self, name: str) -> str:
        """The text of a secret.

        Raises QuadrigaError with the code `unknown_secret` if the host does not have it.
        """
        return call("quadriga.secrets", "get", name)


class Ended(TypedDict):
    """How a program ended, and what it printed."""

    status: int | None
    """Its exit status, or None if a signal ended it."""
    signal: int | None
    """The number of the signal that ended it, or None."""
    stdout: bytes
    stderr: bytes


class _Process:
    """Programs that the host runs, each confined as the extension is, or further. They have no network.

    Each needs the permission `subprocess`.
    """

    def run(
        self,
        program: str,
        args: Sequence[str] = (),
        *,
        stdin: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        folder: str | None = None,
    ) -> Ended:
        """Runs a program to its end: a plain name, or an absolute path.

        It reads `stdin`, has the variables of `env` beside those that were granted, is ended after so
        many seconds, and starts in `folder`: an absolute path, or one from the package on, or else a
        folder of its own.

        Raises QuadrigaError with the code `permission_denied` unless it was granted, also when that is
        taken back while it runs; `deadline_exceeded` at the timeout; `message_too_large` if it prints
        too much.
        """
        options = {"stdin": stdin, "env": env, "timeout": timeout, "folder": folder}
        return call("quadriga.process", "run", program, list(args), options)


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


kv = _KeyValue("quadriga.kv")
data = _Data()
secrets = _Secrets()
process = _Process()
log = _Log()
