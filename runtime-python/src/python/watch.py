"""Tells the host what an extension tried: how often to start a program and, in a worker process, to
which files the kernel refused it access.

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

_STARTS = frozenset(
    ("os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "pty.spawn", "subprocess.Popen")
)
_REFUSALS = frozenset((errno.EACCES, errno.EPERM, errno.EROFS))
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def install():
    """Counts attempts to start a program."""
    sys.addaudithook(_audit)


def _audit(event, arguments):
    if event in _STARTS:
        space = current()
        if space is not None:
            space.host.tried_to_start()


def watch_files():
    """Watches what the kernel says to accesses to files."""
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
