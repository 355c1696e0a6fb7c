"""A fence around worker processes, set before a model is loaded: the store, other bundles and the user's files are out of reach.

Loading and running a model may run code that came with it. Where the kernel has Landlock (Linux 5.13 and later) a worker may
read system files, its Python and its own bundle, and write nowhere but in a scratch folder of its own; from ABI 6 on it may
signal no process outside. It needs no rights and cannot be taken off again, also not by children. It does not fence the network.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

# landlock(7): the same numbers on all architectures.
_CREATE, _ADD, _RESTRICT = 444, 445, 446
_VERSION_FLAG = 1
_PATH_BENEATH = 1
_NO_NEW_PRIVILEGES = 38  # PR_SET_NO_NEW_PRIVS of prctl(2)

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_FIRST = (1 << 13) - 1  # all that ABI 1 knows
_REFER, _TRUNCATE, _IOCTL = 1 << 13, 1 << 14, 1 << 15  # ABI 2, 3 and 5
_SCOPES = 0b11  # ABI 6: abstract Unix sockets and signals
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL
READ = _EXECUTE | _READ_FILE | _READ_DIR

SYSTEM = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin", "/etc", "/opt", "/proc", "/sys", "/nix", "/snap")
DEVICES = ("/dev",)
SHARED = ("/dev/shm",)


def abi() -> int:
    """Version of the fence that this kernel has; 0 for none."""
    if sys.platform != "linux":
        return 0
    found: int = ctypes.CDLL(None).syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION_FLAG))
    return max(0, found)


def wanted() -> bool:
    """Is it wanted? `INSTAR_FENCE=off` is for models that need what it keeps from them."""
    return os.environ.get("INSTAR_FENCE", "on").lower() not in ("off", "0", "no", "false")


def standing() -> str:
    """What holds on this machine, in words."""
    version = abi()
    if not version:
        return "not fenced: this system has no Landlock (Linux 5.13 and later has)"
    return f"fenced by Landlock (ABI {version})" if wanted() else "not fenced: INSTAR_FENCE is off"


def readable(store_folder: Path) -> list[Path]:
    """What every worker may read: the system's files and Python's, but no folder that the store lies in."""
    found = [Path(name) for name in SYSTEM]
    found += [Path(name) for name in (sys.prefix, sys.base_prefix, sys.exec_prefix, *sys.path) if name]
    found += [Path(name) for name in os.environ.get("INSTAR_FENCE_READ", "").split(os.pathsep) if name]
    found.append(Path(__file__).parents[3])
    store = store_folder.resolve()
    kept = []
    for path in found:
        real = path.resolve()
        if real.exists() and real != store and real not in store.parents and store not in real.parents:
            kept.append(real)
    return kept


def of_environment(environments: Path, name: str) -> list[Path]:
    """What a worker of an environment of its own reads besides: that, why it is not built if so, and the Python below it."""
    place = environments / name.removeprefix("b3:")
    base = (place / "venv" / "bin" / "python").resolve().parents[1]
    system = [] if base == Path("/") or base in environments.resolve().parents else [base]
    return [place, environments / "failed", *system]


def around_model(store: Path, scratch: Path, bundles: Path, environment: str = "") -> int:
    """Fence a process that loads models: it reads its bundles and its environment, and writes to its scratch folder alone.

    What it starts lives behind the same fence: a program, or the process of an environment of its own.

    Args:
        scratch: Made if it is not there.
        environment: Name of its own environment, if it has one.

    Returns, Raises: As `enclose`.
    """
    scratch.mkdir(mode=0o700, exist_ok=True)
    os.environ["TMPDIR"] = tempfile.tempdir = str(scratch)
    python = of_environment(store / "environments", environment) if environment else []
    return enclose([*readable(store), bundles, *python], [scratch])


def enclose(read: Iterable[Path], write: Iterable[Path]) -> int:
    """Fence this process, and all that it starts, for good.

    Args:
        read: Files and folders that may be read, with all below them.
        write: Folders in which everything may be done.

    Returns:
        Version of the fence; 0 where the system has none, and nothing was done.

    Raises:
        OSError: The kernel has the fence and refuses it.
    """
    version = abi()
    if not version:
        return 0
    every = (
        _FIRST | (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0) | (_IOCTL if version >= 5 else 0)
    )
    libc = ctypes.CDLL(None, use_errno=True)
    attributes = struct.pack("=QQQ", every, 0, _SCOPES if version >= 6 else 0)
    attributes = attributes[: 8 if version < 4 else 16 if version < 6 else 24]
    rules = _call(libc, _CREATE, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    try:
        for path in read:
            _allow(libc, rules, path, READ & every)
        for name in DEVICES:
            _allow(libc, rules, Path(name), (READ | _WRITE_FILE | _IOCTL) & every)
        for path in (*write, *map(Path, SHARED)):
            _allow(libc, rules, path, every)
        if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "the kernel refuses to give up privileges")
        _call(libc, _RESTRICT, ctypes.c_int(rules), ctypes.c_uint32(0))
    finally:
        os.close(rules)
    return version


def _allow(libc: ctypes.CDLL, rules: int, path: Path, access: int) -> None:
    with contextlib.suppress(FileNotFoundError, PermissionError, NotADirectoryError):
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            given = access if path.is_dir() else access & _OF_FILES
            rule = struct.pack("=Qi", given, fd)
            _call(libc, _ADD, ctypes.c_int(rules), ctypes.c_int(_PATH_BENEATH), rule, ctypes.c_uint32(0))
        finally:
            os.close(fd)


def _call(libc: ctypes.CDLL, number: int, *arguments: object) -> int:
    result: int = libc.syscall(number, *arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"the fence around a worker cannot be set: {os.strerror(error)}")
    return result
