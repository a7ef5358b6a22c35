"""What is remembered of those who ask: their last DISCOVER, and what was told of them lately. Holds no rule.

Both memories are bounded, since anyone can make up MACs.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace

from dhcp.boards import Asker, Nature, has_pi_prefix, identify, looks_like_pi
from dhcp.packet import MessageType, Option, Packet, printable
from dhcp.replies import Action, Ignore, Notice
from utility.service import Report, Severity

MAX_CLIENTS = 16384  # remembered at once; hosts.csv is rarely as long
MAX_TOPICS = 256  # what is told of no client: foreign servers, relays
EVENT_AGAIN = 5.0  # the same milestone within this time is the same boot, or a retry of it
WARNING_AGAIN = 60.0
NETWORK_AGAIN = 3600.0  # what is wrong with the network is not set right within minutes


NOBODY = Asker(Nature.SYSTEM)


@dataclass(slots=True)
class Client:
    """One MAC that was answered, or may be."""

    asker: Asker = NOBODY  # of its last DISCOVER
    vendor_class: str = ""
    late_xid: int = 0  # a delayed OFFER to this xid is on its way ...
    late_until: float = 0.0  # ... until then
    waiting: bool = False  # a human was told that it waits for approval
    said: dict[str, float] = field(default_factory=dict)


class Clients:
    """All of them, the longest silent first. Used by one thread."""

    def __init__(self) -> None:
        self._clients: OrderedDict[str, Client] = OrderedDict()
        self._network: OrderedDict[str, float] = OrderedDict()

    def get(self, mac: str) -> Client:
        client = self._clients.get(mac)
        if client is not None:
            self._clients.move_to_end(mac)
            return client
        if len(self._clients) >= MAX_CLIENTS:
            self._clients.popitem(last=False)
        client = self._clients[mac] = Client()
        return client

    def asker(self, client: Client, request: Packet, kind: int, is_pi: bool, said: Asker | None = None) -> Asker:
        """Who sent this message, of a client of which the last DISCOVER is remembered.

        EEPROM boot loaders of early 2020 leave options 60 and 97 out of the REQUEST. Only the REQUEST that follows
        the DISCOVER may lean on it: one of another state comes from the system that was booted since.

        said    what the message alone tells, where that is known already
        """
        vendor_class = request.text(Option.VENDOR_CLASS)
        if kind == MessageType.DISCOVER:
            client.asker, client.vendor_class = said or identify(request, is_pi), vendor_class
            return client.asker
        selecting = kind == MessageType.REQUEST and Option.SERVER_IDENTIFIER in request.options
        if not selecting or vendor_class not in ("", client.vendor_class):
            return said or identify(request, is_pi)
        guid = said.guid if said is not None else request.raw(Option.CLIENT_GUID)
        return client.asker if not guid else replace(client.asker, guid=guid)

    def once(self, client: Client, key: str, again: float, text: str, now: float) -> str:
        """The text, or "" if one of this key was told of this client within `again` seconds."""
        last = client.said.get(key)
        if last is not None and now < last + again:
            return ""
        client.said[key] = now
        return text

    def warn(self, client: Client, key: str, report: Report, name: str, now: float) -> Notice:
        """The report as a warning, or within a minute of the last of this key without its event."""
        event = self.once(client, key, WARNING_AGAIN, report.event, now)
        severity = Severity.WARNING if event else Severity.INFO
        return Notice(replace(report, event=event, severity=severity), name)

    def warn_of_network(self, topic: str, text: str, now: float) -> list[Notice]:
        """A warning that concerns no single Pi, once an hour for each topic."""
        last = self._network.get(topic)
        if last is not None and now < last + NETWORK_AGAIN:
            return []
        self._network[topic] = now
        self._network.move_to_end(topic)
        if len(self._network) > MAX_TOPICS:
            self._network.popitem(last=False)
        return [Notice(Report("", event=text, severity=Severity.WARNING))]

    def stranger(self, request: Packet, kind: int, approve: bool, now: float) -> list[Action]:
        """A MAC that gets nothing: what is told of it. `approve`: a human is to decide about those that may be Pis."""
        if kind != MessageType.DISCOVER:
            return [Ignore("unknown MAC")]
        asker = identify(request)
        vendor_class = printable(request.text(Option.VENDOR_CLASS))
        hints = [f'vendor class "{vendor_class}"'] if vendor_class else []
        hints += [f"{key} {value}" for key, value in asker.facts.items()]
        described = f" ({', '.join(hints)})" if hints else ""
        if not approve:
            text = f"asks for an address, but is not in hosts.csv{described}"
            told = Report(request.mac, heard="DHCPDISCOVER", event=text, facts=asker.facts)
            return [Ignore("unknown MAC"), Notice(told)]
        if not looks_like_pi(request, asker):
            return [Ignore("unknown MAC")]
        client = self.get(request.mac)
        client.waiting = True
        text = f"waits for approval: write it into hosts.csv{described}"
        facts = {"waiting": "yes", **asker.facts}
        if has_pi_prefix(request.mac):
            facts["vendor"] = "Raspberry Pi"
        event = self.once(client, "waiting", WARNING_AGAIN, text, now)
        return [
            Ignore("waits for approval"),
            Notice(Report(request.mac, heard="DHCPDISCOVER", event=event, facts=facts)),
        ]

    def facts(self, client: Client, asker: Asker) -> dict[str, str]:
        """What a known Pi's DISCOVER tells of it; and that it waits no longer."""
        waited = {"waiting": "no"} if client.waiting else {}
        client.waiting = False
        return asker.facts | waited
