"""Attacks on the host, each bounded: so many processes, bytes or seconds, then it stops.

A method returns `done` with what it got, or `denied` with what the system said. Targets are
canaries: files, sockets and processes that the test planted and names in the arguments.
"""

import ctypes
import mmap
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time

import system
from quadriga import QuadrigaError, host
from system import attempt, host_socket, syscall

SECONDS = 20


# What takes too much


def forks(most: int) -> str:
    """Starts processes that each sleep for two seconds."""

    def fork() -> str:
        children = []
        for _ in range(min(most, 64)):
            child = os.fork()
            if child == 0:
                time.sleep(2)
                os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
        return f"{len(children)} processes"

    return attempt(fork)


def threads(most: int) -> str:
    """Starts threads that each sleep for a second."""
    started = 0
    try:
        for _ in range(min(most, 4000)):
            threading.Thread(target=time.sleep, args=(1,), daemon=True).start()
            started += 1
    except RuntimeError as error:
        return f"denied: {error} after {started}"
    return f"done: {started} threads"


def spin() -> str:
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        pass
    return "done: the time was up"


def spin_in_finally() -> str:
    try:
        return spin()
    finally:
        spin()


class Clingy:
    """Never wants to go."""

    def __del__(self) -> None:
        spin()


def spin_in_destructor() -> str:
    Clingy()
    return "done: it went"


def spin_in_regex() -> str:
    """Backtracks through 2^n ways, inside C code that no interrupt reaches."""
    re.match(r"(a+)+$", "a" * 27 + "b")
    return "done: no match"


def spin_on_catch() -> str:
    """Goes on after each attempt to end it."""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        try:
            while time.monotonic() < until:
                pass
        except BaseException:  # noqa: BLE001, that is the attack
            pass
    return "done: the time was up"


def sleep_in_c() -> str:
    """Waits where no interpreter looks for interrupts."""
    ctypes.CDLL(None).sleep(SECONDS)
    return "done: slept"


def grow_heap(mebibytes: int) -> str:
    held = []

    def grow() -> str:
        for _ in range(min(mebibytes, 2048)):
            held.append(bytes([1]) * (1 << 20))
        return f"{len(held)} MiB"

    return attempt(grow)


def grow_malloc(mebibytes: int) -> str:
    """Memory that the interpreter knows nothing of."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    for n in range(min(mebibytes, 2048)):
        block = libc.malloc(ctypes.c_size_t(1 << 20))
        if not block:
            return f"denied: malloc after {n} MiB"
        ctypes.memset(block, 1, 1 << 20)
    return f"done: {mebibytes} MiB"


def grow_mmap(mebibytes: int) -> str:
    held = []

    def grow() -> str:
        for _ in range(min(mebibytes, 2048)):
            block = mmap.mmap(-1, 1 << 20)
            block.write(b"\1" * (1 << 20))
            held.append(block)
        return f"{len(held)} MiB"

    return attempt(grow)


def grow_memfd(mebibytes: int) -> str:
    def grow() -> str:
        file = os.memfd_create("hostile")
        for _ in range(min(mebibytes, 2048)):
            os.write(file, b"\1" * (1 << 20))
        return f"{mebibytes} MiB"

    return attempt(grow)


def open_files(path: str, most: int) -> str:
    held = []

    def grow() -> str:
        for _ in range(min(most, 20_000)):
            held.append(os.open(path, os.O_RDONLY))
        return f"{len(held)} files"

    try:
        return attempt(grow)
    finally:
        for file in held:
            os.close(file)


def fill_disk(path: str, mebibytes: int) -> str:
    def fill() -> str:
        name = os.path.join(path, "hostile-filling")
        written = 0
        try:
            with open(name, "wb", buffering=0) as file:
                for _ in range(min(mebibytes, 512)):
                    written += file.write(b"\1" * (1 << 20))
        finally:
            if os.path.exists(name):
                os.unlink(name)
        return f"{written >> 20} MiB"

    return attempt(fill)


def flood_output(mebibytes: int) -> str:
    line = "x" * 1023
    for _ in range(min(mebibytes, 64) * 1024):
        print(line)
    return f"done: {mebibytes} MiB"


# What is none of its business


def read_file(path: str) -> str:
    def read() -> str:
        with open(path) as file:
            return file.read(64)

    return attempt(read)


def read_environment(name: str) -> str:
    return attempt(lambda: os.environ[name])


def read_parents_environment(name: str) -> str:
    def read() -> str:
        with open(f"/proc/{os.getppid()}/environ", "rb") as file:
            found = [part for part in file.read().split(b"\0") if part.startswith(name.encode() + b"=")]
        return found[0].decode()

    return attempt(read)


def write_file(path: str) -> str:
    def write() -> str:
        with open(path, "w") as file:
            file.write("hostile")
        return path

    return attempt(write)


def write_by_symlink(scratch: str, path: str) -> str:
    def write() -> str:
        link = os.path.join(scratch, "symlink")
        os.symlink(path, link)
        with open(link, "w") as file:
            file.write("hostile")
        return path

    return attempt(write)


def write_by_hard_link(scratch: str, path: str) -> str:
    def write() -> str:
        link = os.path.join(scratch, "hardlink")
        os.link(path, link)
        with open(link, "w") as file:
            file.write("hostile")
        return path

    return attempt(write)


def read_by_dots(inside: str, path: str) -> str:
    return read_file(inside + "/.." * 20 + path)


def remove_file(path: str) -> str:
    return attempt(lambda: str(os.unlink(path)))


def list_folder(path: str) -> str:
    return attempt(lambda: f"{len(os.listdir(path))} names")


def move_out(source: str, path: str) -> str:
    return attempt(lambda: str(os.rename(source, path)))


def call_others(extension: str, times: int) -> str:
    """Calls an extension that it may not call, so often."""
    refused = 0
    for _ in range(min(times, 5000)):
        try:
            host.call(extension, "add", 2, 3)
        except QuadrigaError:
            refused += 1
    return f"denied: {refused} times" if refused == times else f"done: all but {refused}"


def send_signal(pid: int) -> str:
    return attempt(lambda: str(os.kill(pid, signal.SIGTERM)))


def signal_parent() -> str:
    """Signal 0 only asks whether one could be sent."""
    return attempt(lambda: str(os.kill(os.getppid(), 0)))


def trace(pid: int) -> str:
    """PTRACE_ATTACH, and PTRACE_DETACH if that worked."""

    def attach() -> str:
        result = syscall("ptrace", 16, pid, 0, 0)
        os.waitpid(pid, 0)
        syscall("ptrace", 17, pid, 0, 0)
        return result

    return attempt(attach)


def read_memory(pid: int) -> str:
    def read() -> str:
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as file:
            return str(file.fileno())

    return attempt(read)


# Networks


def connect(port: int) -> str:
    def open_connection() -> str:
        with socket.create_connection(("127.0.0.1", port), timeout=2):
            return "connected"

    return attempt(open_connection)


def connect_unix(path: str) -> str:
    def open_connection() -> str:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(2)
            client.connect(path)
            return "connected"

    return attempt(open_connection)


def connect_abstract(name: str) -> str:
    return connect_unix("\0" + name)


def listen() -> str:
    def bind() -> str:
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            server.listen()
            return "listens"

    return attempt(bind)


def special_socket(family: int, kind: int) -> str:
    """Raw, packet and netlink sockets."""

    def open_socket() -> str:
        with socket.socket(family, kind) as found:
            return str(found.fileno())

    return attempt(open_socket)


def resolve(name: str) -> str:
    return attempt(lambda: str(socket.getaddrinfo(name, 80)[0][4]))


# The kernel's doors


def door(name: str) -> str:
    """A system call that no extension has any business with."""
    return attempt(lambda: system.door(name))


def chroot() -> str:
    return attempt(lambda: str(os.chroot("/")))


def process_memory(pid: int) -> str:
    return attempt(lambda: syscall("process_vm_readv", pid, None, 0, None, 0, 0))


def type_into_terminal() -> str:
    """TIOCSTI, on whatever terminal there is."""

    def push() -> str:
        import fcntl

        fcntl.ioctl(0, 0x5412, b"x")
        return "typed"

    return attempt(push)


def run_program(path: str) -> str:
    def run() -> str:
        return subprocess.run([path], capture_output=True, text=True, timeout=5).stdout[:32]

    return attempt(run)


def run_from_memory(path: str) -> str:
    def run() -> str:
        with open(path, "rb") as program:
            file = os.memfd_create("program")
            os.write(file, program.read())
        return subprocess.run([f"/proc/self/fd/{file}"], pass_fds=[file], timeout=5).stdout or "ran"

    return attempt(run)


def make_setuid(folder: str) -> str:
    return attempt(lambda: system.make_setuid(folder))


def raise_limit() -> str:
    return attempt(lambda: str(resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 20, 1 << 20))))


# Its own process


def exit_at_once() -> str:
    os._exit(0)


def exit_by_exception() -> str:
    sys.exit(3)


def abort() -> str:
    os.abort()


def crash() -> str:
    ctypes.string_at(0)
    return "done: still here"


def kill_itself() -> str:
    os.kill(os.getpid(), signal.SIGKILL)
    return "done: still here"


def stop_itself() -> str:
    """No signal handler sees it, and nobody wakes it but who watches it."""
    os.kill(os.getpid(), signal.SIGSTOP)
    return "done: still here"


def overflow_stack() -> str:
    def deeper(n: int) -> int:
        return deeper(n + 1)

    sys.setrecursionlimit(1 << 30)
    return attempt(lambda: str(deeper(0)))


# Tampering with what is shared


def tamper_with_modules() -> str:
    for name in [name for name in sys.modules if name.startswith("quadriga")]:
        sys.modules[name] = None
    return "done: no modules"


def tamper_with_builtins() -> str:
    import builtins

    for name in ("len", "isinstance", "print", "open", "type"):
        setattr(builtins, name, None)
    return "done: no builtins"


def ping() -> str:
    return "pong"


# Lies to the host, told by the socket itself


def send_raw(frame: list[int], times: int) -> str:
    """Writes past the runtime, straight to the host."""

    def send() -> str:
        with host_socket() as host:
            for _ in range(min(times, 1000)):
                host.sendall(bytes(frame))
        return f"{len(frame)} bytes"

    return attempt(send)


def shut_socket() -> str:
    """Closes the half by which the host would be answered, then waits."""

    def shut() -> str:
        with host_socket() as host:
            host.shutdown(socket.SHUT_WR)
        time.sleep(2)
        return "shut"

    return attempt(shut)


def never_reply() -> str:
    time.sleep(SECONDS)
    return "done: late"
