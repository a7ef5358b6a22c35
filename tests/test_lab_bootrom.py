"""lab/bootrom.py, lab/stack.py: each model boots in virtual time, from good and from bad managers."""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import frames
from lab.bootrom import BootFailed, BootRom, Downloaded
from lab.frames import NO_ADDRESS
from lab.profiles import MASK_ROM_XID, PROFILES, PXE_MARK, Identity, Profile, Quirks
from lab.stack import DhcpClient, NoAnswer, Stack, drive, parse_dhcp
from tests.lab_wire import COOKIE, PI, SERVER, SERVER_MAC, VirtualManager, option

CONFIG = b"[all]\narm_64bit=1\nkernel=kernel8.img\ninitramfs initramfs.gz followkernel\n"
FILES = {
    "bootcode.bin": b"b" * 1500,
    "start.elf": b"s" * 3000,
    "fixup.dat": b"f" * 512,
    "start4.elf": b"4" * 3000,
    "fixup4.dat": b"x" * 10,
    "config.txt": CONFIG,
    "cmdline.txt": b"console=tty1 master=10.0.0.1\n",
    "kernel8.img": b"k" * 5000,
    "initramfs.gz": b"i" * 4096,
    "bcm2710-rpi-3-b.dtb": b"dtb3",
    "bcm2711-rpi-4-b.dtb": b"dtb4",
    "bcm2712-rpi-5-b.dtb": b"dtb5",
}
MAC = "b8:27:eb:00:00:01"
FOLDER = "5e000001"


def boot(manager: VirtualManager, model: str | Profile = "3b", seed: int = 1, disk: bool = False) -> Downloaded:
    profile = PROFILES[model] if isinstance(model, str) else model
    board = Identity(MAC, 0x5E000001, profile.revision)
    return BootRom(profile, board, manager, manager.clock, random.Random(seed), disk=disk).run()


def in_folder(files: dict[str, bytes]) -> dict[str, bytes]:
    """Everything where the board's folder is; the ROM's own files stay in the root. `//` is another name for `/`."""
    found = {f"{FOLDER}{slash}{name}": data for name, data in files.items() for slash in ("/", "//")}
    return found | {"bootcode.bin": files["bootcode.bin"]}


@pytest.mark.parametrize("model", ["3b", "3b+", "4", "5"])
@pytest.mark.parametrize("folder", [False, True])
def test_boot(model: str, folder: bool) -> None:
    manager = VirtualManager(in_folder(FILES) if folder else FILES)
    got = boot(manager, model)
    assert got.kernel == FILES["kernel8.img"]
    assert got.initramfs == FILES["initramfs.gz"]
    assert got.device_tree == manager.files.get(PROFILES[model].device_tree, got.device_tree)
    assert got.cmdline == "console=tty1 master=10.0.0.1"
    assert got.lease.address == PI
    assert got.lease.tftp_server == SERVER
    assert got.complaints == ()
    assert got.requests == tuple(name for name, _ in manager.requests)


def test_the_3b_never_requests_and_asks_twice_with_one_xid() -> None:
    manager = VirtualManager(FILES)
    boot(manager)
    assert [message[242] for message in manager.dhcp] == [1, 1]
    assert {int.from_bytes(message[4:8], "big") for message in manager.dhcp} == {MASK_ROM_XID}
    assert [len(message) for message in manager.dhcp] == [320, 322]
    assert manager.arp_answers == 0


def test_the_pi_4_does_all_four_steps() -> None:
    manager = VirtualManager(FILES)
    boot(manager, "4")
    assert [message[242] for message in manager.dhcp] == [1, 3]
    assert manager.dhcp[0][4:8] == manager.dhcp[1][4:8] != MASK_ROM_XID.to_bytes(4, "big")


def test_options_of_the_stages() -> None:
    manager = VirtualManager(FILES)
    boot(manager)
    options = dict(manager.requests)
    assert options["bootcode.bin"] == ()
    assert options["kernel8.img"] == ("tsize", "0")
    assert manager.ports[:4] == [49152, 49153, 49153, 49154]
    manager = VirtualManager(FILES)
    boot(manager, "4")
    assert dict(manager.requests)["kernel8.img"] == ("tsize", "0", "blksize", "1468")


def test_order_of_the_pi_4() -> None:
    manager = VirtualManager(in_folder(FILES))
    names = [name.removeprefix(f"{FOLDER}/") for name in boot(manager, "4").requests]
    assert names[:7] == [
        "start4.elf",
        "config.txt",
        "pieeprom.sig",
        "recover4.elf",
        "recovery.elf",
        "start4.elf",
        "fixup4.dat",
    ]
    assert names[-2:] == ["armstub8-gic.bin", "kernel8.img"]
    assert "Early terminate" in manager.errors


def test_root_when_there_is_no_folder() -> None:
    names = boot(VirtualManager(FILES), "4").requests
    assert names[:3] == (f"{FOLDER}/start4.elf", f"{FOLDER}/start.elf", "config.txt")
    names = boot(VirtualManager(FILES), "5").requests
    assert names[:2] == (f"{FOLDER}/config.txt", "config.txt")


def test_the_pi_5_writes_two_slashes() -> None:
    assert f"{FOLDER}//cmdline.txt" in boot(VirtualManager(in_folder(FILES)), "5").requests


def test_an_error_may_follow_the_next_request() -> None:
    """Over some boots, the ERROR of a probe leaves before and after the request that follows it."""
    orders = set()
    for seed in range(8):
        manager = VirtualManager(FILES)
        boot(manager, seed=seed)
        orders.add(tuple(manager.talk))
        assert set(manager.errors) == {"Early terminate"}
    assert len(orders) > 1


def test_the_3b_dies_after_five_discovers() -> None:
    manager = VirtualManager(FILES)
    manager.offers = False
    with pytest.raises(BootFailed, match="DHCP"):
        boot(manager)
    assert len(manager.dhcp) == 5
    assert manager.now - manager.dhcp_times[0] == pytest.approx(25.0, abs=0.1)


def test_the_3b_is_deaf_for_a_second() -> None:
    """An OFFER that comes at once is lost on it, unless another frame follows a second after the DISCOVER."""
    manager = VirtualManager(FILES)
    manager.offer_delay = 0.1
    with pytest.raises(BootFailed, match="DHCP"):
        boot(manager)
    manager = VirtualManager(FILES)
    manager.offer_delay = 0.1
    stray = frames.encode_arp(frames.ARP_REQUEST, SERVER_MAC, SERVER.packed, bytes(6), PI.packed)
    manager.put(stray, 5.0 + 1.5)
    assert boot(manager).lease.address == PI


def test_the_3b_takes_an_offer_to_another_board() -> None:
    manager = VirtualManager(FILES)
    manager.chaddr = bytes(6)
    assert boot(manager).lease.address == PI
    with pytest.raises(BootFailed, match="DHCP"):
        boot(manager, "4")


@pytest.mark.parametrize("model", ["3b", "3b+", "4"])
@pytest.mark.parametrize(
    ("boot_options", "models"),
    [
        (option(43, b"\x09\x17\0\0\x14" + PXE_MARK + b"   "), ("3b", "3b+", "4")),
        (option(43, b"\x09\x14\0\0\x11" + PXE_MARK), ("3b+", "4")),
        (option(66, b"10.0.0.1"), ("3b", "3b+", "4")),
        (option(66, b"10.0.0.1\0") + option(43, PXE_MARK), ("3b+", "4")),
        (b"", ()),
        (option(43, b"Something else") + option(66, b"boot.example"), ()),
    ],
)
def test_which_offers_will_do(model: str, boot_options: bytes, models: tuple[str, ...]) -> None:
    manager = VirtualManager(FILES)
    manager.boot_options = boot_options
    server = SERVER if model in models else None
    if server is not None:
        assert boot(manager, model).lease.tftp_server == server
    else:
        with pytest.raises(BootFailed, match="OFFER"):
            boot(manager, model)


def test_a_refused_request() -> None:
    manager = VirtualManager(FILES)
    manager.refuse = True
    with pytest.raises(BootFailed, match="refused"):
        boot(manager, "4")


@pytest.mark.parametrize(("model", "missing"), [("3b", "bootcode.bin"), ("3b", "start.elf"), ("4", "start4.elf")])
def test_a_missing_file_ends_it(model: str, missing: str) -> None:
    manager = VirtualManager({name: data for name, data in FILES.items() if name != missing})
    with pytest.raises(BootFailed, match=missing):
        boot(manager, model)


@pytest.mark.parametrize(("model", "missing"), [("3b", "kernel8.img"), ("5", "kernel8.img"), ("4", "initramfs.gz")])
def test_no_kernel_or_initramfs(model: str, missing: str) -> None:
    manager = VirtualManager({name: data for name, data in FILES.items() if name != missing})
    with pytest.raises(BootFailed, match=missing):
        boot(manager, model)


def test_no_config_at_all_takes_the_defaults() -> None:
    files = FILES | {"kernel7.img": b"seven"}
    files.pop("config.txt")
    got = boot(VirtualManager(files))
    assert (got.kernel, got.initramfs) == (b"seven", b"")


def test_auto_initramfs_and_overlays() -> None:
    config = b"auto_initramfs=1\ndtoverlay=disable-wifi\n"
    manager = VirtualManager(FILES | {"config.txt": config, "initramfs8": b"auto", "overlays/disable-wifi.dtbo": b"o"})
    got = boot(manager, "4")
    assert got.initramfs == b"auto"
    assert "overlays/disable-wifi.dtbo" in got.requests


def test_silence_is_no_404() -> None:
    """Where the folder's probe is not answered, the board does not fall back to the root."""
    manager = VirtualManager(FILES)
    manager.silent = {f"{FOLDER}/start4.elf"}
    with pytest.raises(BootFailed, match="no answer"):
        boot(manager, "4")
    assert {name for name, _ in manager.requests} == manager.silent
    assert len(manager.requests) == 15  # every 2 s for 30 s
    assert len(set(manager.ports)) == 1
    assert manager.errors == ["to port 69"]


def test_answers_from_another_address_are_dropped() -> None:
    manager = VirtualManager(FILES)
    manager.source = IPv4Address("10.0.0.9")
    with pytest.raises(BootFailed, match="no answer"):
        boot(manager, "4")


def test_a_server_that_does_not_answer_arp() -> None:
    manager = VirtualManager(FILES)
    manager.answer_arp = False
    with pytest.raises(BootFailed, match="ARP"):
        boot(manager)


@pytest.mark.parametrize(
    ("model", "cause"), [("3b", "second OACK"), (PROFILES["4"].quirk(repeated_data=False), "block 1")]
)
def test_what_hangs_a_board_hangs_it_for_good(model: str | Profile, cause: str) -> None:
    manager = VirtualManager(FILES)
    manager.twice = True
    with pytest.raises(BootFailed, match=f"hangs at .*{cause}") as failed:
        boot(manager, model, disk=model != "3b")
    assert failed.value.hung


def test_a_disk_is_booted_first_or_last_as_the_model_has_it() -> None:
    manager = VirtualManager(FILES)
    assert boot(manager, "3b", disk=True).from_disk
    assert not manager.dhcp
    assert not boot(manager, "4", disk=True).from_disk
    manager.offers = False
    assert boot(manager, "4", disk=True).from_disk
    with pytest.raises(BootFailed, match="DHCP"):
        boot(manager, "4")


def test_a_reset_where_only_a_cold_start_helps() -> None:
    profile = replace(PROFILES["4"], warm_boot=False)
    manager = VirtualManager(FILES)
    rom = BootRom(profile, Identity(MAC, 1, profile.revision), manager, manager.clock, random.Random(1))
    assert rom.run().kernel
    with pytest.raises(BootFailed, match="reset") as failed:
        rom.run(warm=True)
    assert failed.value.hung


def test_the_mask_rom_asks_nobodys_mac() -> None:
    manager = VirtualManager(FILES)
    manager.answer_arp = False
    with pytest.raises(BootFailed, match="ARP"):
        boot(manager)
    assert "bootcode.bin" in dict(manager.requests)  # so it was bootcode.bin that asked


def test_doubled_packets_are_complained_of_but_survived() -> None:
    manager = VirtualManager(FILES)
    manager.twice = True
    got = boot(manager, "4")
    assert got.kernel == FILES["kernel8.img"]
    assert any("a second OACK" in text for text in got.complaints)
    assert any("again" in text for text in got.complaints)


@pytest.mark.parametrize("model", ["3b", "5"])
def test_loss(model: str) -> None:
    manager = VirtualManager(FILES)
    manager.lose_every = 7
    got = boot(manager, model)
    assert (got.kernel, got.initramfs) == (FILES["kernel8.img"], FILES["initramfs.gz"])


def test_a_server_without_options_costs_an_eeprom_board_its_config() -> None:
    manager = VirtualManager(FILES | {"kernel8.img": b"default"})
    manager.take_options = False
    got = boot(manager, "4")
    assert (got.kernel, got.initramfs) == (b"default", b"")


def test_a_config_of_more_than_4096_bytes_is_ignored() -> None:
    config = b"kernel=late\n".ljust(4096, b"#")
    files = FILES | {"config.txt": config, "late": b"late"}
    assert boot(VirtualManager(files), "4").kernel == b"late"
    files["config.txt"] += b"#"
    assert boot(VirtualManager(files), "4").kernel == FILES["kernel8.img"]
    assert boot(VirtualManager(files), "3b").kernel == b"late"


def test_a_file_too_long_for_old_counters() -> None:
    files = FILES | {"kernel8.img": bytes(65535 * 512 + 1)}
    with pytest.raises(BootFailed, match="65535"):
        boot(VirtualManager(files), "3b")
    long = bytes(range(256)) * 6 * 65536  # 1468 * 65536 is less
    assert boot(VirtualManager(FILES | {"kernel8.img": long}), "5").kernel == long


def test_an_eeprom_board_answers_arp() -> None:
    manager = VirtualManager(FILES)
    asked = frames.encode_arp(frames.ARP_REQUEST, SERVER_MAC, SERVER.packed, bytes(6), PI.packed)
    stack = Stack(manager, bytes.fromhex(MAC.replace(":", "")), manager.clock)
    stack.address = PI.packed
    manager.put(asked)
    drive(stack.sleep(1.0), manager, manager.clock)
    assert manager.arp_answers == 1
    stack.quirks = Quirks(answers_arp=False)
    manager.put(asked)
    drive(stack.sleep(1.0), manager, manager.clock)
    assert manager.arp_answers == 1


def test_bad_checksums_are_dropped_by_all_but_the_mask_rom() -> None:
    manager = VirtualManager(FILES)
    mac = bytes.fromhex(MAC.replace(":", ""))
    frame = bytearray(frames.encode_udp(SERVER_MAC, mac, (SERVER.packed, 1), (PI.packed, 99), b"hello"))
    frame[-1] ^= 1
    stack = Stack(manager, mac, manager.clock)
    manager.put(bytes(frame))
    assert drive(stack.receive(99, manager.now + 1), manager, manager.clock) is None
    stack.quirks = Quirks(udp_checksum=False)
    manager.put(bytes(frame))
    assert drive(stack.receive(99, manager.now + 1), manager, manager.clock) is not None


def test_no_answer_to_the_request() -> None:
    manager = VirtualManager(FILES)
    manager.offers = False
    stack = Stack(manager, bytes(6), manager.clock)
    manager.lose_every = 1
    client = DhcpClient(stack, 1)
    with pytest.raises(NoAnswer, match="REQUEST"):
        drive(client.request(b"\x35\1\3\xff"), manager, manager.clock)


def test_options_come_joined() -> None:
    head = b"\2" + bytes(235) + COOKIE
    reply = parse_dhcp(head + option(43, b"Raspberry ") + b"\0" + option(43, b"Pi Boot") + b"\xff", SERVER)
    assert reply is not None
    assert reply.options == {43: PXE_MARK}
    assert reply.lease().tftp_server == SERVER
    assert reply.kind == 0


@pytest.mark.parametrize("tail", [b"\x35", b"\x35\x04\1"])
def test_a_cut_option_is_no_reply(tail: bytes) -> None:
    assert parse_dhcp(b"\2" + bytes(235) + COOKIE + tail, SERVER) is None


@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    parse_dhcp(data, IPv4Address(NO_ADDRESS))
    parse_dhcp(b"\2" + bytes(235) + COOKIE + data, IPv4Address(NO_ADDRESS))


@given(st.lists(st.binary(max_size=90), max_size=6), st.sampled_from(["3b", "4"]))
def test_garbage_on_the_wire_does_not_stop_a_boot(rubbish: list[bytes], model: str) -> None:
    manager = VirtualManager(FILES)
    mac = bytes.fromhex(MAC.replace(":", ""))
    for number, data in enumerate(rubbish):
        frame = frames.encode_udp(SERVER_MAC, mac, (SERVER.packed, 67), (PI.packed, 68), data)
        manager.put(frame, 6.0 + number / 10)
        manager.put(mac + data, 6.05 + number / 10)
    assert boot(manager, model).kernel == FILES["kernel8.img"]
