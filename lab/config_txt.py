"""config.txt as the firmware reads it: filters, and the settings that lead to further files. Fetches none."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

_MODEL_FILTER = re.compile(r"(pi\d\+?|pi\d\d+|cm\d\w?|pi0\w?)")
_SERIAL_FILTER = re.compile(r"0x[0-9a-f]+")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the firmware takes from config.txt. Empty: not set, the model's own default holds."""

    kernel: str = ""
    initramfs: tuple[str, ...] = ()
    auto_initramfs: bool = False
    device_tree: str = ""
    cmdline: str = "cmdline.txt"
    arm_64bit: bool | None = None
    overlays: tuple[str, ...] = ()


class _Filters:
    """The conditional filters in force. Kinds add up, one of a kind replaces its predecessor, [all] clears them."""

    def __init__(self, models: Collection[str], serial: int) -> None:
        self._models, self._serial = models, serial
        self._held = {"model": True, "serial": True, "other": True}

    def enter(self, text: str) -> None:
        if text == "all":
            self._held = dict.fromkeys(self._held, True)
        elif _MODEL_FILTER.fullmatch(text):
            self._held["model"] = text in self._models
        elif _SERIAL_FILTER.fullmatch(text):
            self._held["serial"] = int(text, 16) == self._serial
        else:  # [none], [tryboot], [gpio4=1] ...: no virtual board matches them
            self._held["other"] = False

    def match(self) -> bool:
        return all(self._held.values())


def parse_config_txt(data: bytes, models: Collection[str], serial: int) -> Settings:
    """The settings for a board that answers to the filters `models` and has this serial; the last one of a key wins."""
    values: dict[str, str] = {}
    initramfs: tuple[str, ...] = ()
    overlays: list[str] = []
    filters = _Filters(models, serial)
    for raw in data.decode("latin-1").splitlines():
        line = raw.split("#")[0].strip()
        if line.startswith("[") and line.endswith("]"):
            filters.enter(line[1:-1].strip().lower())
        elif not line or not filters.match():
            continue
        elif line.startswith(("initramfs ", "initramfs\t")):  # no equals sign, by tradition
            initramfs = tuple(name for name in line.split()[1].split(",") if name)
        elif "=" in line:
            key, value = (part.strip() for part in line.split("=", 1))
            if key == "dtoverlay":
                overlays.append(value.split(",")[0].split(":")[0].strip())
            values[key] = value
    arm_64bit = values.get("arm_64bit", "")
    return Settings(
        kernel=values.get("kernel", ""),
        initramfs=initramfs or tuple(filter(None, values.get("ramfsfile", "").split(","))),
        auto_initramfs=values.get("auto_initramfs") == "1",
        device_tree=values.get("device_tree", ""),
        cmdline=values.get("cmdline") or "cmdline.txt",
        arm_64bit=arm_64bit != "0" if arm_64bit else None,
        overlays=tuple(name for name in overlays if name),
    )
