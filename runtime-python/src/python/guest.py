"""What the runtime does with an extension in Python rather than in Rust: it reads the functions it
exports, runs coroutines, puts exceptions into words, and turns prints into lines of the log.
"""

import asyncio
import functools
import importlib
import inspect
import io
import os
import sys
import threading
import traceback

import _quadriga_objects as objects
import _quadriga_shapes as shapes
from _quadriga_spaces import Space, current
from _quadriga_watch import NotGranted

_MAX_LINE = 64 * 1024


class Interrupted(BaseException):
    """Raised inside a call that is out of time. Not an Exception, so that few handlers catch it."""


def compile_entry(space, entry):
    """Raises what is wrong with the file itself, before any of it runs."""
    with open(entry, "rb") as file:
        space.compiled[entry] = compile(file.read(), entry, "exec", dont_inherit=True)


def load(space, entry):
    """Runs the entry module.

    Returns its methods: name, function, doc, parameters, return type, whether it is a generator,
    whether it is asynchronous, and the schemas of arguments and result as JSON.
    """
    name = space.prefix + os.path.basename(entry).removesuffix(".py")
    return describe(space, importlib.import_module(name))


def describe(space, module):
    """What `load` returns of a module."""
    return [_describe(space, name, function) for name, function in _exports(module)]


def _exports(module):
    listed = getattr(module, "__all__", None)
    if listed is not None:
        for name in listed:
            if not hasattr(module, name):
                raise AttributeError(f"__all__ lists {name!r}, which the module does not define")
        return [(n, getattr(module, n)) for n in listed if _is_function(getattr(module, n))]
    return [
        (name, value)
        for name, value in vars(module).items()
        if not name.startswith("_") and _is_function(value) and value.__module__ == module.__name__
    ]


def _is_function(value):
    return inspect.isroutine(value) or isinstance(value, functools._lru_cache_wrapper)


def _describe(space, name, function):
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return name, function, inspect.getdoc(function) or "", [], None, False, False, None, None
    parameters = [
        (
            ("*" if p.kind is p.VAR_POSITIONAL else "") + p.name,
            _annotation(space, p.annotation),
            p.default is not p.empty or p.kind is p.VAR_POSITIONAL,
        )
        for p in signature.parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL)
    ]
    returns = _annotation(space, signature.return_annotation)
    annotations = shapes.hints(function)
    schemas = shapes.of_function(signature, annotations)
    called = objects.reading(name, function, signature, annotations, fits)
    kinds = _streams(function), _waits(function)
    return name, called, inspect.getdoc(function) or "", parameters, returns, *kinds, *schemas


def _annotation(space, annotation):
    if annotation is inspect.Signature.empty:
        return None
    return annotation if isinstance(annotation, str) else space.strip(inspect.formatannotation(annotation))


def _streams(function):
    function = inspect.unwrap(function)
    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def _waits(function):
    """Whether calls of a function run on the event loop of its extension."""
    function = inspect.unwrap(function)
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def drain(generator, emit):
    """Hands on the items of a generator. Those of an async one by the coroutine that is returned."""
    if inspect.isasyncgen(generator):
        return _drain_async(generator, emit)
    try:
        for item in generator:
            emit(item)
    finally:
        generator.close()


async def _drain_async(generator, emit):
    try:
        async for item in generator:
            emit(item)
    finally:
        await generator.aclose()


def run(coroutine, started):
    """Runs a coroutine to its end on this thread, also inside a call from another loop."""
    outer = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        with asyncio.Runner() as runner:
            started(runner.get_loop())
            return runner.run(coroutine)
    finally:
        asyncio._set_running_loop(outer)


def cancel(loop):
    """Cancels what runs on an event loop, from another thread."""
    try:
        loop.call_soon_threadsafe(_cancel_all, loop)
    except RuntimeError:
        pass  # closed meanwhile


def _cancel_all(loop):
    for task in asyncio.all_tasks(loop):
        task.cancel()


def fits(name, function, arguments):
    """Why the arguments cannot be passed to the function, or None if they can."""
    try:
        signature = inspect.signature(function)
        signature.bind(*arguments)
    except TypeError as error:
        return f"{name}{signature}: {error}, {len(arguments)} given"
    except ValueError:
        pass
    return None


def report(space, error):
    """An exception as the fields of an error: kind, message, hint, extension, stack, cause.

    The kind is the code of a QuadrigaError, or `syntax`, `exit` or `exception`.
    """
    if isinstance(error, objects.Unfit):
        return "invalid_arguments", space.strip(str(error)), None, None, None, None
    stack, cause = _stack(space, error), _cause(error)
    quadriga_error = getattr(sys.modules.get(space.prefix + "quadriga"), "QuadrigaError", ())
    if isinstance(error, quadriga_error):
        cause = _received(error if error.received else error.cause) or cause
        return error.code, error.message, error.hint, None, stack, cause
    if isinstance(error, NotGranted):
        return "permission_denied", error.strerror, error.hint, None, stack, cause
    if isinstance(error, SyntaxError) and _inside(space, error.filename):
        where = f"{os.path.relpath(error.filename, space.root)}:{error.lineno}"
        text = (error.text or "").strip()
        return "syntax", f"{where}: {error.msg}" + (f": {text}" if text else ""), None, None, stack, None
    if not isinstance(error, Exception):
        message = f"the extension tried to end the process: {type(error).__name__}({error})"
        return "exit", message, "raise an Exception, or return, instead", None, stack, cause
    try:
        text = space.strip(str(error))
    except Exception:
        text = "(its message cannot be read)"
    message = text if type(error) is Exception else f"{type(error).__name__}: {text}"
    return "exception", message, None, None, stack, cause


def _cause(error):
    """The error of another extension that this exception was raised from, or while handling."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if getattr(error, "received", False):
            return _received(error)
    return None


def _received(error):
    if error is None:
        return None
    return error.code, error.message, error.hint, error.extension, error.stack, _received(error.cause)


def _stack(space, error):
    """The traceback without the frames of the host and the standard library."""
    summary = traceback.TracebackException.from_exception(error, lookup_lines=False)
    pending, seen = [summary], set()
    while pending:
        part = pending.pop()
        if part is None or id(part) in seen:
            continue
        seen.add(id(part))
        part.stack[:] = [_frame(space, frame) for frame in part.stack if _inside(space, frame.filename)]
        pending += [part.__cause__, part.__context__, *(getattr(part, "exceptions", None) or ())]
    return space.strip("".join(summary.format()).replace(space.root + os.sep, ""))


def _frame(space, frame):
    path = os.path.relpath(frame.filename, space.root)
    return traceback.FrameSummary(path, frame.lineno, frame.name, lookup_line=False, line=frame.line or "")


def _inside(space, path):
    """Whether it is a file of the author's: not the one that runs a loose piece of source."""
    inside = bool(path) and path.startswith(space.root + os.sep)
    return inside and not path.endswith(os.sep + "quadriga_snippet.py")


class Lines(io.TextIOBase):
    """A standard stream that goes to the log, line by line, in the name of whoever printed."""

    def __init__(self, level, orphan):
        self.level = level
        self.orphan = orphan
        self.pending = {}

    encoding = "utf-8"
    errors = "backslashreplace"

    def writable(self):
        return True

    def write(self, text):
        space = current()
        log = space.host.log if space else self.orphan
        key = (space and space.name, threading.get_ident())
        lines = (self.pending.pop(key, "") + text).split("\n")
        rest = lines.pop()
        if len(rest) > _MAX_LINE:
            lines.append(rest)
            rest = ""
        for line in lines:
            log(self.level, line)
        if rest:
            self.pending[key] = rest
        return len(text)

    def finish(self, space):
        """Writes what an extension left without the end of a line."""
        for key in [key for key in self.pending if key[0] == space.name]:
            space.host.log(self.level, self.pending.pop(key))


def redirect(orphan):
    sys.stdout = sys.__stdout__ = Lines("info", orphan)
    sys.stderr = sys.__stderr__ = Lines("warn", orphan)
    sys.stdin = sys.__stdin__ = None


def open_space(extension, root, entry, host, sdk):
    return Space(extension, root, entry, host, sdk)


def close_space(space):
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, Lines):
            stream.finish(space)
    space.close()
