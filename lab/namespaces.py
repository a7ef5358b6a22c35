"""The private world of the lab: namespaces, and interfaces inside network namespaces. Knows no Pi and no protocol.

The lab runs in network, mount and PID namespaces of its own (and a user namespace where it was not started by root),
so that nothing of it shows outside and everything dies with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import NoReturn

CLONE_NEWNET = 0x40000000
_INSIDE, _OUTER = "PIMAN_LAB_INSIDE", "PIMAN_LAB_OUTER"
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCSIFADDR, _SIOCSIFNETMASK, _SIOCETHTOOL = 0x8913, 0x8914, 0x8916, 0x891C, 0x8946
_IFF_UP = 1
_PR_SET_PDEATHSIG, _SI_KERNEL = 1, 0x80
_OFFLOADS = (0x17, 0x1F, 0x24, 0x2C)  # ETHTOOL_STXCSUM, STSO, SGSO, SGRO
_SET_UP = (
    "mount -t tmpfs tmpfs /run && mkdir -p /run/netns /run/lock && ip link set lo up && "
    "{ echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; } 2>/dev/null; "
    'cd "$0" && exec "$@"'
)
_libc = ctypes.CDLL(None, use_errno=True)


class LabError(Exception):
    """The lab cannot be had; `str()` is a sentence for the user."""


def inside() -> bool:
    """Whether this process runs in a lab's private world, through `enter` or `exec_in`."""
    return os.environ.get(_INSIDE) == "1"


def enter(argv: Sequence[str], inherited: Collection[int] = ()) -> NoReturn:
    """Run `argv` in a new private world and end with its exit code; LabError where namespaces are refused.

    This process stays outside and passes SIGTERM, SIGINT and SIGHUP on. `argv` is PID 1 in there: a signal that it
    has no handler for does nothing to it (pid_namespaces(7)). If this process is killed, the world goes with it.
    `inherited` are the descriptors that it gets besides the first three.
    """
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if os.geteuid():
        command[1:1] = ["--user", "--map-root-user"]
    try:
        tried = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    except OSError as error:
        raise LabError(f"unshare (package util-linux) is needed: {error}") from error
    if tried.returncode:
        hint = "run it with sudo" if os.geteuid() else "this machine (a container?) forbids it even to root"
        raise LabError(f"no namespaces for the lab ({tried.stderr.strip()}): {hint}")
    words = [*command, "sh", "-c", _SET_UP, str(Path.cwd()), *argv]
    environment = {**os.environ, _INSIDE: "1", _OUTER: str(os.getpid())}
    with subprocess.Popen(
        words,
        env=environment,
        pass_fds=tuple(inherited),
        preexec_fn=_die_with_parent,  # noqa: PLW1509 - no threads
    ) as process:
        sys.exit(_pass_signals(process))


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _pass_signals(process: subprocess.Popen[bytes]) -> int:
    """Pass signals on to the process inside until it ends; its exit code, as a shell counts it."""
    passed = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, passed | {signal.SIGCHLD})
    while process.poll() is None:
        heard = signal.sigwaitinfo(passed | {signal.SIGCHLD})
        # A Ctrl-C (from the kernel) went to the whole foreground group, so to those inside as well.
        if heard.si_signo in passed and heard.si_code != _SI_KERNEL:
            with contextlib.suppress(OSError):  # it is just ending
                inner = _child_in_new_world(process.pid)
                os.kill(inner or process.pid, heard.si_signo)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def write_lab_file(directory: Path) -> None:
    """Note in directory/lab.json how `exec_in` finds this process."""
    outer = os.environ.get(_OUTER)
    known = {"pid": int(outer or os.getpid()), "outside": outer is not None, "directory": str(directory)}
    (directory / "lab.json").write_text(json.dumps(known) + "\n", encoding="utf-8")


def find_lab(directory: Path) -> int:
    """The PID, as seen from here, of a process in the world of the lab that runs in `directory`; LabError."""
    try:
        known = json.loads((directory / "lab.json").read_text(encoding="utf-8"))
        pid, outside = int(known["pid"]), bool(known.get("outside"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise LabError(f"no lab runs in {directory}; start one with `piman lab up`") from error
    try:
        members = [_child_in_new_world(child) for child in _children(pid)] if outside else [pid]
        for member in members:
            if member is not None and Path(f"/proc/{member}/ns/pid").readlink():
                return member
    except FileNotFoundError:
        pass
    except PermissionError as error:
        raise LabError(f"the lab of {directory} is another user's; run this with sudo") from error
    raise LabError(f"the lab of {directory} has ended; start it again with `piman lab up`")


def _children(pid: int) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError, IndexError):
            if entry.name.isdigit():
                status = (entry / "stat").read_text(encoding="utf-8", errors="replace")
                if int(status.rpartition(")")[2].split()[1]) == pid:
                    yield int(entry.name)


def _child_in_new_world(pid: int) -> int | None:
    """The child of an `unshare` that is in the PID namespace it made; None for any other process."""
    here, children = (Path(f"/proc/{pid}/ns/{kind}").readlink() for kind in ("pid", "pid_for_children"))
    return next(_children(pid), None) if here != children else None


def exec_in(directory: Path, argv: Sequence[str]) -> NoReturn:
    """Replace this process by `argv` running in the world of the lab in `directory`; LabError where none runs."""
    pid = find_lab(directory)
    command = ["nsenter", "--target", str(pid), "--net", "--mount", "--pid", "--root", "--wd"]
    if Path(f"/proc/{pid}/ns/user").readlink() != Path("/proc/self/ns/user").readlink():
        command += ["--user", "--preserve-credentials"]
    environment = {**os.environ, _INSIDE: "1"}
    words = [*command, "--", "sh", "-c", 'cd "$0" && exec "$@"', str(Path.cwd()), *argv]
    os.execvpe(command[0], words, environment)


@contextlib.contextmanager
def network_namespace(name: str) -> Iterator[None]:
    """Put the calling thread into the named namespace; sockets made inside stay there for their life."""
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        there = os.open(f"/run/netns/{name}", os.O_RDONLY)
        try:
            if _libc.setns(there, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"setns {name}")
        finally:
            os.close(there)
        try:
            yield
        finally:
            _libc.setns(here, CLONE_NEWNET)
    finally:
        os.close(here)


def ip_batch(lines: Iterable[str], namespace: str = "") -> None:
    """Run `ip` once for many commands, one a line; raises LabError with what it said."""
    command = ["ip", *(("-n", namespace) if namespace else ()), "-batch", "-"]
    try:
        done = subprocess.run(command, input="\n".join(lines) + "\n", capture_output=True, text=True, check=False)
    except OSError as error:
        raise LabError(f"ip (package iproute2) is needed: {error}") from error
    if done.returncode:
        raise LabError(f"ip: {done.stderr.strip() or done.returncode}")


class Interface:
    """One interface of one network namespace ("" is the caller's). Its methods may be called from any thread."""

    def __init__(self, namespace: str, name: str) -> None:
        self.namespace, self.name = namespace, name
        self._name = name.encode()
        with network_namespace(namespace) if namespace else contextlib.nullcontext():
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def close(self) -> None:
        self._socket.close()

    def up(self, wanted: bool = True) -> None:
        """Up or down; down takes the carrier from the other end, as pulling the cable does."""
        answer = fcntl.ioctl(self._socket, _SIOCGIFFLAGS, struct.pack("16sH22x", self._name, 0))
        (flags,) = struct.unpack("16xH", answer[:18])
        flags = flags | _IFF_UP if wanted else flags & ~_IFF_UP
        fcntl.ioctl(self._socket, _SIOCSIFFLAGS, struct.pack("16sH22x", self._name, flags))

    def set_address(self, address: IPv4Address, netmask: IPv4Address) -> None:
        """Give it this address alone; 0.0.0.0 takes away the one it has."""
        self._set(_SIOCSIFADDR, address)
        if int(address):
            self._set(_SIOCSIFNETMASK, netmask)

    def _set(self, request: int, address: IPv4Address) -> None:
        name = struct.pack("16sHH4s16x", self._name, socket.AF_INET, 0, address.packed)
        with contextlib.suppress(OSError) if not int(address) else contextlib.nullcontext():
            fcntl.ioctl(self._socket, request, name)

    def no_offloads(self) -> None:
        """Make every frame complete on the wire: checksums filled in, nothing larger than the MTU."""
        for command in _OFFLOADS:
            value = ctypes.create_string_buffer(struct.pack("II", command, 0))
            request = struct.pack("16sP16x", self._name, ctypes.addressof(value))
            with contextlib.suppress(OSError):  # a kind of offload that this interface does not have
                fcntl.ioctl(self._socket, _SIOCETHTOOL, request)


def no_ipv6(namespace: str) -> None:
    """Switch IPv6 off in a namespace, so that its router solicitations do not disturb what is watched."""
    with network_namespace(namespace), contextlib.suppress(OSError):
        Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1", encoding="ascii")


def require_private_network() -> None:
    """Raise LabError where an interface other than lo is up: then this is somebody's real network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        for _, name in socket.if_nameindex():
            answer = fcntl.ioctl(asker, _SIOCGIFFLAGS, struct.pack("16sH22x", name.encode(), 0))
            if name != "lo" and struct.unpack("16xH", answer[:18])[0] & _IFF_UP:
                raise LabError(f"the lab wants a network namespace of its own, but {name} is up here")
