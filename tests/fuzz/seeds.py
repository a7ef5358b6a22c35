"""What the fuzzer starts from: the golden packets and files of the unit tests, as inputs of the targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from dhcp.boards import BOOT_ROM_GUID
from dhcp.packet import MAGIC
from monitoring import blocks
from tests import (
    test_answers,
    test_blocks,
    test_config,
    test_dhcp_frames,
    test_dhcp_packet,
    test_dhcp_policy,
    test_hosts,
    test_ntp_packet,
    test_snmp,
    test_tftp_files,
    test_tftp_packet,
    test_usm,
)
from tests import test_tcp_packet as tcp
from tests.agents import BEHAVIOURS
from tests.fuzz.targets import ENV, IMAGE, MAC, join
from utility.hosts import HEADER
from utility.rules import BUILT_IN

ROOT = Path(__file__).parent.parent.parent


def _dhcp_messages() -> list[bytes]:
    it = test_dhcp_policy
    server, address = it.SERVER, it.ADDRESS
    messages = [
        it.boot_rom(),
        it.loader(it.DISCOVER),
        it.loader(it.REQUEST, {50: address, 54: server}),
        it.message(it.REQUEST, {50: address, 54: it.FOREIGN}),
        it.message(it.REQUEST, {50: it.TAKEN}),
        it.message(it.REQUEST, ciaddr=address),
        it.message(it.DISCOVER, {60: "piman-installer", 61: b"\1id", 57: 1500, 55: (1, 3, 6, 12, 15, 28, 42)}),
        it.message(it.DISCOVER, {60: "x"}, chaddr=it.STRANGER, flags=0x8000),
        it.message(it.DECLINE, {50: address, 54: server}),
        it.message(it.RELEASE, {54: server}, ciaddr=address),
        it.message(it.INFORM, ciaddr=address),
    ]
    return [message.encode() for message in messages]


def _dhcp_packets() -> list[bytes]:
    it = test_dhcp_packet
    boards = [it.discover(options) for options in (it.BOOT_ROM, it.SECOND_STAGE, it.PI4)]
    overloaded = it.EMPTY_BYTES[:44] + b"\x0c\2pi\xff".ljust(64, b"\0") + b"\x0f\2ab\xff".ljust(128, b"\0")
    return [
        *(data for _packet, data in it.TABLE),
        *boards,
        overloaded + MAGIC + b"\x34\1\3\xff",
        *_dhcp_messages(),
    ]


def _transfers() -> list[bytes]:
    requests = [data for _packet, data in test_tftp_packet.GOLDEN if data[:2] == b"\0\1"]
    requests += [
        b"\0\1f\0octet\0blksize\x008\0timeout\x002\0tsize\x000\0",
        b"\0\1f\0octet\0blksize\x001468\0windowsize\x008\0",
        b"\0\1f\0netascii\0tsize\x000\0",
    ]
    errand = [(4, b""), (4, b""), (0xA1, b""), (0, b"\0\4\0\1"), (4, b""), (0xF9, b""), *[(4, b"")] * 30]
    ends = [(0, b"\0\5\0\0bye\0"), (0xF2, b""), (0xF3, b"")]
    return [join((size, each), *errand, end) for size, each in enumerate(requests * 3, 10) for end in ends]


def _conversations() -> list[bytes]:
    hello = f"HELLO 2 mac={MAC} serial=deadbeef model=Raspberry_Pi_4 sd=268435456".encode()
    checks, installed = b"CHECKING_IF_INSTALLED", b"IS_INSTALLED image=rootfs-0 order=tok"
    to_image = [(15, hello), (31, b"SET_DATE"), (15, b"IS_UNINSTALLED card=blank"), (15, b"FORMATTING"), (0, b"")]
    finish = [
        *((1, b"\1\0\0"), (15, b"PROGRESS 65536"), (2, b""), (15, f"IMAGE_OK sha256={IMAGE.sha256}".encode())),
        *((15, f"IS_FORMATTED image={IMAGE.id}".encode()), (15, b"RECEIVED_BOOT"), (4, b"")),
    ]
    ordered = [*finish[:4], (15, f"IS_FORMATTED image={IMAGE.id} order=tok".encode()), (15, b"RECEIVED_BOOT")]
    old = [(15, b"+ set -x"), (15, b"Hello World"), (15, b"SET DATE"), (15, b"IS_UNINSTALLED"), (15, b"FORMATTED")]
    stories = [
        [(15, hello), (15, b"SET_DATE"), (15, checks), (15, installed), (15, b"RECEIVED_BOOT"), (4, b"")],
        [*to_image, *finish],
        [*to_image, *ordered],
        [*old, (0, b""), (2, b""), (15, b"IS_FORMATTED"), (4, b"")],
        [(15, hello), (15, b"IS_UNINSTALLED card=none"), (15, b"ERROR card no card")],
        [*to_image, (15, b"ERROR unpack no space left"), (3, b"")],
        [(0xE0 | 15, b"HELLO x"), (0xE0 | 15, b"GET / HTTP/1.1")],
    ]
    return [first + join(*story) for story in stories for first in (b"\0", b"\x80", b"\x7f")]


def _lines() -> list[bytes]:
    said = [text for _message, text in tcp.MESSAGES]
    told = [text + "\nEOM" for _command, _version, text in tcp.COMMANDS]
    whole = ["\n".join(said), "\n".join(told)]
    return [first + text.encode() + b"\n" for first in (b"\xff", b"\6") for text in (*said, *told, *whole)]


def _answers() -> list[bytes]:
    digits = bytes.fromhex(MAC.replace(":", ""))
    found = bytes([0, 1, 0x40, 1])  # both GETs of findport: ports 1 and 1
    row = bytes([7 << 2]) + b"\1" + digits + b"\5"
    walked = bytes([6 << 2]) + digits + b"\3"
    return [
        join((0, found), (0, walked), (0, row), (0, b"\0\7"), (0, b"\1a\x41b\x80\1")),
        join((0, b"\3\0\x43\0"), (0, row), (0, b"\0\7")),
        join((1, b""), (5, b"")),
        join((0, found), (5, b""), (0, walked), (2, b"")),
        join((255, bytes.fromhex(test_snmp.RESPONSES[0][1])), (0, b"")),
    ]


def _engines() -> list[bytes]:
    engine = test_usm.Engine()
    hello = (0, engine.hello())
    return [join(hello, *((1, engine.answer(level=level)) for level in (0, 1, 3))), join(hello, hello)]


def _cycles() -> list[bytes]:
    def rows(*values: int) -> bytes:  # port n of group 1 has the n-th value
        return b"".join(bytes([2 << 2, 1, port, value]) for port, value in enumerate(values, 1))

    end, off, on = (0, b"\3\0"), (0, b"\0\2\x40\1"), (0, b"\0\1\x40\3")
    tables = [(0, rows(1, 1, 2)), end, (0, rows(3, 3, 2)), end, (0, rows(1, 2, 5)), end]
    face = [*tables, *[end] * 10]  # without interfaces, neighbours and forwarding table
    turned_off = [*[(0, b""), off] * 3, off]
    return [
        join(*face, *turned_off, *[(0, b""), on, end, end] * 3, on, on),
        join(*face, (0, b""), off, off, (17, b""), (254, b""), *[(0, b""), on, end, end] * 4),
        join(*face, *turned_off, *[(254, b"")] * 40, (0, b""), on),
        join(*tables, *[end] * 7, (6, b""), *[end] * 2, *turned_off),
        join(end, end, end),
    ]


SEEDS: Mapping[str, Callable[[], list[bytes]]] = {
    "dhcp_packet": _dhcp_packets,
    "dhcp_frame": lambda: [
        first + test_dhcp_frames.FRAME_BYTES + end for first in (b"\0", b"\xff") for end in (b"", b"\0")
    ],
    "dhcp_guid": lambda: [test_dhcp_policy.GUID, BOOT_ROM_GUID, b"\0" + b"abcd" * 4],
    "dhcp_policy": lambda: [
        *(join((0, message)) for message in _dhcp_messages()),
        join(*((100, message) for message in _dhcp_messages())),
    ],
    "dhcp_prepared": lambda: [
        *(join((0, message)) for message in _dhcp_messages()),
        join(*((0, message) for message in _dhcp_messages()[1:3])),
        join(*((number, message) for message in _dhcp_messages() for number in (0, 2))),
        join(*((number, message) for message in _dhcp_messages() for number in (1, 101))),
    ],
    "tftp_packet": lambda: [data for _packet, data in test_tftp_packet.GOLDEN],
    "tftp_transfer": _transfers,
    "tftp_files": lambda: [
        *(name.encode("latin-1") for name, _code in test_tftp_files.TRICKS),
        *(b"link\n" + target for target in (b"start4.elf", b"..", b"overlays/../deadbeef/start4.elf", b"link", b"/")),
        *(b"deadbeef/start4.elf", b"B8-27-EB-01-02-03//config.txt", b"in/start4.elf", b"cmdline.txt", b"link/a\nup"),
    ],
    "ntp_server": lambda: [
        test_ntp_packet.GOLDEN_BYTES,
        *(bytes([first]) + test_ntp_packet.GOLDEN_BYTES[1:] + b"more" for first in (0x1B, 0x08, 0x23, 0xE3, 0x16)),
    ],
    "tcp_lines": _lines,
    "tcp_session": _conversations,
    "snmp_packet": lambda: [bytes.fromhex(data) for _version, data, _response in test_snmp.RESPONSES],
    "snmp_v3": _engines,
    "snmp_switch": _answers,
    "snmp_power": _cycles,
    "config": lambda: [
        *(text.encode() for text in (test_config.BASE, test_config.FULL, test_config.BASE + test_config.ALERTS)),
        (ROOT / "config.yaml").read_bytes() + ENV + (ROOT / ".env.example").read_bytes(),
        test_config.BASE.encode()
        + ENV
        + b"PIMAN_ROUTER=172.30.4.2\nexport PIMAN_DNS='10.1.1.1, 10.2.2.2'\nX=\"y\\n\"\n",
    ],
    "hosts": lambda: [
        *(text.encode() for text in (test_hosts.GOOD, HEADER)),
        (ROOT / "hosts.csv").read_bytes(),
        b"\xef\xbb\xbfb827eb000001;0.0.0.0;pi1\r\nb8:27:eb:00:00:02\r\n",
    ],
    "mac": lambda: [b"B8-27-EB-01-02-03", b"b827.eb01.0203", b"b827eb010203", b"B827EB-010203"],
    "rules": lambda: [
        *(rule.expression.encode() for rule in BUILT_IN),
        *(each.encode() for each in ("temperature >= 80.5°C for 1h30m clear <= 75 for 90", "load1 == -0.25 clear > 3")),
    ],
    "agent_answer": lambda: [
        test_answers.http(test_answers.EVENTS),
        *(answer for each in BEHAVIOURS.values() if (answer := each("127.1.0.1")) and len(answer) < 17_000),
    ],
    "sample_block": lambda: [blocks.encode(test_blocks.day_of_one(rows)) for rows in (1, 2, 30)],
    # The superblock, the group's descriptor, inodes, a folder, a tree of extents, the long link.
    "ext4": lambda: [join((block, bytes(2) + patch)) for block in (1, 2, 5, 6, 7, 20) for patch in (b"", b"\xff" * 12)],
}
