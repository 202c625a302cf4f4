"""Starts programs as any Python program does."""

import os
import subprocess


def run(argv: list[str]) -> str:
    """Runs a program to its end, and says its status and what it printed."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20)
    return f"{done.returncode} {done.stdout}{done.stderr}"


def spawn(argv: list[str]) -> int:
    """The same by another way, without what it printed."""
    child = os.posix_spawnp(argv[0], argv, os.environ)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def fork(argv: list[str]) -> int:
    """The same by the oldest way."""
    child = os.fork()
    if child == 0:
        try:
            os.execvp(argv[0], argv)
        except OSError:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def shell(command: str) -> int:
    """The status of a command of the shell."""
    return os.waitstatus_to_exitcode(os.system(command))


def caught(argv: list[str]) -> str:
    """What code sees that knows of errors of the system alone."""
    try:
        return run(argv)
    except PermissionError as error:
        return f"refused: {error.strerror}"


def from_memory(program: str, script: str) -> int:
    """What becomes of a copy of a program of the shell in a file that was never on a disk."""
    try:
        copy = os.memfd_create("copy")
    except OSError:
        return 98
    with open(program, "rb") as file:
        os.write(copy, file.read())
    child = os.fork()
    if child == 0:
        try:
            os.execve(copy, ["sh", "-c", script], {})
        except OSError:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
