"""lab/profiles.py: the bytes that captures of real boards show."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from lab.profiles import (
    PI_3B,
    PI_3B_PLUS,
    PI_4,
    PI_5,
    PROFILES,
    Dhcp,
    Guid,
    Identity,
    Profile,
    discover_options,
    eeprom_of,
    request_options,
    system_options,
)

CLASS = b"PXEClient:Arch:00000:UNDI:002001\xff"
ROM = "35 01 01 37 0c 2b 3c 43 80 81 82 83 84 85 86 87 42 5d 02 00 00 5e 03 01 02 01 61 11 00" + " 44" * 16 + " 3c 20"
LOADER = (
    "35 01 01 37 0e 2b 3c 43 80 81 82 83 84 85 86 87 42 01 03 5d 02 00 00 5e 03 01 02 01"
    " 61 11 00 16 4c 6c b6 16 4c 6c b6 16 4c 6c b6 16 4c 6c b6 3c 20"
)
EEPROM = (
    "35 01 01 37 0e 01 03 2b 3c 42 43 80 81 82 83 84 85 86 87 5d 02 00 00 5e 03 01 02 01"
    " 61 11 00 34 69 50 52 14 31 d0 00 01 09 02 f7 3d f0 cd 91 3c 20"
)
BOARD_3 = Identity("b8:27:eb:6c:4c:16", 0xB66C4C16, 0xA02082)
BOARD_4 = Identity("e4:5f:01:09:02:f7", 0x91CDF03D, 0xD03114)


def dhcp_of(profile: Profile, stage: int) -> Dhcp:
    found = profile.stages[stage].dhcp
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("dhcp", "board", "expected", "size"),
    [
        (dhcp_of(PI_3B, 0), BOARD_3, ROM, 320),
        (dhcp_of(PI_3B, 1), BOARD_3, LOADER, 322),
        (dhcp_of(PI_3B_PLUS, 0), BOARD_3, LOADER, 322),
        (dhcp_of(PI_4, 0), BOARD_4, EEPROM, 322),
        (dhcp_of(PI_5, 0), BOARD_4, EEPROM.replace("34 69 50 52", "35 69 50 52"), 322),
    ],
)
def test_discover(dhcp: Dhcp, board: Identity, expected: str, size: int) -> None:
    made = discover_options(dhcp, board)
    assert made == bytes.fromhex(expected) + CLASS
    assert 236 + 4 + len(made) == size


def test_request_has_the_class_but_no_parameter_list() -> None:
    made = request_options(dhcp_of(PI_4, 0), BOARD_4, b"\1\2\3\4", b"\5\6\7\x08")
    assert made.startswith(bytes.fromhex("350103 320401020304 360405060708 5d"))
    assert made.endswith(CLASS)


def test_the_3b_is_as_limited_as_reported() -> None:
    rom = PI_3B.stages[0]
    assert dhcp_of(PI_3B, 0).waits == (5.0,) * 5
    assert (rom.tftp.options, rom.quirks.udp_checksum, rom.quirks.answers_arp, rom.ttl) == ((), False, False, 128)
    assert not rom.quirks.requests
    assert PI_3B.restart is None


@pytest.mark.parametrize("name", list(PROFILES))
def test_every_model(name: str) -> None:
    profile = PROFILES[name]
    steps = [step.name for stage in profile.stages for step in stage.steps]
    for needed in ("config.txt", "{kernel}", "{cmdline}", "{device_tree}", "{initramfs}"):
        assert needed in steps
    assert any(step.folder for stage in profile.stages for step in stage.steps)
    assert profile.stages[0].dhcp is not None
    assert replace(profile) == profile
    assert Identity("b8:27:eb:00:00:01", 0xABC, profile.revision).folder == "00000abc"


@pytest.mark.parametrize(
    ("day", "block", "rollover", "request_class", "guid"),
    [
        (date(2019, 10, 7), None, False, False, Guid.SERIAL),
        (date(2019, 10, 8), "1024", False, False, Guid.SERIAL),
        (date(2020, 3, 4), "1024", False, True, Guid.BOARD),
        (date(2022, 10, 3), "1468", False, True, Guid.BOARD),
        (date(2025, 9, 23), "1468", True, True, Guid.BOARD),
    ],
)
def test_eeproms_by_date(day: date, block: str | None, rollover: bool, request_class: bool, guid: Guid) -> None:
    for stage in eeprom_of(PI_4, day).stages:
        assert dict(stage.tftp.options).get("blksize") == block
        assert (stage.quirks.rollover, stage.quirks.request_class) == (rollover, request_class)
        assert stage.quirks.config_limit == 4096
    assert dhcp_of(eeprom_of(PI_4, day), 0).guid is guid


def test_requests_without_the_class() -> None:
    dhcp = dhcp_of(PI_4, 0)
    with_class, without = (request_options(dhcp, BOARD_4, b"\1\2\3\4", b"\4\3\2\1", each) for each in (True, False))
    assert with_class.replace(b"\x3c\x20" + CLASS[:-1], b"") == without


def test_the_system_says_nothing_of_pxe() -> None:
    assert system_options(BOARD_4, "pi1") == bytes.fromhex("3d0701e45f010902f7 0c03706931 37070103060c0f1c2a ff")


def test_a_scaled_profile_has_less_patience_and_the_same_defects() -> None:
    scaled = PI_3B.scaled(0.1)
    assert dhcp_of(scaled, 0).waits == (0.5,) * 5
    assert (scaled.stages[2].tftp.retry, scaled.stages[2].tftp.timeout) == (0.2, 3.0)
    assert [stage.quirks for stage in scaled.stages] == [stage.quirks for stage in PI_3B.stages]
