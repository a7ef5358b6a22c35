"""Tests of utility.usm: the RFCs' own vectors, messages both ways, and an engine that is late, replaced or forged."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utility.usm import (
    AUTH,
    AUTHENTIC,
    PRIV,
    PRIVATE,
    Frame,
    Heard,
    PacketError,
    Reader,
    Session,
    User,
    decrypt,
    digest_place,
    encrypt,
    local_key,
    make_keys,
    parse_frame,
    parse_scoped,
    password_key,
    put,
    put_int,
    put_scoped,
    sign,
    stretch_key,
)

ENGINE = bytes.fromhex("000000000000000000000002")
PDU = bytes.fromhex("a2 0b 0201 07 020100 020100 3000")
USER = User("piman", "SHA-256", "maplesyrup", "AES", "dolphin88")


# ---------------------------------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize(
    ("auth", "key", "local"),
    [  # RFC 3414 appendix A.3.1 and A.3.2: the password maplesyrup
        ("MD5", "9faf3283884e92834ebc9847d8edd963", "526f5eed9fcce26f8964c2930787d82b"),
        ("SHA", "9fb5cc0381497b3793528939ff788d5d79145211", "6695febc9288e36282235fc7151f128497b38f3f"),
    ],
)
def test_keys_of_a_password(auth: str, key: str, local: str) -> None:
    name = AUTH[auth].hash
    assert password_key(name, b"maplesyrup").hex() == key
    assert local_key(name, bytes.fromhex(key), ENGINE).hex() == local
    assert make_keys(User("u", auth, "maplesyrup"), ENGINE).auth.hex() == local


@pytest.mark.parametrize(
    ("auth", "kept", "size"),
    [("MD5", 12, 16), ("SHA", 12, 20), ("SHA-224", 16, 28), ("SHA-256", 24, 32),
     ("SHA-384", 32, 48), ("SHA-512", 48, 64)],
)  # fmt: skip
def test_how_much_is_kept_of_a_digest(auth: str, kept: int, size: int) -> None:
    """RFC 3414 section 6 and 7, RFC 7860 section 4.1."""
    assert len(make_keys(User("u", auth, "maplesyrup"), ENGINE).auth) == size
    assert len(sign(User("u", auth), b"k" * size, b"message")) == kept


@pytest.mark.parametrize("auth", AUTH)
@pytest.mark.parametrize("priv", PRIV)
def test_a_key_is_as_long_as_its_cipher_wants(auth: str, priv: str) -> None:
    key = make_keys(User("u", auth, "maplesyrup", priv, "maplesyrup"), ENGINE).priv
    local = make_keys(User("u", auth, "maplesyrup"), ENGINE).auth
    assert len(key) == PRIV[priv].key
    assert key.startswith(local[: len(key)])


def test_stretched_keys() -> None:
    """The drafts have no vectors; that net-snmp agrees is in tests/peers/test_snmp_v3.py."""
    key = bytes.fromhex("526f5eed9fcce26f8964c2930787d82b")
    more = hashlib.md5(key).digest()
    assert stretch_key("blumenthal", "md5", key, ENGINE, 24) == (key + more)[:24]
    assert stretch_key("blumenthal", "md5", key, ENGINE, 40) == (key + more + hashlib.md5(key + more).digest())[:40]
    again = local_key("md5", password_key("md5", key), ENGINE)
    assert stretch_key("reeder", "md5", key, ENGINE, 24) == (key + again)[:24]
    assert stretch_key("reeder", "md5", key, ENGINE, 16) == key


# ------------------------------------------------------------------------------------------------------------- ciphers


@pytest.mark.parametrize("priv", PRIV)
@given(data=st.binary(max_size=200), salt=st.binary(min_size=8, max_size=8), boots=st.integers(0, 2**31 - 1))
def test_what_is_encrypted_comes_back(priv: str, data: bytes, salt: bytes, boots: int) -> None:
    user = replace(USER, priv=priv)
    key = make_keys(user, ENGINE).priv
    secret = encrypt(user, key, boots, 7, salt, data)
    assert decrypt(user, key, boots, 7, salt, secret)[: len(data)] == data
    assert len(secret) == len(data) if priv != "DES" else len(secret) % 8 == 0
    if len(data) > 7:
        assert secret[: len(data)] != data


def test_ciphers_of_standards() -> None:
    """FIPS 81 table C1 for DES; NIST SP 800-38A F.3.13 for AES in CFB, whose vector is boots, time and salt."""
    des = bytes.fromhex("0123456789abcdef") + bytes(8)  # and a pre-vector of zeros
    vector = bytes.fromhex("1234567890abcdef")
    secret = encrypt(User("u", "MD5", priv="DES"), des, 0, 0, vector, b"Now is the time for all ")
    assert secret.hex() == "e5c7cdde872bf27c43e934008c389c0f683788499a7c05f6"
    aes = bytes.fromhex("2b7e151628aed2a6abf7158809cf4f3c")
    plain = bytes.fromhex("6bc1bee22e409f96e93d7e117393172a")
    secret = encrypt(User("u", "SHA", priv="AES"), aes, 0x00010203, 0x04050607, bytes(range(8, 16)), plain)
    assert secret.hex() == "3b3fd92eb72dad20333449f8e83cfb4a"


@pytest.mark.parametrize(("salt", "data"), [(b"1234567", b"x" * 8), (b"12345678", b"x" * 9)])
def test_what_cannot_have_been_encrypted(salt: bytes, data: bytes) -> None:
    with pytest.raises(PacketError):
        decrypt(replace(USER, priv="DES"), bytes(16), 1, 1, salt, data)


# ------------------------------------------------------------------------------------------------------------ messages

# The first is what asks an engine who it is (RFC 3414 section 4).
GOLDEN = [
    (
        Frame(0x5B5BB5F7, 4, body=bytes.fromhex("30140400 0400a00e02044f2bc7d10201000201003000")),
        (
            "303e 020103 3011 02045b5bb5f7 0203 00ffe3 040104 020103 0410 300e0400 020100 020100 0400 0400 0400"
            " 3014 0400 0400 a00e 02044f2bc7d1 020100 020100 3000"
        ),
    ),
    (
        Frame(300, AUTHENTIC | PRIVATE, b"engin", 200, 70000, b"piman", b"d" * 12, b"saltsalt", b"secret"),
        (
            "304f 020103 300f 0202012c 020300ffe3 040103 020103 0431"
            " 302f 0405656e67696e 020200c8 0203011170 040570696d616e 040c646464646464646464646464 040873616c7473616c74"
            " 0406736563726574"
        ),
    ),
]


@pytest.mark.parametrize(("frame", "data"), GOLDEN)
def test_messages_both_ways(frame: Frame, data: str) -> None:
    assert frame.encode().hex() == data.replace(" ", "")
    assert parse_frame(bytes.fromhex(data)) == frame
    place = digest_place(frame.encode())
    assert frame.encode()[place] == frame.digest


numbers, texts = st.integers(0, 2**31 - 1), st.binary(max_size=32)


@given(st.builds(Frame, numbers, st.integers(0, 1), texts, numbers, numbers, texts, texts, st.just(b""), texts))
def test_any_message_comes_back(frame: Frame) -> None:
    assert parse_frame(frame.encode()) == frame


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_none(data: bytes) -> None:
    for parse in (parse_frame, parse_scoped):
        try:
            parse(data)
        except PacketError:
            continue


@given(st.integers(0, 120), st.integers(0, 255))
def test_any_damage_is_a_message_or_none(place: int, value: int) -> None:
    data = bytearray(GOLDEN[1][0].encode())
    data[place % len(data)] = value
    session = Session(USER)
    with pytest.raises(PacketError):
        session.decode(bytes(data), 0)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x02\x01\x00",
        b"\x30\x80",
        b"\x30\x85\x00\x00\x00\x00\x00",
        b"\x30\x82\x01",
        b"\x30\x05\x02",
        put(0x30, put_int(2)),
        put(0x30, put_int(-1)),
        put(0x30, put(0x02)),
        put(0x30, put_int(3), put(0x30, put_int(1), put_int(9), put(4, b""), put_int(3))),
        put(0x30, put_int(3), put(0x30, put_int(1), put_int(9), put(4, b"xx"), put_int(3))),
        put(0x30, put_int(3), put(0x30, put_int(1), put_int(9), put(4, b"x"), put_int(1))),
    ],
)
def test_what_is_no_message(data: bytes) -> None:
    with pytest.raises(PacketError):
        parse_frame(data)


def test_lengths_of_all_sizes() -> None:
    for size in (0, 127, 128, 255, 256, 65535, 65536):
        assert Reader(put(4, bytes(size))).octets(70000) == bytes(size)


# -------------------------------------------------------------------------------------------------------------- engine


class Engine:
    """The other end: answers as an agent does, with the same pieces."""

    def __init__(self, user: User = USER, boots: int = 5, time: int = 1000, name: bytes = b"engine") -> None:
        self.user, self.boots, self.time, self.name = user, boots, time, name

    def hello(self, message_id: int = 1) -> bytes:
        body = put_scoped(self.name, "", b"\xa8" + PDU[1:])  # a report
        return Frame(message_id, 0, self.name, self.boots, self.time, body=body).encode()

    def answer(
        self, message_id: int = 1, *, level: int | None = None, user: User | None = None, pdu: bytes = PDU
    ) -> bytes:
        user = user or self.user
        level = user.level if level is None else level
        keys = make_keys(user, self.name)
        body, salt = put_scoped(self.name, "", pdu), b""
        if level & PRIVATE:
            salt = b"saltsalt"
            body = encrypt(user, keys.priv, self.boots, self.time, salt, body)
        room = bytes(AUTH[user.auth].kept) if level & AUTHENTIC else b""
        frame = Frame(message_id, level, self.name, self.boots, self.time, user.name.encode(), room, salt, body)
        if not level & AUTHENTIC:
            return frame.encode()
        return replace(frame, digest=sign(user, keys.auth, frame.encode())).encode()

    def open(self, data: bytes) -> bytes:
        """The PDU of a request, whose digest is right."""
        frame, keys = parse_frame(data), make_keys(self.user, self.name)
        if frame.flags & AUTHENTIC:
            place = digest_place(data)
            blank = data[: place.start] + bytes(len(frame.digest)) + data[place.stop :]
            assert sign(self.user, keys.auth, blank) == frame.digest
        body = frame.body
        if frame.flags & PRIVATE:
            body = decrypt(self.user, keys.priv, frame.boots, frame.time, frame.salt, body)
        return parse_scoped(body)


LEVELS = [
    User("piman"),
    User("piman", "MD5", "maplesyrup"),
    *(User("piman", auth, "maplesyrup", priv, "dolphin88") for auth, priv in zip(AUTH, PRIV, strict=True)),
]


def meet(engine: Engine, now: float = 0.0) -> Session:
    session = Session(engine.user)
    assert not session.knows_engine
    session.decode(engine.hello(), now)
    assert session.knows_engine
    return session


@pytest.mark.parametrize("user", LEVELS, ids=lambda user: f"{user.auth}-{user.priv}")
def test_a_request_and_its_answer(user: User) -> None:
    engine = Engine(user)
    session = meet(engine)
    request = session.encode(77, "vlan-9", PDU, 3.0)
    frame = parse_frame(request)
    assert (frame.message_id, frame.engine_id, frame.user, frame.flags) == (77, b"engine", b"piman", user.level | 4)
    assert (frame.boots, frame.time) == ((5, 1003) if user.level else (0, 0))
    assert engine.open(request) == PDU
    assert (PDU in request) == (not user.priv)
    assert session.decode(engine.answer(77), 3.0) == Heard(77, bool(user.auth), PDU)


def test_no_two_messages_have_the_same_salt() -> None:
    for user in LEVELS[2:]:
        session = meet(Engine(user))
        salts = {parse_frame(session.encode(1, "", PDU, 0.0)).salt for _ in range(100)}
        assert len(salts) == 100


def test_a_request_that_is_signed_only() -> None:
    engine = Engine()
    request = meet(engine).encode(1, "", PDU, 0.0, level=AUTHENTIC)
    assert PDU in request
    assert engine.open(request) == PDU


def test_the_discovery_asks_for_nothing_and_names_nobody() -> None:
    frame = parse_frame(Session(USER).discover(9, PDU))
    assert frame == Frame(9, 4, body=put_scoped(b"", "", PDU))


def test_an_engine_that_started_again_is_believed_when_it_signs() -> None:
    engine = Engine()
    session = meet(engine)
    engine.boots, engine.time = 6, 2
    session.decode(engine.answer(), 10.0)
    frame = parse_frame(session.encode(1, "", PDU, 20.0))
    assert (frame.boots, frame.time) == (6, 12)


def test_a_clock_that_runs_a_little_behind_is_borne_and_one_ahead_is_followed() -> None:
    engine = Engine()
    session = meet(engine)
    engine.time = 900
    session.decode(engine.answer(), 0.0)
    assert parse_frame(session.encode(1, "", PDU, 0.0)).time == 1000
    engine.time = 1500
    session.decode(engine.answer(), 0.0)
    assert parse_frame(session.encode(1, "", PDU, 1.0)).time == 1501


@pytest.mark.parametrize(
    "forge",
    [
        lambda _engine: Engine(boots=4).answer(),  # an old message played again
        lambda _engine: Engine(time=849).answer(),
        lambda _engine: Engine(name=b"other").answer(),
        lambda engine: engine.answer(user=replace(USER, name="somebody")),
        lambda engine: engine.answer(user=replace(USER, auth_password="wrong-password")),
        lambda engine: engine.answer(user=replace(USER, auth="SHA-512")),
        lambda engine: engine.answer(level=PRIVATE),
        lambda engine: engine.answer(user=replace(USER, priv_password="wrong-password")),
    ],
)
def test_what_is_not_believed(forge: Callable[[Engine], bytes]) -> None:
    engine = Engine()
    session = meet(engine)
    with pytest.raises(PacketError):
        session.decode(forge(engine), 0.0)
    assert session.decode(engine.answer(), 0.0).authentic


def test_what_is_encrypted_for_one_who_cannot_decrypt() -> None:
    user = replace(USER, priv="")
    with pytest.raises(PacketError):
        meet(Engine(user)).decode(Engine().answer(), 0.0)


def test_an_unsigned_message_is_passed_on_as_what_it_is() -> None:
    assert meet(Engine()).decode(Engine().answer(level=0), 0.0) == Heard(1, False, PDU)


def test_who_has_no_name_is_no_engine() -> None:
    session = Session(USER)
    with pytest.raises(PacketError, match="no engine"):
        session.decode(Engine(name=b"").hello(), 0.0)
    assert not session.knows_engine


def test_an_engine_that_was_replaced_is_met_anew() -> None:
    session = meet(Engine())
    session.forget()
    other = Engine(name=b"another")
    session.decode(other.hello(), 0.0)
    assert other.open(session.encode(1, "", PDU, 0.0)) == PDU


def test_no_secret_is_shown() -> None:
    assert "maplesyrup" not in repr(USER)
    assert "dolphin" not in repr(USER)
    assert repr(make_keys(USER, ENGINE)) == "Keys()"
