"""dhcp/boards.py: which program asks, from messages as boards send them, and what option 97 says of a board."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dhcp.boards import BOOT_ROM_GUID, BOOT_ROM_XID, TRAITS, Asker, Board, Nature, identify, looks_like_pi, parse_guid
from dhcp.packet import Packet, Value, parse
from tests.test_dhcp_packet import discover

PI = bytes.fromhex("b827eb010203")
OTHER = bytes.fromhex("020000000001")
LOADER = "PXEClient:Arch:00000:UNDI:002001"
SERIAL = b"\0" + bytes.fromhex("164c6cb6") * 4
PI4 = bytes.fromhex("00346950521431d000010902f73df0cd91")
PC = bytes.fromhex("0000112233445566778899aabbccddeeff")
KERNEL = (1, 3, 6, 12, 15, 17, 26, 40, 42)


def message(options: dict[int, Value], chaddr: bytes = PI, xid: int = 7) -> Packet:
    return Packet(op=1, xid=xid, chaddr=chaddr, options={53: 1, **options})


@pytest.mark.parametrize(
    ("packet", "nature"),
    [
        (message({60: LOADER, 97: BOOT_ROM_GUID}, xid=BOOT_ROM_XID), Nature.BOOT_ROM),
        (message({60: LOADER, 97: BOOT_ROM_GUID}), Nature.BOOT_ROM),
        (message({60: LOADER}, xid=BOOT_ROM_XID), Nature.BOOT_ROM),
        (message({60: LOADER, 97: SERIAL}, xid=BOOT_ROM_XID), Nature.BOOTCODE),
        (message({60: LOADER, 97: SERIAL}), Nature.EEPROM),
        (message({60: LOADER, 97: PI4}), Nature.EEPROM),
        (message({60: LOADER, 97: PI4}, OTHER), Nature.EEPROM),
        (message({60: LOADER}), Nature.LOADER),
        (message({60: LOADER, 97: PC}), Nature.LOADER),
        (message({60: LOADER, 97: PC}, OTHER), Nature.PXE),
        (message({60: LOADER}, OTHER), Nature.PXE),
        (message({60: "PXEClient:Arch:00007:UNDI:003016"}), Nature.UEFI),
        (message({60: "PXEClient:Arch:00011:UNDI:003000", 93: b"\0\x0b"}), Nature.UEFI),
        (message({60: "HTTPClient:Arch:00019:UNDI:003000"}), Nature.UEFI),
        (message({60: "PXEClient"}), Nature.PXE),
        (message({60: "PXEClient:Arch:\u0661\u0662\u0663\u0664\u0665"}), Nature.PXE),
        (message({60: "PXEClient:Arch:00022:UNDI:003000"}), Nature.U_BOOT),
        (message({60: "U-Boot.armv8", 93: b"\0\x16"}), Nature.U_BOOT),
        (message({60: LOADER, 77: b"\x04iPXE", 97: PI4}), Nature.IPXE),
        (message({60: LOADER, 77: b"iPXE"}), Nature.IPXE),
        (message({60: LOADER, 175: b"\xb1\5\1"}), Nature.IPXE),
        (message({60: "piman-installer"}), Nature.INSTALLER),
        (message({60: "Linux ipconfig"}), Nature.KERNEL),
        (message({55: KERNEL}), Nature.KERNEL),
        (message({55: (*KERNEL[:7], 40), 60: "rack"}), Nature.KERNEL),
        (message({55: KERNEL[:7]}), Nature.SYSTEM),
        (message({60: "dhcpcd-9.4.1:Linux-6.1.0:aarch64:BCM2835", 61: b"\xff1234"}), Nature.SYSTEM),
        (message({60: "udhcp 1.35.0"}), Nature.SYSTEM),
        (message({}), Nature.SYSTEM),
    ],
)  # fmt: skip
def test_who_asks(packet: Packet, nature: Nature) -> None:
    assert identify(packet).nature is nature


def test_a_human_says_that_it_is_a_pi() -> None:
    assert identify(message({60: LOADER, 97: PC}, OTHER), is_pi=True).nature is Nature.LOADER
    assert identify(message({60: "PXEClient:Arch:00007"}, OTHER), is_pi=True).nature is Nature.UEFI


def test_each_nature_has_its_traits() -> None:
    assert set(TRAITS) == set(Nature)
    assert [each for each, traits in TRAITS.items() if traits.deaf] == [Nature.BOOT_ROM]
    assert [each for each, traits in TRAITS.items() if not traits.answers_arp] == [Nature.BOOT_ROM]
    assert all(traits.pxe for traits in TRAITS.values() if traits.boots_pi)


def test_an_asker_in_words() -> None:
    asker = identify(message({60: LOADER, 97: PI4}))
    assert (asker.words, asker.guid) == ("the boot loader of a Pi 4", PI4)
    assert asker.facts == {"model": "Pi 4", "serial": "91cdf03d", "revision": "d03114"}
    nobody = Asker(Nature.SYSTEM)
    assert (nobody.words, nobody.facts) == ("the operating system", {})


@pytest.mark.parametrize(
    ("packet", "looks"),
    [
        (message({60: LOADER, 97: BOOT_ROM_GUID}, OTHER), True),
        (message({60: "PXEClient:Arch:00011", 97: PI4}, OTHER), True),
        (message({60: "piman-installer"}, OTHER), True),
        (message({60: "dhcpcd-9.4.1:Linux-6.1.0:aarch64:BCM2835"}, OTHER), True),
        (message({}, PI), True),
        (message({60: LOADER, 97: PC}, OTHER), False),
        (message({60: "MSFT 5.0"}, OTHER), False),
        (message({}, OTHER), False),
    ],
)
def test_what_looks_like_a_pi(packet: Packet, looks: bool) -> None:
    assert looks_like_pi(packet, identify(packet)) is looks


# --- option 97 ---


@pytest.mark.parametrize(
    ("guid", "board"),
    [
        ("00 34695052 1431d000 010902f7 3df0cd91", Board("Pi 4", "91cdf03d", "d03114")),
        ("00 52506934 1431d000 010902f7 3df0cd91", Board("Pi 4", "91cdf03d", "d03114")),
        ("00 52506934 00d03114 010902f7 91cdf03d", Board("Pi 4", "91cdf03d", "d03114")),
        ("00 52506935 7041d000 010902f7 78563412", Board("Pi 5", "12345678", "d04170")),
        ("00 35695052 4031c000 010902f7 0100c0de", Board("CM4", "dec00001", "c03140")),
        ("00 34695052 f03fc000 010902f7 0100c0de", Board("Pi 4", "dec00001", "c03ff0")),
        ("00 34695052 00000000 00000000 0100c0de", Board("Pi 4", "0100c0de", "0")),
        ("00 4372ee6a 4372ee6a 4372ee6a 4372ee6a", Board(serial="6aee7243")),
        ("00 44444444 44444444 44444444 44444444", Board()),
        ("01 4372ee6a 4372ee6a 4372ee6a 4372ee6a", Board()),
        ("00 00112233 44556677 8899aabb ccddeeff", Board()),
        ("00 4372ee6a", Board()),
        ("00 00000000 00000000 00000000 00000000", Board()),
        ("", Board()),
    ],
)
def test_board(guid: str, board: Board) -> None:
    assert parse_guid(bytes.fromhex(guid)) == board


def test_a_pi_whose_first_word_was_changed_in_its_eeprom() -> None:
    guid = bytes.fromhex("00 61626364 7041d000 eb010203 78563412")
    assert parse_guid(guid, PI) == Board("Pi 5", "12345678", "d04170")
    assert parse_guid(guid, OTHER) == parse_guid(guid) == Board()
    unknown = guid[:5] + bytes.fromhex("f03fc000") + guid[9:]
    assert parse_guid(unknown, PI) == Board("Pi", "12345678", "c03ff0")


@given(st.binary(max_size=20) | st.binary(min_size=17, max_size=17), st.binary(max_size=16))
def test_any_guid(guid: bytes, chaddr: bytes) -> None:
    assert isinstance(parse_guid(guid, chaddr), Board)


@given(st.binary(max_size=200), st.sampled_from([0, 7, BOOT_ROM_XID]))
def test_any_options_are_somebody(options: bytes, xid: int) -> None:
    try:
        packet = parse(discover(options, xid))
    except ValueError:
        return
    asker = identify(packet)
    assert asker.words
    assert looks_like_pi(packet, asker) in (True, False)
