#!/usr/bin/env python3
"""The node agent: runs on the Pi, answers GET /events on port 3000 with its load as JSON. It knows nothing of Piman.

One file on psutil (Debian: python3-psutil) and the standard library, so that it can be copied to any Pi; where there is
no psutil it reads the same from the kernel's files. It only reads, takes no input but the path, and needs no privilege;
with CAP_SYSLOG it also counts what the kernel says of the card. GET /metrics is the same for Prometheus.

A file below $PIMAN_AGENT_ROOT goes before the one of the same path in the system: so a test, or a Pi in QEMU, which
has no heat and no supply, can say what is read.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import selectors
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

try:
    import psutil
except ImportError:  # Raspberry Pi OS Lite has none, and a rack has no internet to get it from
    HAS_PSUTIL = False
else:
    HAS_PSUTIL = True

VERSION = "2"
PORT = 3000
MAX_CONNECTIONS = 32  # the oldest makes room: a hundred that say nothing do not keep out the one that asks
MAX_REQUEST = 4096
PATIENCE = 5.0  # seconds for a question and its answer
FRESH = 1.0  # who asks again so soon gets the same answer
VCGENCMD_PAUSE = 60.0
VCGENCMD_PATIENCE = 2.0
KMSG_AT_ONCE = 2000  # kernel messages looked at for one answer

# name -> its name in Prometheus, type and meaning. The order is that of the answer.
METRICS = {
    "cpu_percent": ("cpu_percent", "gauge", "Processor time in use since the answer before, of all cores."),
    "memory_percent": ("memory_percent", "gauge", "Memory in use, without what the kernel could free."),
    "disk_percent": ("disk_percent", "gauge", "Space in use on the root file system."),
    "num_pids": ("num_pids", "gauge", "Processes."),
    "temperature": ("temperature_celsius", "gauge", "Temperature of the processor."),
    "load1": ("load1", "gauge", "Load average of one minute: tasks that run or wait."),
    "uptime": ("uptime_seconds", "gauge", "Since the kernel started."),
    "under_voltage": ("under_voltage", "gauge", "The supply voltage is too low now."),
    "under_voltage_seen": (
        "under_voltage_seen",
        "gauge",
        "The supply voltage was too low at some time since the boot.",
    ),
    "throttled": ("throttled", "gauge", "The processor is slowed down now, by heat or by low voltage."),
    "throttled_seen": ("throttled_seen", "gauge", "The processor was slowed down at some time since the boot."),
    "clock_offset": ("clock_offset_seconds", "gauge", "How far the clock is ahead, as the time client knows it."),
    "card_errors": ("card_errors_total", "counter", "Errors of the SD card and its file system since the boot."),
}

# The firmware's `get_throttled`: what is so now, and, 16 bits higher, what was so at some time since the boot.
UNDER_VOLTAGE = 1 << 0
SLOWED = 1 << 1 | 1 << 2 | 1 << 3  # the clock is capped, throttled, or at the soft limit of the temperature
SEEN = 16

CARD_TROUBLE = re.compile(
    r"mmcblk\d[^:]*: .*error|I/O error,? (?:on )?dev(?:ice)? mmcblk|"
    r"mmc\d+: (?:.*error -\d+ |[Tt]imeout waiting|cache flush error|Controller never released)"
)
VOLTAGE_TROUBLE = re.compile(r"[Uu]nder-?voltage detected")

STA_UNSYNC, STA_NANO = 0x40, 0x2000  # adjtimex(2)


class Timex(ctypes.Structure):
    """The beginning of the kernel's struct timex, and room for the rest of it."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


def places(pattern: str) -> list[Path]:
    """Where the files of an absolute pattern are: those below $PIMAN_AGENT_ROOT, then the system's."""
    found: dict[Path, Path] = {}
    for root in (os.environ.get("PIMAN_AGENT_ROOT"), "/"):
        if root:
            for path in sorted(Path(root).glob(pattern[1:])):
                found.setdefault(path.relative_to(root), path)
    return list(found.values())


def text_of(path: Path) -> str:
    """The first line of a small file; empty where there is none, or where a driver refuses."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.readline(4096).strip()
    except OSError:
        return ""


def first(pattern: str) -> str:
    """The first line of the first such file that has one."""
    return next((text for path in places(pattern) if (text := text_of(path))), "")


def number(text: str, scale: float = 1.0) -> float | None:
    """The number that a line begins with, or nothing."""
    try:
        return float(text.split(maxsplit=1)[0]) * scale
    except (ValueError, IndexError):
        return None


def temperature() -> float | None:
    """Of the processor, in degrees Celsius: the thermal zone that says so, else the first."""
    zones = sorted(places("/sys/class/thermal/thermal_zone*/temp"), key=lambda zone: "cpu" not in type_of(zone))
    return next((found for zone in zones if (found := number(text_of(zone), 1e-3)) is not None), None)


def type_of(zone: Path) -> str:
    return text_of(zone.with_name("type"))


def clock_offset() -> float | None:
    """How far the clock is ahead, in seconds, as the time client last told the kernel; None: it was never set.

    systemd-timesyncd leaves the rest of its correction in the kernel; what chrony leaves there is 0.
    """
    timex = Timex()
    if ctypes.CDLL(None).adjtimex(ctypes.byref(timex)) < 0 or timex.status & STA_UNSYNC:
        return None
    return -float(timex.offset) * (1e-9 if timex.status & STA_NANO else 1e-6)


def image() -> str | None:
    """What Piman's installer wrote into its marker file."""
    for path in places("/.piman"):
        with contextlib.suppress(OSError), path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                key, _, value = line.strip().partition("=")
                if key == "image":
                    return value
    return None


def macs() -> list[str]:
    """The addresses of the network cards: by one of them the asker knows whom it reached."""
    found = {text_of(path).lower() for path in places("/sys/class/net/*/address")}
    return sorted(found - {"", "00:00:00:00:00:00"})


class Kernel:
    """What the kernel has said since the boot, as far as we may read it: errors of the card, and of the supply."""

    def __init__(self) -> None:
        self.errors = 0
        self.under_voltage = False
        self._file: int | None = None
        with contextlib.suppress(OSError, IndexError):
            self._file = os.open(places("/dev/kmsg")[0], os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    @property
    def is_read(self) -> bool:
        return self._file is not None

    def read(self) -> None:
        """Look at the messages since the last time."""
        if self._file is None:
            return
        for _ in range(KMSG_AT_ONCE):
            try:
                data = os.read(self._file, 8192)  # one message: `priority,number,time,flags;text`
            except BrokenPipeError:  # some were lost before we read them
                continue
            except OSError:
                return
            if not data:
                return
            for line in data.decode(errors="replace").splitlines():
                text = line.partition(";")[2]
                self.errors += bool(CARD_TROUBLE.search(text))
                self.under_voltage |= bool(VOLTAGE_TROUBLE.search(text))


class Supply:
    """Low voltage and slowing down, from whatever of the board can tell; and what was seen of them since our start."""

    def __init__(self) -> None:
        self._seen = 0
        self._asked_at = -VCGENCMD_PAUSE
        self._told: int | None = None
        self._vcgencmd = shutil.which("vcgencmd")

    def read(self, now: float) -> dict[str, int | None]:
        bits, alarm = self._bits(now), self._alarm()
        if bits is None and alarm is None:
            return dict.fromkeys(("under_voltage", "under_voltage_seen", "throttled", "throttled_seen"))
        known = bits or 0
        if alarm:
            known |= UNDER_VOLTAGE
        # Whoever reads the firmware's lasting bits may clear them: the kernel's own driver does.
        self._seen |= known | known >> SEEN
        slowed = None if bits is None else int(bool(known & SLOWED))
        return {
            "under_voltage": int(bool(known & UNDER_VOLTAGE)),
            "under_voltage_seen": int(bool(self._seen & UNDER_VOLTAGE)),
            "throttled": slowed,
            "throttled_seen": None if bits is None else int(bool(self._seen & SLOWED)),
        }

    def saw_under_voltage(self) -> None:
        """The kernel told of it."""
        self._seen |= UNDER_VOLTAGE

    def _bits(self, now: float) -> int | None:
        """Raspberry Pi's kernel has them in a file; its system has a program, which is not asked each time."""
        with contextlib.suppress(ValueError):
            return int(first("/sys/devices/platform/*/*firmware/get_throttled"), 16)
        if self._vcgencmd and now - self._asked_at >= VCGENCMD_PAUSE:
            self._asked_at, self._told = now, ask_vcgencmd(self._vcgencmd)
        return self._told

    @staticmethod
    def _alarm() -> bool | None:
        """Every kernel since 4.20 has this one; it was so within the last two seconds."""
        for path in places("/sys/class/hwmon/hwmon*/name"):
            if text_of(path) == "rpi_volt":
                return text_of(path.with_name("in0_lcrit_alarm")) == "1"
        return None


def ask_vcgencmd(program: str) -> int | None:
    """`throttled=0x50005` -> the bits."""
    try:
        done = subprocess.run([program, "get_throttled"], capture_output=True, timeout=VCGENCMD_PATIENCE, check=False)
        return int(done.stdout.decode().partition("=")[2], 16)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


class PsutilLoad:
    """What psutil says of processor, memory, root file system and processes. OSError."""

    def __init__(self) -> None:
        psutil.cpu_percent(interval=None)  # so that the first answer has a span to measure

    def read(self) -> dict[str, float]:
        try:
            return {
                "cpu_percent": psutil.cpu_percent(interval=None),
                "memory_percent": psutil.virtual_memory().percent,
                "disk_percent": psutil.disk_usage("/").percent,
                "num_pids": len(psutil.pids()),
            }
        except psutil.Error as error:
            raise OSError(str(error)) from error


class ProcLoad:
    """The same from /proc (proc(5)), as psutil reckons it. OSError."""

    def __init__(self) -> None:
        self._before = self._processor()

    @staticmethod
    def _processor() -> tuple[int, int]:
        """Ticks in use and in all, since the boot; a guest's are in its host's already."""
        times = [int(word) for word in Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
        return sum(times) - times[3] - times[4], sum(times)

    def read(self) -> dict[str, float]:
        (used, all_), self._before = self._before, self._processor()
        used, all_ = self._before[0] - used, self._before[1] - all_
        lines = (line.split() for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
        memory = {words[0]: int(words[1]) for words in lines}
        disk = os.statvfs("/")
        taken = disk.f_blocks - disk.f_bfree  # what is kept for root counts neither as taken nor as free
        return {
            "cpu_percent": round(100 * used / all_, 1) if all_ > 0 else 0.0,
            "memory_percent": round(100 * (1 - memory["MemAvailable:"] / memory["MemTotal:"]), 1),
            "disk_percent": round(100 * taken / max(taken + disk.f_bavail, 1), 1),
            "num_pids": sum(entry.name.isdecimal() for entry in Path("/proc").iterdir()),
        }


class Agent:
    """Reads the Pi: `events` is what /events answers."""

    def __init__(self) -> None:
        self._load = PsutilLoad() if HAS_PSUTIL else ProcLoad()
        self._kernel, self._supply = Kernel(), Supply()
        self._events: dict[str, object] = {}
        self._read_at = -FRESH

    def events(self) -> dict[str, object]:
        """The load now, by name; None for what this Pi cannot tell. time is Unix time in seconds."""
        now = time.monotonic()
        if now - self._read_at >= FRESH:
            self._events, self._read_at = self._read(now), now
        return {**self._events, "time": time.time()}

    def _read(self, now: float) -> dict[str, object]:
        self._kernel.read()
        if self._kernel.under_voltage:
            self._supply.saw_under_voltage()
        counts = [int(text) for path in places("/sys/fs/ext4/*/errors_count") if (text := text_of(path)).isdecimal()]
        known = counts or self._kernel.is_read
        found: dict[str, object] = {
            **self._load.read(),
            "temperature": temperature(),
            "load1": number(first("/proc/loadavg")),
            "uptime": number(first("/proc/uptime")),
            **self._supply.read(now),
            "clock_offset": clock_offset(),
            "card_errors": sum(counts) + self._kernel.errors if known else None,
        }
        words = {"image": image(), "kernel": os.uname().release, "agent": VERSION, "mac": macs()}
        return {name: found[name] for name in METRICS} | words

    def metrics(self) -> str:
        """The same in Prometheus' text format."""
        events = self.events()
        lines = []
        for key, (name, kind, text) in METRICS.items():
            if isinstance(events[key], (int, float)):
                lines += [f"# HELP piman_agent_{name} {text}", f"# TYPE piman_agent_{name} {kind}"]
                lines.append(f"piman_agent_{name} {events[key]}")
        labels = ",".join(f'{key}="{escaped(str(events[key] or ""))}"' for key in ("image", "kernel", "agent"))
        lines += ["# HELP piman_agent_info What runs on the Pi.", "# TYPE piman_agent_info gauge"]
        return "\n".join([*lines, f"piman_agent_info{{{labels}}} 1", ""])


def escaped(text: str) -> str:
    """A label's value as Prometheus wants it."""
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def answer(agent: Agent, question: bytes) -> bytes:
    """The HTTP answer to a question that is there as a whole, or too long."""
    words = question.partition(b"\r\n")[0].split(b" ")
    if len(words) != 3 or not words[2].startswith(b"HTTP/1.") or len(question) > MAX_REQUEST:
        return http("400 Bad Request", json.dumps({"error": "this is no question in HTTP/1"}))
    if words[0] not in (b"GET", b"HEAD"):
        return http("405 Method Not Allowed", json.dumps({"error": "only GET is here"}), more="Allow: GET, HEAD\r\n")
    path = words[1].partition(b"?")[0].rstrip(b"/")
    try:
        if path == b"/events":
            made = http("200 OK", json.dumps(agent.events()))
        elif path == b"/metrics":
            made = http("200 OK", agent.metrics(), "text/plain; version=0.0.4; charset=utf-8")
        else:
            made = http("404 Not Found", json.dumps({"error": "only /events and /metrics are here"}))
    except OSError as error:
        made = http("503 Service Unavailable", json.dumps({"error": f"cannot read the load: {error}"}))
    return made[: made.index(b"\r\n\r\n") + 4] if words[0] == b"HEAD" else made


def http(status: str, body: str, kind: str = "application/json", more: str = "") -> bytes:
    data = body.encode()
    head = f"HTTP/1.0 {status}\r\nServer: piman-agent\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n{more}"
    return f"{head}Connection: close\r\n\r\n".encode() + data


class Connection:
    """One asker."""

    def __init__(self, asker: socket.socket, deadline: float) -> None:
        self.socket, self.deadline = asker, deadline
        self.question, self.answer = b"", b""


class Server:
    """Listens at once; `run` answers until `stop`. One thread: nothing here blocks, and nobody can hold up another."""

    def __init__(self, address: str = "0.0.0.0", port: int = PORT) -> None:
        self._listener = socket.create_server((address, port), backlog=MAX_CONNECTIONS)
        self._listener.setblocking(False)
        self.port = int(self._listener.getsockname()[1])
        self._wake, self._waker = socket.socketpair()
        self._agent = Agent()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._connections: dict[socket.socket, Connection] = {}  # the oldest first

    def stop(self) -> None:
        self._waker.send(b"\0")

    def close(self) -> None:
        for each in (self._listener, self._wake, self._waker, *self._connections):
            each.close()
        self._selector.close()

    def run(self) -> None:
        while True:
            for key, _events in self._selector.select(self._pause()):
                if key.fileobj is self._wake:
                    return
                if key.fileobj is self._listener:
                    self._accept()
                elif key.data.socket in self._connections:
                    self._serve(key.data)
            self._expire()

    def _pause(self) -> float | None:
        oldest = next(iter(self._connections.values()), None)
        return max(0.0, oldest.deadline - time.monotonic()) if oldest else None

    def _accept(self) -> None:
        try:
            asker, _address = self._listener.accept()
        except OSError:
            return
        if len(self._connections) >= MAX_CONNECTIONS:
            self._drop(next(iter(self._connections.values())))
        asker.setblocking(False)
        connection = self._connections[asker] = Connection(asker, time.monotonic() + PATIENCE)
        self._selector.register(asker, selectors.EVENT_READ, connection)

    def _serve(self, connection: Connection) -> None:
        try:
            if not connection.answer:
                data = connection.socket.recv(MAX_REQUEST + 1)
                connection.question += data
                if not data:
                    self._drop(connection)
                    return
                if b"\r\n\r\n" not in connection.question and len(connection.question) <= MAX_REQUEST:
                    return
                connection.answer = answer(self._agent, connection.question)
                self._selector.modify(connection.socket, selectors.EVENT_WRITE, connection)
            connection.answer = connection.answer[connection.socket.send(connection.answer) :]
        except OSError:
            connection.answer = b""
        if not connection.answer:
            self._drop(connection)

    def _expire(self) -> None:
        while (pause := self._pause()) is not None and pause <= 0:
            self._drop(next(iter(self._connections.values())))

    def _drop(self, connection: Connection) -> None:
        if self._connections.pop(connection.socket, None):
            self._selector.unregister(connection.socket)
            connection.socket.close()


def main() -> int:
    try:
        server = Server()
    except OSError as error:
        sys.stderr.write(f"cannot listen on port {PORT}: {error.strerror}\n")
        return 1
    try:
        server.run()
    except KeyboardInterrupt:
        pass
    finally:
        server.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
