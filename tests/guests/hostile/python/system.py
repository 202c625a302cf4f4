"""How the attacks reach the kernel, and how they say what became of them."""

import ctypes
import os
import platform
from collections.abc import Callable

_NUMBERS = {
    "x86_64": {
        "ptrace": 101,
        "setuid": 105,
        "mount": 165,
        "keyctl": 250,
        "unshare": 272,
        "perf_event_open": 298,
        "process_vm_readv": 310,
        "bpf": 321,
        "userfaultfd": 323,
        "io_uring_setup": 425,
    },
    "aarch64": {
        "mount": 40,
        "unshare": 97,
        "ptrace": 117,
        "setuid": 146,
        "keyctl": 219,
        "perf_event_open": 241,
        "process_vm_readv": 270,
        "bpf": 280,
        "userfaultfd": 282,
        "io_uring_setup": 425,
    },
}

# By name: what they are called with. Each would do harm only if it were let through.
DOORS = {
    "io_uring_setup": lambda: (8, ctypes.create_string_buffer(120)),
    "unshare": lambda: (0x10000000,),
    "keyctl": lambda: (0, -3, 1),
    "bpf": lambda: (0, ctypes.create_string_buffer(128), 128),
    "perf_event_open": lambda: (ctypes.create_string_buffer(128), 0, -1, -1, 0),
    "userfaultfd": lambda: (0,),
    "mount": lambda: (b"none", b"/nowhere", b"tmpfs", 0, None),
}


def syscall(name: str, *arguments: object) -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    result = libc.syscall(_NUMBERS[platform.machine()][name], *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return f"{name}: {result}"


def attempt(attack: Callable[[], str]) -> str:
    try:
        return f"done: {attack()}"
    except (OSError, MemoryError, KeyError, IndexError, RecursionError, ValueError) as error:
        return f"denied: {type(error).__name__}: {error}"
