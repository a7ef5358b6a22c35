"""hosts.csv: parsed, picked from, watched, and written back without losing a byte that a human wrote."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utility.config import ConfigError, load_config
from utility.hosts import (
    HEADER,
    UNASSIGNED,
    Host,
    HostChange,
    Hosts,
    Plan,
    edit_hosts,
    hosts_digest,
    parse_hosts,
    parse_mac,
    with_last_seen,
)

ROOT = Path(__file__).parent.parent
A, B, C = "b8:27:eb:00:00:0a", "b8:27:eb:00:00:0b", "b8:27:eb:00:00:0c"


def ip(text: str) -> IPv4Address:
    return IPv4Address(text)


PLAN = Plan(
    IPv4Network("172.30.4.0/24"),
    taken=frozenset({ip("172.30.4.1"), ip("172.30.4.254")}),
    preferred=(ip("172.30.4.13"), ip("172.30.4.14")),
    pool=(ip("172.30.4.2"), ip("172.30.4.4")),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hosts.csv"


def edit(path: Path, text: str | bytes) -> None:
    """Save as an editor does that writes a new file and renames it."""
    other = path.with_suffix(".edit")
    other.write_bytes(text.encode() if isinstance(text, str) else text)
    other.replace(path)


def load(path: Path, text: str | bytes, plan: Plan = PLAN) -> Hosts:
    edit(path, text)
    return Hosts(path, plan)


def problems(text: str | bytes, plan: Plan = PLAN) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_hosts(text.encode() if isinstance(text, str) else text, plan, Path("hosts.csv"))
    return str(caught.value).split("\n")


# --------------------------------------------------------------------------------------------------------- MAC, names


@pytest.mark.parametrize(
    "text", ["B8-27-EB-01-02-03", "b827.eb01.0203", "b827eb010203", " b8:27:eb:01:02:03 ", "B827EB-010203"]
)
def test_the_ways_to_write_a_mac(text: str) -> None:
    assert parse_mac(text) == "b8:27:eb:01:02:03"


@pytest.mark.parametrize("text", ["", "b8:27:eb:01:02", "b8:27:eb:01:02:0g", "172.130.104.113", "b8:27-eb:01:02:03"])
def test_what_is_no_mac(text: str) -> None:
    with pytest.raises(ValueError, match="is no MAC address"):
        parse_mac(text)
    with pytest.raises(ValueError, match=r"\.\.\.' is no MAC"):
        parse_mac("x" * 1000)


def test_addresses_of_networks_behind_relays() -> None:
    plan = Plan(IPv4Network("172.30.4.0/24"), others=(IPv4Network("10.2.0.0/24"),))
    table = parse_hosts(f"{A};10.2.0.13\n{B};0.0.0.0\n".encode(), plan, Path("hosts.csv"))
    assert [host.address for host in table.by_mac.values()] == [ip("10.2.0.13"), ip("172.30.4.1")]
    assert problems(f"{A};10.3.0.1\n{B};10.2.0.255", plan) == [
        (
            "hosts.csv:1: IP: 10.3.0.1 is outside 172.30.4.0/24, 10.2.0.0/24; give an address of one of these networks,"
            " or 0.0.0.0"
        ),
        "hosts.csv:2: IP: 10.2.0.255 is the network or broadcast address of 10.2.0.0/24",
    ]


def test_what_a_human_calls_a_host() -> None:
    assert Host(A, ip("172.30.4.13"), "pi1").name == "pi1"
    assert Host(A, ip("172.30.4.13")).name == "172.30.4.13"


# ------------------------------------------------------------------------------------------------------------- reading

GOOD = """\
# the rack of room 4
  B8-27-EB-00-00-0A ; 172.30.4.40 ; Pi1 ; 1600000000.25   # by the window

b8:27:eb:00:00:0b;172.30.4.41
b8:27:eb:00:00:0c;0.0.0.0;pi3;
"""


def test_a_file_and_the_ways_to_ask_for_a_pi(path: Path) -> None:
    hosts = load(path, GOOD)
    first = Host(A, ip("172.30.4.40"), "Pi1", 1600000000)
    assert hosts.all() == (first, Host(B, ip("172.30.4.41")), Host(C, ip("172.30.4.13"), "pi3"))
    for text in ("pI1", "172.30.4.40", A, "B827.EB00.000A"):
        assert hosts.named(text) == first
    assert (hosts.find(A), hosts.by_address(ip("172.30.4.40"))) == (first, first)
    assert hosts.named("172.30.4.99") is hosts.named("nobody") is hosts.named("b827.eb00.0099") is None
    assert hosts.find("b8:27:eb:00:00:99") is hosts.by_address(ip("172.30.4.99")) is None


def test_the_example_loads_and_is_what_a_missing_file_becomes(path: Path) -> None:
    assert (ROOT / "hosts.csv").read_text() == HEADER
    assert Hosts.open(ROOT / "hosts.csv", load_config(ROOT / "config.yaml", environ={}), write=False).all() == ()
    assert Hosts(path, PLAN).all() == ()
    assert path.read_text() == HEADER
    assert path.stat().st_mode & 0o777 == 0o644
    shown = HEADER.replace("\n# b8", "\nb8")
    assert len(parse_hosts(shown.encode(), PLAN, path).by_mac) == 2


@pytest.mark.parametrize(
    ("text", "report"),
    [
        ("hello", "1: MAC: 'hello' is no MAC address; write it like b8:27:eb:01:02:03"),
        (f"#\n{A};x", "2: IP: found 'x'; expected an address of 172.30.4.0/24, or 0.0.0.0"),
        (
            f"{A};10.0.0.1",
            "1: IP: 10.0.0.1 is outside 172.30.4.0/24; give an address of that network, or 0.0.0.0",
        ),
        (f"{A};172.30.4.255", "1: IP: 172.30.4.255 is the network or broadcast address of 172.30.4.0/24"),
        (f"{A};172.30.4.254", "1: IP: 172.30.4.254 is the server's, the router's or a switch's in config.yaml"),
        (f"{A};172.30.4.9\n{B};172.30.4.9", "2: IP: 172.30.4.9 is already in line 1"),
        (
            "b8:27:eb:00:00:0a\nB8-27-EB-00-00-0A;172.30.4.9",
            "2: MAC: B8-27-EB-00-00-0A is already in line 1; one line for each Pi",
        ),
        ("01:27:eb:00:00:0a", "1: MAC: 01:27:eb:00:00:0a is not the address of one board"),
        ("00:00:00:00:00:00", "1: MAC: 00:00:00:00:00:00 is not the address of one board"),
        (f"{A};;pi\n{B};;PI", "2: hostname: PI is already in line 1"),
        (f"{A};;a_b", "1: hostname: found 'a_b'; expected up to 63 letters, digits and - (RFC 1123)"),
        (f"{A};;-a", "1: hostname: found '-a'; expected up to 63 letters, digits and - (RFC 1123)"),
        (
            f"{A};;{'a' * 64}",
            f"1: hostname: found '{'a' * 64}'; expected up to 63 letters, digits and - (RFC 1123)",
        ),
        (
            f"{A};;{'a' * 99}",
            f"1: hostname: found '{'a' * 67}...'; expected up to 63 letters, digits and - (RFC 1123)",
        ),
        (f"{A};;;soon", "1: last_seen: found 'soon'; expected a Unix time, or 0 for never"),
        (f"{A};;;-1", "1: last_seen: found '-1'; expected a Unix time, or 0 for never"),
        (f"{A};;;1;2", "1: found 5 fields; expected MAC;IP;hostname;last_seen"),
        (b"#\n\n#\xff\n", "3: byte 0xff is not UTF-8; save the file as UTF-8"),
    ],
)
def test_one_problem(text: str | bytes, report: str) -> None:
    assert problems(text) == [f"hosts.csv:{report}"]


def test_all_problems_are_in_one_report(path: Path) -> None:
    text = f"nonsense\n{A};1.2.3.4;a b;x\n#\n{A};172.30.4.9\n"
    assert [line.split(": ")[0:2] for line in problems(text)] == [
        ["hosts.csv:1", "MAC"],
        ["hosts.csv:2", "hostname"],
        ["hosts.csv:2", "last_seen"],
        ["hosts.csv:2", "IP"],
    ]
    with pytest.raises(ConfigError, match="is no MAC"):
        load(path, text)


# ------------------------------------------------------------------------------------------------------ free addresses


def test_picked_addresses_come_from_the_switches_then_from_the_network(path: Path) -> None:
    lines = [f"b8:27:eb:00:01:{i:02x};0.0.0.0;;0" for i in range(4)]
    text = f"{A}\n{B};172.30.4.5 # mine\n{C} ;  0.0.0.0 ;x\n" + "\r\n".join(lines)
    load(path, text)
    new = [f"b8:27:eb:00:01:{i:02x};172.30.4.{i + 6};;0" for i in range(4)]
    assert path.read_bytes().decode() == (
        f"{A};172.30.4.13\n{B};172.30.4.5 # mine\n{C} ;  172.30.4.14 ;x\n" + "\r\n".join(new)
    )


def test_a_full_network(path: Path) -> None:
    small = Plan(IPv4Network("10.0.0.0/30"), taken=frozenset({ip("10.0.0.1")}))
    assert problems(f"{A}\n{B}\n", small) == ["hosts.csv:2: IP: no free address is left in 10.0.0.0/30"]


def test_a_pi_keeps_its_picked_address_where_it_could_not_be_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(path, f"{B}\n")
    with monkeypatch.context() as full:
        full.setattr("utility.hosts.os.fsync", _disk_is_full)
        hosts = Hosts(path, PLAN)
    assert path.read_text() == f"{B}\n"
    edit(path, f"{A}\n{B}\n{C};172.30.4.14\n")
    assert hosts.check() == ()
    assert path.read_text() == f"{A};172.30.4.5\n{B};172.30.4.13\n{C};172.30.4.14\n"


def test_without_write_nothing_is_created_or_changed(path: Path) -> None:
    hosts = Hosts(path, PLAN, write=False)
    assert (hosts.all(), path.exists(), hosts.check()) == ((), False, ())
    edit(path, f"{A}\n")
    assert hosts.check() == ()
    hosts.seen(A, 5)
    hosts.flush()
    assert hosts.all() == (Host(A, ip("172.30.4.13"), "", 5),)
    assert path.read_text() == f"{A}\n"
    path.write_text("nonsense")
    with pytest.raises(ConfigError, match="nonsense"):
        Hosts(path, PLAN, write=False)


# ------------------------------------------------------------------------------------------------------------ watching


def test_an_edit_is_taken_over_and_a_broken_one_is_told_once_for_each_content(path: Path) -> None:
    hosts = load(path, f"{A};172.30.4.9\n")
    assert hosts.check() == hosts.check() == ()
    edit(path, f"{A};172.30.4.8\n")
    assert hosts.check() == ()
    assert hosts.named(A) == Host(A, ip("172.30.4.8"))
    for bad in ("bad", "worse"):
        edit(path, bad)
        assert [str(each) for each in hosts.check()] == [
            f"{path}:1: MAC: '{bad}' is no MAC address; write it like b8:27:eb:01:02:03"
        ]
        edit(path, bad)
        assert hosts.check() == hosts.check() == ()
    hosts.seen(A, 7)
    hosts.flush()
    assert path.read_text() == "worse"
    edit(path, f"{A};172.30.4.8\n")
    assert hosts.check() == ()
    hosts.flush()
    assert path.read_text() == f"{A};172.30.4.8;;7\n"


def test_an_edit_in_the_same_clock_tick_is_not_missed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(path, f"{A};172.30.4.9\n")
    monkeypatch.setattr("utility.hosts._stamp", lambda path: (1, 2, 3, 4))
    hosts = Hosts(path, PLAN)
    edit(path, f"{A};172.30.4.8\n")
    hosts.check()
    assert hosts.by_address(ip("172.30.4.8"))


def test_a_file_that_goes_away_or_cannot_be_read(path: Path) -> None:
    hosts = load(path, f"{A};172.30.4.9\n")
    path.unlink()
    assert [str(each) for each in hosts.check()] == [f"{path}: does not exist"]
    assert hosts.check() == ()
    hosts.seen(A, 7)
    hosts.flush()
    assert not path.exists()
    path.mkdir()
    assert [str(each) for each in hosts.check()] == [f"{path}: cannot be read: Is a directory"]
    path.rmdir()
    edit(path, f"{A};172.30.4.9\n")
    assert hosts.check() == ()
    hosts.flush()
    assert path.read_text() == f"{A};172.30.4.9;;7\n"


def test_a_file_that_an_editor_has_just_emptied_is_believed_the_second_time(path: Path) -> None:
    hosts = load(path, f"{A};172.30.4.9\n")
    path.write_bytes(b"")
    assert hosts.check() == ()
    hosts.seen(A, 7)
    assert len(hosts.all()) == 1
    assert path.read_bytes() == b""
    assert hosts.check() == ()
    assert hosts.all() == ()


def test_a_missing_file_that_cannot_be_created(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"hosts\.csv: does not exist and cannot be created: No such file"):
        Hosts(tmp_path / "none" / "hosts.csv", PLAN)


def test_a_folder_that_cannot_be_cleaned_does_not_matter(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = path.with_name(".hosts.csv.abc.new")
    young = path.with_name(".hosts.csv.def.new")
    other = path.with_name("other.new")
    for each in (old, young, other):
        each.write_text("")
    os.utime(old, (1, 1))
    os.utime(other, (1, 1))
    edit(path, "")
    with monkeypatch.context() as busy:
        busy.setattr(Path, "unlink", _disk_is_full)
        Hosts(path, PLAN)
    assert old.exists()
    Hosts(path, PLAN)
    assert (old.exists(), young.exists(), other.exists()) == (False, True, True)


# ------------------------------------------------------------------------------------------------------- writing back


def test_flush_changes_the_fourth_field_and_no_other_byte(path: Path) -> None:
    hosts = load(path, "\ufeff" + GOOD.replace("\n", "\r\n") + "# end")
    for mac in (A, B, C, "b8:27:eb:00:00:99"):
        hosts.seen(mac, 1700000000.9)
        hosts.seen(mac, 1600000001)
    hosts.flush()
    assert path.read_bytes().decode() == "\ufeff" + """\
# the rack of room 4
  B8-27-EB-00-00-0A ; 172.30.4.40 ; Pi1 ; 1700000000   # by the window

b8:27:eb:00:00:0b;172.30.4.41;;1700000000
b8:27:eb:00:00:0c;172.30.4.13;pi3;1700000000
""".replace("\n", "\r\n") + "# end"  # fmt: skip
    assert {host.last_seen for host in hosts.all()} == {1700000000}
    before = path.stat()
    hosts.flush()
    assert path.stat() == before


def test_flush_merges_with_an_edit_that_was_not_yet_noticed(path: Path) -> None:
    hosts = load(path, f"{A};172.30.4.9\n{B};172.30.4.8\n{C};172.30.4.7;;3")
    for mac, when in ((A, 10), (B, 20), (C, 30)):
        hosts.seen(mac, when)
    edit(path, f"# new\n{C};172.30.4.7;;99\n{A};172.30.4.6;x\n")
    hosts.flush()
    assert path.read_text() == f"# new\n{C};172.30.4.7;;99\n{A};172.30.4.6;x;10\n"
    assert hosts.named("x") == Host(A, ip("172.30.4.6"), "x", 10)
    assert hosts.find(B) is None


def test_flush_sees_an_edit_that_comes_while_it_writes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = load(path, f"{A};172.30.4.9\n")
    edits = iter([f"{A};172.30.4.8\n"])

    def fsync(_descriptor: int) -> None:
        for text in edits:
            edit(path, text)

    monkeypatch.setattr("utility.hosts.os.fsync", fsync)
    hosts.seen(A, 5)
    hosts.flush()
    assert path.read_text() == f"{A};172.30.4.8;;5\n"

    def always(_descriptor: int) -> None:
        edit(path, f"{A};172.30.4.7\n")

    monkeypatch.setattr("utility.hosts.os.fsync", always)
    hosts.seen(A, 6)
    hosts.flush()  # gives up after some attempts; nothing is lost
    monkeypatch.undo()
    hosts.flush()
    assert path.read_text() == f"{A};172.30.4.7;;6\n"
    assert sorted(each.name for each in path.parent.iterdir()) == ["hosts.csv"]


def _disk_is_full(*_args: object, **_kwargs: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_the_file_and_the_news(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = load(path, f"{A};172.30.4.9\n")
    hosts.seen(A, 5)
    with monkeypatch.context() as full:
        full.setattr("utility.hosts.os.fsync", _disk_is_full)
        with pytest.raises(OSError, match="No space left"):
            hosts.flush()
    assert path.read_text() == f"{A};172.30.4.9\n"
    assert sorted(each.name for each in path.parent.iterdir()) == ["hosts.csv"]
    hosts.flush()
    assert path.read_text() == f"{A};172.30.4.9;;5\n"


def test_owner_mode_and_symlink_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owners: list[tuple[int, int]] = []

    def fchown(_descriptor: int, owner: int, group: int) -> None:
        owners.append((owner, group))
        raise PermissionError

    target = tmp_path / "real" / "pis.csv"
    target.parent.mkdir()
    target.write_text(f"{A};172.30.4.9\n")
    target.chmod(0o660)
    link = tmp_path / "hosts.csv"
    link.symlink_to("real/pis.csv")
    monkeypatch.setattr("utility.hosts.os.fchown", fchown)
    hosts = Hosts(link, PLAN)
    hosts.seen(A, 5)
    hosts.flush()
    assert (link.is_symlink(), target.read_text()) == (True, f"{A};172.30.4.9;;5\n")
    assert target.stat().st_mode & 0o777 == 0o660
    assert owners == [(-1, target.stat().st_gid), (target.stat().st_uid, -1)]
    assert [each.name for each in target.parent.iterdir()] == ["pis.csv"]


def test_threads(path: Path) -> None:
    macs = [f"b8:27:eb:00:01:{i:02x}" for i in range(40)]
    hosts = load(path, "".join(f"{mac}\n" for mac in macs))
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        choice = random.Random(seed)
        try:
            for when in range(150):
                hosts.seen(choice.choice(macs), when)
                assert len(hosts.all()) == 40
                if not when % 30:
                    hosts.flush()
                    hosts.check()
        except BaseException as error:  # noqa: BLE001 - carried to the main thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    hosts.flush()
    assert Hosts(path, PLAN).all() == hosts.all()


_WRITER = """
import sys
from ipaddress import IPv4Network
from pathlib import Path
from utility.hosts import Hosts, Plan
hosts = Hosts(Path(sys.argv[1]), Plan(IPv4Network("10.0.0.0/16")))
when = max(host.last_seen for host in hosts.all())
print("ready", flush=True)
while True:
    when += 1
    for host in hosts.all():
        hosts.seen(host.mac, when)
    hosts.flush()
"""


def test_sigkill_at_any_moment_leaves_the_file_whole(path: Path) -> None:
    lines = [
        f"b8:27:eb:00:{i // 256:02x}:{i % 256:02x};10.0.{1 + i // 250}.{i % 250 + 1};;1 # {i}\n" for i in range(500)
    ]
    path.write_text("".join(lines))
    moments = random.Random(4)
    last = 1
    for _ in range(25):
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path)], cwd=ROOT, stdout=subprocess.PIPE, env={"PYTHONPATH": str(ROOT)}
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(moments.uniform(0, 0.05))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        seen = {line.split(";")[3].split(" ")[0] for line in path.read_text().split("\n")[:-1]}
        assert len(seen) == 1
        assert int(min(seen)) >= last
        last = int(min(seen))
        assert [line.split("#")[1] for line in path.read_text().split("\n")[:-1]] == [f" {i}" for i in range(500)]
    assert last > 1


def test_ten_thousand_lines_load_fast(path: Path) -> None:
    text = "".join(
        f"b8:27:eb:00:{i // 256:02x}:{i % 256:02x};10.0.{1 + i // 250}.{i % 250 + 1};pi{i};1600000000\n"
        for i in range(10_000)
    )
    started = time.process_time()
    table = parse_hosts(text.encode(), Plan(IPv4Network("10.0.0.0/16")), path)
    assert time.process_time() - started < 1  # about 0.1 here; the bound only catches what is quadratic
    assert len(table.by_mac) == 10_000


# ------------------------------------------------------------------------------------------------------- any content

_BLANKS = st.sampled_from(["", " ", "  ", "\t"])
_COMMENTS = st.text(alphabet=st.characters(exclude_characters="\n", codec="utf-8"), max_size=8).map(
    lambda text: f"#{text}"
)
_ENDINGS = st.sampled_from(["\n", "\r\n"])


@st.composite
def good_files(draw: st.DrawFn) -> str:
    """A file with comments, blank lines, odd spacing and lines with few fields."""
    text = ""
    for i in draw(st.lists(st.integers(0, 60), unique=True, max_size=8)):
        text += "".join(draw(st.lists(_COMMENTS | _BLANKS, max_size=2).map(lambda rows: [row + "\n" for row in rows])))
        mac = draw(st.sampled_from([f"b8:27:eb:00:00:{i:02x}", f"B827EB0000{i:02X}"]))
        address = draw(st.sampled_from(["", "0.0.0.0", f"172.30.4.{i + 100}"]))
        hostname = draw(st.sampled_from(["", f"pi{i}", f"PI-{i}"]))
        fields = [mac, address, hostname, draw(st.sampled_from(["", "0", "1600000000"]))][: draw(st.integers(1, 4))]
        text += ";".join(draw(_BLANKS) + each + draw(_BLANKS) for each in fields)
        text += draw(st.just("") | _COMMENTS) + draw(_ENDINGS)
    return text + draw(st.just("") | _COMMENTS)


def _without_values(text: str) -> list[str]:
    """What must survive: comments, blanks, line endings, MACs and hostnames; not IP and last_seen, nor the `;`."""
    kept = []
    for line in text.split("\n"):
        body, mark, comment = line.partition("#")
        fields = body.split(";")
        kept.append("".join(fields[:1] + fields[2:3]).strip() + mark + comment + "\r" * line.endswith("\r"))
    return kept


@given(good_files())
def test_a_good_file_round_trips(text: str) -> None:
    table = parse_hosts(text.encode(), PLAN, Path("hosts.csv"))
    again = parse_hosts(table.encode(), PLAN, Path("hosts.csv"))
    assert (again.by_mac, again.lines) == (table.by_mac, table.lines)
    assert _without_values(table.encode().decode()) == _without_values(text)
    wanted = [line.partition("#")[0].split(";") for line in text.split("\n")]
    if not any(fields[0].strip() and (len(fields) < 2 or fields[1].strip() in ("", "0.0.0.0")) for fields in wanted):
        assert table.encode().decode() == text


@given(good_files(), st.lists(good_files() | st.text(max_size=20), max_size=3), st.integers(1, 2_000_000_000))
def test_any_edits_and_flushes_keep_what_a_human_wrote(first: str, edits: list[str], when: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "hosts.csv"
        hosts = load(path, first)
        for text in edits:
            for host in hosts.all():
                hosts.seen(host.mac, when)
            edit(path, text)
            hosts.flush()
            hosts.check()
            hosts.check()
            hosts.flush()
            assert _without_values(path.read_bytes().decode()) == _without_values(text)
        hosts.check()
        assert all(hosts.find(host.mac) == hosts.by_address(host.address) == host for host in hosts.all())


@given(st.binary(max_size=80) | st.tuples(good_files(), st.integers(0, 99), st.binary(max_size=4)).map(
    lambda cut: cut[0].encode()[: cut[1]] + cut[2] + cut[0].encode()[cut[1] :]
))  # fmt: skip
def test_any_bytes_are_hosts_or_a_report(data: bytes) -> None:
    try:
        table = parse_hosts(data, PLAN, Path("hosts.csv"))
    except ConfigError as error:
        report = error
    else:
        assert all(host.address in PLAN.network for host in table.by_mac.values())
        return
    assert report.problems
    assert all(problem.line for problem in report.problems)


def test_a_pi_is_added_at_the_end_and_the_rest_stays(tmp_path: Path) -> None:
    path = tmp_path / "hosts.csv"
    path.write_text("# mine\nb8:27:eb:00:00:01;172.30.4.13;one;0", encoding="utf-8")  # no line ending
    hosts = Hosts(path, PLAN)
    added = hosts.add("b8:27:eb:00:00:02", hostname="two")
    assert hosts.find("b8:27:eb:00:00:02") == added
    assert added.address not in (UNASSIGNED, IPv4Address("172.30.4.13"))
    want = f"# mine\nb8:27:eb:00:00:01;172.30.4.13;one;0\nb8:27:eb:00:00:02;{added.address};two;0\n"
    assert path.read_text(encoding="utf-8") == want
    given = hosts.add("b8:27:eb:00:00:03", IPv4Address("172.30.4.77"))
    assert (given.address, given.hostname) == (IPv4Address("172.30.4.77"), "")


def test_a_pi_is_not_added_where_that_would_be_wrong(tmp_path: Path) -> None:
    path = tmp_path / "hosts.csv"
    path.write_text("b8:27:eb:00:00:01;172.30.4.13;one;0\n", encoding="utf-8")
    hosts = Hosts(path, PLAN)
    before = path.read_bytes()
    for address, name in (("172.30.4.13", "two"), ("10.0.0.1", "two"), ("172.30.4.14", "one"), ("172.30.4.14", "a b")):
        with pytest.raises(ConfigError, match=r"hosts\.csv:2"):
            hosts.add("b8:27:eb:00:00:02", IPv4Address(address), name)
    assert path.read_bytes() == before
    path.write_text("nonsense\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"hosts\.csv:1"):
        hosts.add("b8:27:eb:00:00:02")
    with pytest.raises(ConfigError, match="mend it first"):
        hosts.add("b8:27:eb:00:00:02")


def test_a_file_that_changes_all_the_time_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts(tmp_path / "hosts.csv", PLAN)
    monkeypatch.setattr(Hosts, "_replace", lambda _hosts, _data: False)
    with pytest.raises(OSError, match="by others"):
        hosts.add("b8:27:eb:00:00:02")


# --------------------------------------------------------------------------------------------------- edits by the page

MESSY = b"""# ours
B8-27-EB-00-00-01 ; 172.30.4.13 ; pi1 ; 7  # the first
broken line

b8:27:eb:00:00:02;172.30.4.14
"""


@pytest.mark.parametrize(
    ("change", "after"),
    [
        (
            HostChange("edit", "b8:27:eb:00:00:01", "172.30.4.20"),
            MESSY.replace(b"172.30.4.13", b"172.30.4.20"),
        ),
        (HostChange("edit", "b8:27:eb:00:00:01", hostname="new"), MESSY.replace(b"pi1", b"new")),
        (HostChange("edit", "b8:27:eb:00:00:01", "", ""), MESSY.replace(b"172.30.4.13 ; pi1", b"0.0.0.0 ; ")),
        (HostChange("edit", "b827eb000002", hostname="x"), MESSY.replace(b"4.14", b"4.14;x")),
        (HostChange("remove", "b8:27:eb:00:00:02"), MESSY.replace(b"b8:27:eb:00:00:02;172.30.4.14\n", b"")),
        (HostChange("add", "B8:27:EB:00:00:03"), MESSY + b"b8:27:eb:00:00:03;0.0.0.0;;0\n"),
        (HostChange("add", "b8:27:eb:00:00:03", "172.30.4.9", "c"), MESSY + b"b8:27:eb:00:00:03;172.30.4.9;c;0\n"),
    ],
)
def test_one_line_changes_and_the_others_stay(change: HostChange, after: bytes) -> None:
    assert edit_hosts(MESSY, [change]) == after


def test_a_line_is_added_after_one_without_an_end() -> None:
    assert edit_hosts(b"# x", [HostChange("add", "b8:27:eb:00:00:03")]) == b"# x\nb8:27:eb:00:00:03;0.0.0.0;;0\n"
    assert edit_hosts(b"", [HostChange("add", "b8:27:eb:00:00:03")]) == b"b8:27:eb:00:00:03;0.0.0.0;;0\n"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (HostChange("add", "b8:27:eb:00:00:01"), "is in line 2 already"),
        (HostChange("edit", "b8:27:eb:00:00:09"), "is not in hosts.csv"),
        (HostChange("remove", "nonsense"), "no MAC"),
    ],
)
def test_edits_that_cannot_be(change: HostChange, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        edit_hosts(MESSY, [change])


def test_a_digest_that_last_seen_does_not_change() -> None:
    seen = MESSY.replace(b"; 7  #", b"; 99  #")
    assert hosts_digest(seen) == hosts_digest(MESSY)
    assert hosts_digest(MESSY.replace(b"pi1", b"pi2")) != hosts_digest(MESSY)
    assert hosts_digest(MESSY + b"#;a;b;c\n") != hosts_digest(MESSY)
    old = MESSY.replace(b"pi1", b"new") + b"b8:27:eb:00:00:02;;x\n"
    merged = with_last_seen(old, seen + b"b8:27:eb:00:00:02;;;5\n")
    assert merged == old.replace(b"; 7  #", b"; 99  #").replace(b";;x\n", b";;x;5\n")


def test_a_rewrite_mends_a_broken_file_and_refuses_to_break_one(path: Path) -> None:
    path.write_bytes(b"b8:27:eb:00:00:01;172.30.4.13;pi1;0\n")
    hosts = Hosts(path, PLAN)
    with pytest.raises(ConfigError, match="nonsense"):
        hosts.rewrite(lambda data: data + b"nonsense\n")
    assert hosts.problems_of(b"nonsense\n")
    assert not hosts.problems_of(b"")
    path.write_bytes(b"nonsense\n")
    assert hosts.check()
    assert hosts.rewrite(lambda _data: b"b8:27:eb:00:00:02;0.0.0.0;pi2;0\n") == b"nonsense\n"
    assert hosts.named("pi2")
    assert b"0.0.0.0" not in path.read_bytes()


def test_a_broken_file_can_be_opened_to_mend_it(path: Path) -> None:
    path.write_bytes(b"nonsense\n")
    hosts = Hosts(path, PLAN, mend=True)
    assert hosts.all() == ()
    with pytest.raises(ConfigError):
        hosts.add(A)
    hosts.rewrite(lambda _data: f"{A};172.30.4.13;pi1;0\n".encode())
    assert hosts.named("pi1")


def test_a_rewrite_begins_anew_where_another_wrote_meanwhile(path: Path) -> None:
    path.write_bytes(b"b8:27:eb:00:00:01;172.30.4.13;pi1;0\n")
    hosts = Hosts(path, PLAN)
    times = iter(range(100))

    def make(data: bytes, others: int) -> bytes:
        if next(times) < others:
            path.write_bytes(data + b"# another\n")
        return data + b"# ours\n"

    hosts.rewrite(lambda data: make(data, 1))
    assert path.read_bytes().endswith(b"# another\n# ours\n")
    with pytest.raises(OSError, match="by others all the time"):
        hosts.rewrite(lambda data: make(data, 100))


def test_another_config_is_followed_where_it_fits(tmp_path: Path) -> None:
    text = "private_number: 4\nserver_address: 172.30.4.1\nsubnet_mask: 255.255.255.0\ninterface: lo\nswitches: []\n"
    (tmp_path / "config.yaml").write_text(text)
    config = load_config(tmp_path / "config.yaml", environ={})
    path = tmp_path / "hosts.csv"
    path.write_text(f"{A};172.30.4.13;pi1;0\n")
    hosts = Hosts.open(path, config)
    assert not hosts.follow(load_config(tmp_path / "config.yaml", environ={}, data=text.replace("4.1", "4.2").encode()))
    assert hosts.named("pi1")
    other = load_config(tmp_path / "config.yaml", environ={}, data=text.replace("30.4", "30.5").encode())
    assert "outside 172.30.5.0/24" in str(hosts.follow(other)[0])
    assert not hosts.check(), "it is told once"
    assert hosts.named("pi1"), "the last good one stays in force"
    with pytest.raises(ConfigError):
        hosts.add(B)
    assert not hosts.follow(config)
    assert hosts.add(B).address == ip("172.30.4.2")
