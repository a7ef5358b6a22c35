"""lab/config_txt.py: filters and the settings that name files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.config_txt import Settings, parse_config_txt

PI3 = frozenset({"pi3"})


def test_everything() -> None:
    text = b"""# a comment
arm_64bit=1
kernel=vmlinuz   # why
initramfs one.gz,two.gz followkernel
auto_initramfs=1
device_tree=board.dtb
cmdline=here.txt
dtoverlay=disable-wifi
dtoverlay=i2c-rtc,ds3231
dtoverlay=
no equals sign
"""
    assert parse_config_txt(text, PI3, 1) == Settings(
        kernel="vmlinuz",
        initramfs=("one.gz", "two.gz"),
        auto_initramfs=True,
        device_tree="board.dtb",
        cmdline="here.txt",
        arm_64bit=True,
        overlays=("disable-wifi", "i2c-rtc"),
    )


def test_defaults() -> None:
    assert parse_config_txt(b"", PI3, 1) == Settings()
    assert parse_config_txt(b"arm_64bit=0\nramfsfile=a,b\ncmdline=\n", PI3, 1) == Settings(
        arm_64bit=False, initramfs=("a", "b")
    )


@pytest.mark.parametrize(
    ("filters", "applies"),
    [
        ("", True),
        ("[all]", True),
        ("[pi3]", True),
        ("[ PI3 ]", True),
        ("[pi4]", False),
        ("[pi3+]", False),
        ("[cm4]", False),
        ("[pi4]\n[pi3]", True),  # one model replaces the other
        ("[pi4]\n[all]", True),
        ("[0x5e000001]", True),
        ("[0x5e000002]", False),
        ("[pi3]\n[0x5e000002]", False),  # kinds add up
        ("[pi4]\n[0x5e000001]", False),
        ("[none]", False),
        ("[tryboot]\n[pi3]", False),
        ("[gpio4=1]\n[all]", True),
    ],
)
def test_filters(filters: str, applies: bool) -> None:
    found = parse_config_txt(f"{filters}\nkernel=mine\ninitramfs mine.gz\n".encode(), PI3, 0x5E000001)
    assert (found.kernel, found.initramfs) == (("mine", ("mine.gz",)) if applies else ("", ()))


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    parse_config_txt(data, PI3, 1)
