"""A Raspberry Pi's boot, from power to the kernel's first instruction: asks for what that model asks, in its order.

Works on any Link in any time: no socket, no thread, no file. `boot` waits as stack.py says, `run` drives it. What comes
after (a machine in QEMU, or a light Pi) gets exactly what was downloaded.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address

from lab.config_txt import Settings, parse_config_txt
from lab.profiles import (
    MASK_ROM_XID,
    Dhcp,
    Identity,
    Profile,
    Quirks,
    Stage,
    Step,
    discover_options,
    request_options,
)
from lab.stack import DhcpClient, Hung, Lease, Link, NoAnswer, NotFound, Stack, TftpClient, Waiting, drive

_DEFAULTS = Settings()


class BootFailed(Exception):  # noqa: N818 - the board's own end, not the program's
    """The board gave up; `str()` says on what. `hung`: only a power cycle helps."""

    def __init__(self, text: str, hung: bool = False) -> None:
        super().__init__(text)
        self.hung = hung


@dataclass(frozen=True, slots=True)
class Downloaded:
    """What the board has in memory when it starts the kernel. Empty bytes: there was none.

    from_disk   it boots what is on a disk of its own instead, and nothing else here means anything
    """

    kernel: bytes
    initramfs: bytes
    device_tree: bytes
    cmdline: str
    lease: Lease
    requests: tuple[str, ...] = ()  # every name that was asked for, as asked, in order
    complaints: tuple[str, ...] = ()  # what the servers did that boards are known to choke on
    from_disk: bool = False


@dataclass
class _Memory:
    """What the board knows so far in this boot."""

    prefix: str
    files: dict[str, bytes] = field(default_factory=dict)
    settings: Settings = _DEFAULTS
    lease: Lease | None = None
    kernel: str = ""
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


_NOBODY = IPv4Address(0)
_FROM_DISK = Downloaded(b"", b"", b"", "", Lease(_NOBODY, _NOBODY, _NOBODY, _NOBODY, _NOBODY), from_disk=True)


class BootRom:
    """One board. `run` is one boot; `note` is told each milestone in a few words.

    scale   shortens the wait before the first frame, and no other: the servers' own delays fit the real ones
    disk    there is something on a disk of its own that the board can boot
    """

    def __init__(
        self,
        profile: Profile,
        board: Identity,
        link: Link,
        clock: Callable[[], float],
        rng: random.Random,
        note: Callable[[str], None] = lambda _text: None,
        scale: float = 1.0,
        disk: bool = False,
    ) -> None:
        self._profile, self._board, self._link = profile, board, link
        self._clock, self._random, self._note, self._scale = clock, rng, note, scale
        self._disk = disk
        self._stack = Stack(link, board.mac_bytes, clock)

    def run(self, warm: bool = False) -> Downloaded:
        """`boot` on the link it was given."""
        return drive(self.boot(warm), self._link, self._clock)

    def boot(self, warm: bool = False) -> Waiting[Downloaded]:
        """Boot, after a reset if `warm`, else from power on. Raises BootFailed."""
        if warm and not self._profile.warm_boot:
            raise BootFailed("hangs after a reset", hung=True)
        if self._disk and self._profile.disk_first:
            return _FROM_DISK
        try:
            return (yield from self._network_boot())
        except BootFailed as error:
            if not self._disk or error.hung:
                raise
            self._note(f"{error}; boots its disk")
            return _FROM_DISK

    def _network_boot(self) -> Waiting[Downloaded]:
        memory = _Memory(prefix=self._board.folder)
        yield from self._stack.sleep(self._profile.link_delay * self._scale)
        try:
            for stage in self._profile.stages:
                yield from self._run_stage(stage, memory)
        except NoAnswer as error:
            raise BootFailed(str(error), isinstance(error, Hung)) from error
        if memory.lease is None:
            raise BootFailed("no stage of this model asks for an address")
        names = memory.settings.initramfs or self._auto_initramfs(memory)
        return Downloaded(
            kernel=memory.files.get(memory.kernel, b""),
            initramfs=b"".join(memory.files.get(name, b"") for name in names),
            device_tree=memory.files.get(self._device_tree(memory), b""),
            cmdline=memory.files.get(memory.settings.cmdline, b"").decode("utf-8", "replace").strip(),
            lease=memory.lease,
            requests=tuple(memory.requests),
            complaints=tuple(memory.complaints),
        )

    def _run_stage(self, stage: Stage, memory: _Memory) -> Waiting[None]:
        if stage.dhcp is not None:
            self._stack = Stack(self._link, self._board.mac_bytes, self._clock)  # it knows nobody yet
        stack = self._stack
        stack.ttl, stack.quirks = stage.ttl, stage.quirks
        if stage.dhcp is not None:
            self._note(f"{stage.name} asks for an address")
            memory.lease = yield from self._lease(stage.dhcp, stage.quirks)
            stack.address = memory.lease.address.packed
        if memory.lease is None:
            raise BootFailed(f"{stage.name} has no address")
        client = TftpClient(stack, memory.lease.tftp_server, stage.tftp, self._random, stage.first_port)
        try:
            for step in stage.steps:
                for one in self._fill(step, memory):
                    yield from self._run_step(stage, one, client, memory)
            yield from client.finish()
        finally:
            memory.complaints += client.complaints

    def _lease(self, dhcp: Dhcp, quirks: Quirks) -> Waiting[Lease]:
        xid = MASK_ROM_XID if quirks.constant_xid else self._random.getrandbits(32)
        client = DhcpClient(self._stack, xid)
        offer, server = yield from client.discover(discover_options(dhcp, self._board), dhcp.waits)
        if not quirks.requests:
            return offer.lease(server)
        identifier = offer.options.get(54, offer.source.packed)
        options = request_options(dhcp, self._board, offer.address.packed, identifier, quirks.request_class)
        ack = yield from client.request(options, dhcp.waits[0])
        return ack.lease(ack.pxe_server(quirks.menu) or server)  # later messages need not repeat the boot server

    def _fill(self, step: Step, memory: _Memory) -> list[Step]:
        """The step with the words in braces replaced, from config.txt or the model's defaults; often none or many."""
        words: dict[str, Callable[[_Memory], tuple[str, ...]]] = {
            "{kernels}": self._kernels,
            "{kernel}": self._kernel,
            "{device_tree}": lambda m: (self._device_tree(m),),
            "{cmdline}": lambda m: (m.settings.cmdline,),
            "{initramfs}": lambda m: m.settings.initramfs or self._auto_initramfs(m),
            "{overlays}": lambda m: tuple(f"overlays/{name}.dtbo" for name in m.settings.overlays),
        }
        if step.name not in words:
            return [step]
        return [replace(step, name=name) for name in words[step.name](memory)]

    def _kernels(self, memory: _Memory) -> tuple[str, ...]:
        if memory.settings.kernel:
            return (memory.settings.kernel,)
        return self._profile.kernels_64 if memory.settings.arm_64bit else self._profile.kernels

    def _kernel(self, memory: _Memory) -> tuple[str, ...]:
        if not memory.kernel:
            raise BootFailed(f"no kernel: none of {', '.join(self._kernels(memory))} is there")
        return (memory.kernel,)

    def _device_tree(self, memory: _Memory) -> str:
        return memory.settings.device_tree or self._profile.device_tree

    def _auto_initramfs(self, memory: _Memory) -> tuple[str, ...]:
        kernel = memory.kernel or self._kernels(memory)[0]
        name = self._profile.initramfs.get(kernel, "") if memory.settings.auto_initramfs else ""
        return (name,) if name else ()

    def _run_step(self, stage: Stage, step: Step, client: TftpClient, memory: _Memory) -> Waiting[None]:
        try:
            yield from self._ask(stage, step, client, memory)
        except NotFound as error:
            if step.otherwise:
                yield from self._run_step(stage, replace(step, name=step.otherwise, otherwise=""), client, memory)
            elif step.folder and memory.prefix:
                self._note(f"no folder {memory.prefix}: all from the root")
                memory.prefix = ""
                if step.full:
                    yield from self._run_step(stage, step, client, memory)
            elif step.required:
                raise BootFailed(f"{step.name} is missing: {error}") from error

    def _ask(self, stage: Stage, step: Step, client: TftpClient, memory: _Memory) -> Waiting[None]:
        in_root = stage.root_only or not memory.prefix
        path = step.name if in_root else f"{memory.prefix}{step.slash}{step.name}"
        for _ in range(step.probes):
            memory.requests.append(path)
            yield from client.probe(path)
            if step.name in self._kernels(memory):
                memory.kernel = memory.kernel or step.name
        if not step.full:
            return
        memory.requests.append(path)
        data, as_asked = yield from client.fetch(path)
        self._note(f"{path}: {len(data)} bytes")
        if step.name == "config.txt":
            self._configure(data if as_asked or not stage.quirks.needs_blksize else b"", stage.quirks, memory)
        elif step.name in self._wanted(memory):
            memory.files[step.name] = data

    def _wanted(self, memory: _Memory) -> tuple[str, ...]:
        settings = memory.settings
        initramfs = settings.initramfs or self._auto_initramfs(memory)
        return (memory.kernel, *initramfs, self._device_tree(memory), settings.cmdline)

    def _configure(self, data: bytes, quirks: Quirks, memory: _Memory) -> None:
        """Read config.txt. An EEPROM board says nothing where it ignores one that is too long for it."""
        if quirks.config_limit and len(data) > quirks.config_limit:
            data = b""
        settings = parse_config_txt(data, self._profile.filters, self._board.serial)
        if memory.settings not in (_DEFAULTS, settings):
            memory.complaints.append("config.txt: not the same twice in one boot")
        memory.settings = settings
