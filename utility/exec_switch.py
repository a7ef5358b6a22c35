"""A PoE switch that three commands of the user's switch and look at: for whatever speaks no SNMP.

Into a command go the port's number and the switch's address, nothing else, so nothing that a network says reaches a
shell. It gets no terminal and no input, and is ended with all that it started when its time is over.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Self

from utility.config import Commands, Switch
from utility.switches import Capabilities, Port, PowerSupply, SwitchError

WORDS = {
    **dict.fromkeys(("on", "1", "yes", "true", "enabled", "delivering"), True),
    **dict.fromkeys(("off", "0", "no", "false", "disabled"), False),
}


class ExecSwitch:
    """A `PoeSwitch` by commands. It knows no links, watts and MACs."""

    def __init__(self, switch: Switch) -> None:
        assert switch.commands is not None, "config.yaml was checked for it"
        self.switch = switch
        self._commands: Commands = switch.commands

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        """It holds nothing."""

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities("exec")

    def ports(self, wanted: Collection[int] | None = None) -> list[Port]:
        every = [Port(number, f"port {number}", index=(number,)) for number in range(1, self._commands.ports + 1)]
        asked = {port.number: port for port in self.look([p for p in every if wanted is None or p.number in wanted])}
        return [asked.get(port.number, port) for port in every]

    def look(self, ports: Sequence[Port]) -> list[Port]:
        return [replace(port, admin_on=self._is_on(port)) for port in ports]

    def turn(self, port: Port, on: bool) -> None:
        self._run(self._commands.on if on else self._commands.off, port)

    def complaint(self, port: Port, reason: str) -> SwitchError:
        return SwitchError(self.switch, f"`{self._filled(self._commands.status, port)}`", reason, port.number)

    def macs(self, ports: Sequence[Port] | None = None) -> Mapping[int, frozenset[str]]:  # noqa: ARG002
        return {}

    def supplies(self, ports: Iterable[Port]) -> list[PowerSupply]:  # noqa: ARG002
        return []

    def _is_on(self, port: Port) -> bool:
        said = self._run(self._commands.status, port).split()
        if not said or said[-1].lower() not in WORDS:
            raise self.complaint(port, f"printed {_shown(said[-1] if said else '')}; expected on or off")
        return WORDS[said[-1].lower()]

    def _filled(self, command: str, port: Port) -> str:
        return command.replace("{port}", str(int(port.number))).replace("{address}", str(self.switch.address))

    def _run(self, command: str, port: Port) -> str:
        """What it prints; SwitchError where it does not end well."""
        line = self._filled(command, port)

        def wrong(reason: str) -> SwitchError:
            return SwitchError(self.switch, f"`{line}`", reason, port.number)

        try:
            # A session of its own: Ctrl-C is for us, and a port has to come on again all the same.
            process = subprocess.Popen(
                ["/bin/sh", "-c", line],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise wrong(f"cannot be started: {error.strerror}") from None
        with process:
            try:
                said, complained = process.communicate(timeout=self._commands.timeout)
            except subprocess.TimeoutExpired:
                raise wrong(f"has not ended in {self._commands.timeout:g} s; it was stopped") from None
            finally:
                if process.returncode is None:
                    _stop(process)
        if process.returncode:
            words = (complained or said).decode("utf-8", "replace").strip().rpartition("\n")[2]
            raise wrong(f"ended with exit code {process.returncode}" + (f": {_shown(words)}" if words else ""))
        return said.decode("utf-8", "replace")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """The command and all that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        process.kill()


def _shown(text: str) -> str:
    """A command's words in one line that moves no cursor."""
    plain = "".join(each if each.isprintable() else "?" for each in re.sub(r"\s+", " ", text))
    return repr(plain if len(plain) <= 120 else plain[:117] + "...")
