"""Tells the host what an extension tried: to start a program, and, in a worker process, to open files
that the kernel refused. There it also says in words which programs it may not start.

This sees what goes through Python's own functions. What compiled code asks of the kernel, or what
was taken apart here by the extension itself, it does not see.
"""

import builtins
import errno
import functools
import io
import os
import sys

from _quadriga_spaces import current

_STARTS = {
    "os.exec": lambda path, *_: path,
    "os.fork": lambda *_: None,
    "os.forkpty": lambda *_: None,
    "os.posix_spawn": lambda path, *_: path,
    "os.system": lambda *_: "/bin/sh",
    "pty.spawn": lambda argv, *_: argv[0],
    "subprocess.Popen": lambda path, argv, folder, *_: _within(folder, path),
}
"""Which program each of them starts, if that is known."""
_REFUSALS = frozenset((errno.EACCES, errno.EPERM, errno.EROFS))
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


_process = None
"""Which process this is; its children have no host to ask."""
_wrapped = False


class NotGranted(PermissionError):
    """A program that the extension may not start."""

    hint = None


def install():
    """Watches what is started."""
    sys.addaudithook(_audit)


def _audit(event, arguments):
    if event not in _STARTS:
        return
    space = current()
    if space is None or _process not in (None, os.getpid()):
        return
    program = _STARTS[event](*arguments)
    # Not a descriptor.
    program = os.fsdecode(program) if isinstance(program, (str, bytes, os.PathLike)) else None
    if program is not None and os.sep in program:
        program = os.path.abspath(program)
        if not os.path.exists(program):
            return
    refused = space.host.starts(program)
    if refused is not None:
        error = NotGranted(errno.EACCES, refused[0], program)
        error.hint = refused[1]
        raise error


def _within(folder, path):
    path = os.fsdecode(path)
    return os.path.join(os.fsdecode(folder or ""), path) if os.sep in path else path


def watch_files():
    """Watches what the kernel says to accesses to files, in a process of the extension's own."""
    global _process
    _process = os.getpid()
    wrap()


def wrap():
    """Puts functions that watch in the place of those that they call, once."""
    global _wrapped
    if _wrapped:
        return
    _wrapped = True
    io.open = builtins.open = _watched(builtins.open, _by_mode)
    os.open = _watched(os.open, _by_flags)
    for name in ("listdir", "scandir", "chdir"):
        _watch(name, lambda *arguments, **named: False)
    for name in (
        "chmod", "chown", "link", "mkdir", "mkfifo", "remove", "rename", "replace", "rmdir", "symlink",
        "truncate", "unlink", "utime",
    ):
        _watch(name, lambda *arguments, **named: True)


def _by_mode(file, mode="r", *arguments, **named):
    return any(letter in mode for letter in "wax+")


def _by_flags(path, flags, *arguments, **named):
    return bool(flags & _WRITES)


def _watch(name, writes):
    function = getattr(os, name)
    watched = _watched(function, writes)
    setattr(os, name, watched)
    # shutil and its like ask these what a function can do.
    for able in (os.supports_dir_fd, os.supports_effective_ids, os.supports_fd, os.supports_follow_symlinks):
        if function in able:
            able.add(watched)


def _watched(function, writes):
    @functools.wraps(function)
    def call(*arguments, **named):
        try:
            return function(*arguments, **named)
        except OSError as error:
            if error.errno in _REFUSALS and isinstance(error.filename, (str, bytes)):
                space = current()
                if space is not None:
                    path = os.path.abspath(os.fsdecode(error.filename))
                    space.host.refused(path, writes(*arguments, **named))
            raise

    return call
