"""The security of SNMP v3 by users (RFC 3414, 3826, 7860): keys, digests, ciphers, the message around a PDU.

No socket and no clock: the time is an argument. What is in a PDU is left to utility.snmp, bytes here. The ciphers are
those of the package `cryptography`, which is imported when the first message is encrypted.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

MAX_SIZE = 65507  # of a datagram, the largest we take
WINDOW = 150  # seconds that an engine's clock and our idea of it may be apart (RFC 3414 section 2.2.3)
AUTHENTIC, PRIVATE, REPORTABLE = 1, 2, 4  # msgFlags
MAX_INT = 2**31 - 1

INTEGER, OCTETS, SEQUENCE = 0x02, 0x04, 0x30


class PacketError(ValueError):
    """Bytes that are no SNMP message, or none that we may believe."""


# ------------------------------------------------------------------------------------------------------- the protocols


@dataclass(frozen=True, slots=True)
class Auth:
    """How messages are signed: an HMAC, of which the first `kept` octets are sent."""

    hash: str  # as hashlib calls it
    kept: int


@dataclass(frozen=True, slots=True)
class Priv:
    """How they are encrypted. `stretch` makes a key of `key` octets where the hash gives fewer."""

    cipher: str
    key: int
    stretch: str = ""


AUTH = {
    "MD5": Auth("md5", 12),
    "SHA": Auth("sha1", 12),
    "SHA-224": Auth("sha224", 16),
    "SHA-256": Auth("sha256", 24),
    "SHA-384": Auth("sha384", 32),
    "SHA-512": Auth("sha512", 48),
}
# AES with more than 128 bits is in no RFC. Most follow draft-blumenthal-aes-usm-04; Cisco stretches the key as
# draft-reeder-snmpv3-usm-3desede-00 does, which net-snmp calls AES-192-C and AES-256-C.
PRIV = {
    "DES": Priv("des", 16),  # 8 for the key, 8 for the initial vector
    "AES": Priv("aes", 16),
    "AES-192": Priv("aes", 24, "blumenthal"),
    "AES-256": Priv("aes", 32, "blumenthal"),
    "AES-192-C": Priv("aes", 24, "reeder"),
    "AES-256-C": Priv("aes", 32, "reeder"),
}


@dataclass(frozen=True, slots=True)
class User:
    """Who asks. `auth` "": nothing is signed; `priv` "": nothing is encrypted."""

    name: str
    auth: str = ""
    auth_password: str = field(default="", repr=False)
    priv: str = ""
    priv_password: str = field(default="", repr=False)

    @property
    def level(self) -> int:
        return (AUTHENTIC if self.auth else 0) | (PRIVATE if self.auth and self.priv else 0)


@dataclass(frozen=True, slots=True)
class Keys:
    """A user's keys for one engine."""

    auth: bytes = field(default=b"", repr=False)
    priv: bytes = field(default=b"", repr=False)


@lru_cache(maxsize=64)  # a megabyte is hashed, for each of 48 switches; the same password gives the same key for ever
def password_key(hash_name: str, password: bytes) -> bytes:
    """The key of a password (RFC 3414 appendix A.2)."""
    size = 1 << 20
    return hashlib.new(hash_name, (password * (size // len(password) + 1))[:size], usedforsecurity=False).digest()


def local_key(hash_name: str, key: bytes, engine_id: bytes) -> bytes:
    """The key as it is for one engine (RFC 3414 section 2.6)."""
    return hashlib.new(hash_name, key + engine_id + key, usedforsecurity=False).digest()


def stretch_key(how: str, hash_name: str, key: bytes, engine_id: bytes, size: int) -> bytes:
    """A key of `size` octets."""
    piece = key
    while len(key) < size:
        if how == "reeder":
            piece = local_key(hash_name, password_key(hash_name, piece), engine_id)
            key += piece
        else:
            key += hashlib.new(hash_name, key, usedforsecurity=False).digest()
    return key[:size]


def make_keys(user: User, engine_id: bytes) -> Keys:
    if not user.auth:
        return Keys()
    name = AUTH[user.auth].hash
    auth = local_key(name, password_key(name, user.auth_password.encode()), engine_id)
    if not user.priv:
        return Keys(auth)
    priv = local_key(name, password_key(name, user.priv_password.encode()), engine_id)
    protocol = PRIV[user.priv]
    return Keys(auth, stretch_key(protocol.stretch, name, priv, engine_id, protocol.key))


# --------------------------------------------------------------------------------------------------------- the ciphers


def encrypt(user: User, key: bytes, boots: int, time: int, salt: bytes, data: bytes) -> bytes:
    """`salt` has 8 octets, and is never used twice with one key."""
    return _cipher(user, key, boots, time, salt).encrypt(data)


def decrypt(user: User, key: bytes, boots: int, time: int, salt: bytes, data: bytes) -> bytes:
    """PacketError for what cannot have been encrypted so. DES leaves its padding behind the data."""
    if len(salt) != 8 or (user.priv == "DES" and len(data) % 8):
        raise PacketError("not encrypted as agreed")
    return _cipher(user, key, boots, time, salt).decrypt(data)


@dataclass(frozen=True, slots=True)
class _Cipher:
    encrypt: Callable[[bytes], bytes]
    decrypt: Callable[[bytes], bytes]


def _cipher(user: User, key: bytes, boots: int, time: int, salt: bytes) -> _Cipher:
    from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES  # noqa: PLC0415  # 20 ms, of v3 alone
    from cryptography.hazmat.decrepit.ciphers.modes import CFB  # noqa: PLC0415
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes  # noqa: PLC0415

    block = 1
    cipher: Cipher[CFB] | Cipher[modes.CBC]
    if user.priv == "DES":
        vector = bytes(one ^ other for one, other in zip(key[8:16], salt, strict=True))
        cipher, block = Cipher(TripleDES(key[:8] * 3), modes.CBC(vector)), 8  # thrice the same key: it is DES
    else:
        vector = boots.to_bytes(4, "big") + time.to_bytes(4, "big") + salt
        cipher = Cipher(algorithms.AES(key), CFB(vector))

    def forth(data: bytes) -> bytes:
        context = cipher.encryptor()
        return context.update(data + bytes(-len(data) % block)) + context.finalize()

    def back(data: bytes) -> bytes:
        context = cipher.decryptor()
        return context.update(data) + context.finalize()

    return _Cipher(forth, back)


def sign(user: User, key: bytes, message: bytes) -> bytes:
    """The digest of a message that has zeros where the digest is to be."""
    protocol = AUTH[user.auth]
    return hmac.new(key, message, protocol.hash).digest()[: protocol.kept]


# ----------------------------------------------------------------------------------------------------------------- BER


def put(tag: int, *parts: bytes) -> bytes:
    """One value with its tag and its length."""
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    digits = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(digits))) + digits + content


def put_int(value: int) -> bytes:
    return put(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


class Reader:
    """The values of a part of some bytes, one after the other; PacketError at whatever is not as it should be."""

    def __init__(self, data: bytes, start: int = 0, end: int | None = None) -> None:
        self.data = data
        self.at = start
        self.end = len(data) if end is None else end

    def value(self, tag: int) -> Reader:
        """The content of the next value, which must have that tag; it ends before our own end does."""
        begin = self.at
        if begin + 2 > self.end or self.data[begin] != tag:
            raise PacketError(f"no value with the tag {tag:#x}")
        size, start = self.data[begin + 1], begin + 2
        if size & 0x80:
            digits = size & 0x7F
            if not 1 <= digits <= 4 or start + digits > self.end:
                raise PacketError("a length that is none")
            size = int.from_bytes(self.data[start : start + digits], "big")
            start += digits
        if start + size > self.end:
            raise PacketError("a value is longer than what it is in")
        self.at = start + size
        return Reader(self.data, start, self.at)

    def octets(self, most: int = MAX_SIZE) -> bytes:
        inner = self.value(OCTETS)
        if inner.end - inner.at > most:
            raise PacketError("a text is too long")
        return inner.rest()

    def number(self) -> int:
        """From 0 to 2^31 - 1."""
        inner = self.value(INTEGER)
        value = int.from_bytes(inner.rest(), "big", signed=True)
        if not 0 <= value <= MAX_INT or inner.end == inner.at:
            raise PacketError("a number is out of range")
        return value

    def rest(self) -> bytes:
        return self.data[self.at : self.end]


# ------------------------------------------------------------------------------------------------------- the messages


@dataclass(frozen=True, slots=True)
class Frame:
    """A message of v3: its header, its security parameters, and what they protect."""

    message_id: int
    flags: int
    engine_id: bytes = b""
    boots: int = 0
    time: int = 0
    user: bytes = b""
    digest: bytes = b""
    salt: bytes = b""
    body: bytes = b""  # the scoped PDU, or with PRIVATE in `flags` what it was encrypted to

    def encode(self) -> bytes:
        texts = (put(OCTETS, text) for text in (self.user, self.digest, self.salt))
        security = put(SEQUENCE, put(OCTETS, self.engine_id), put_int(self.boots), put_int(self.time), *texts)
        header = put(
            SEQUENCE, put_int(self.message_id), put_int(MAX_SIZE), put(OCTETS, bytes((self.flags,))), put_int(3)
        )
        body = put(OCTETS, self.body) if self.flags & PRIVATE else self.body
        return put(SEQUENCE, put_int(3), header, put(OCTETS, security), body)


def parse_frame(data: bytes) -> Frame:
    """PacketError for whatever is no message of version 3 and this security."""
    message = Reader(data).value(SEQUENCE)
    if message.number() != 3:
        raise PacketError("another version")
    header = message.value(SEQUENCE)
    message_id, _size, flags, model = header.number(), header.number(), header.octets(1), header.number()
    if len(flags) != 1 or model != 3:
        raise PacketError("another security model")
    security = message.value(OCTETS).value(SEQUENCE)
    engine_id, boots, time = security.octets(32), security.number(), security.number()
    user, digest, salt = security.octets(32), security.octets(64), security.octets(16)
    body = message.octets() if flags[0] & PRIVATE else message.rest()
    return Frame(message_id, flags[0], engine_id, boots, time, user, digest, salt, body)


def digest_place(data: bytes) -> slice:
    """Where in a message that `parse_frame` took the digest is."""
    message = Reader(data).value(SEQUENCE)
    message.value(INTEGER)
    message.value(SEQUENCE)
    security = message.value(OCTETS).value(SEQUENCE)
    for tag in (OCTETS, INTEGER, INTEGER, OCTETS):
        security.value(tag)
    digest = security.value(OCTETS)
    return slice(digest.at, digest.end)


def put_scoped(engine_id: bytes, context: str, pdu: bytes) -> bytes:
    """A PDU and the context it is asked in."""
    return put(SEQUENCE, put(OCTETS, engine_id), put(OCTETS, context.encode()), pdu)


def parse_scoped(data: bytes) -> bytes:
    """The PDU of a scoped PDU, with its tag."""
    scoped = Reader(data).value(SEQUENCE)
    scoped.octets(32)
    scoped.octets(255)
    return scoped.rest()


# ---------------------------------------------------------------------------------------------------------- the engine


@dataclass(frozen=True, slots=True)
class _Clock:
    """What an engine's clock said, and when on ours."""

    boots: int = 0
    time: int = 0
    heard: float = 0.0

    def at(self, now: float) -> int:
        return min(self.time + max(0, int(now - self.heard)), MAX_INT)


@dataclass(frozen=True, slots=True)
class _Engine:
    """Whom we talk to, once it has said its name."""

    id: bytes
    keys: Keys
    clock: _Clock


@dataclass(frozen=True, slots=True)
class Heard:
    """A message that is for us. `authentic`: signed with the user's key, and of now."""

    message_id: int
    authentic: bool
    pdu: bytes


class Session:
    """The talk with one engine as one user. Any thread: what is known of the engine is replaced as a whole."""

    def __init__(self, user: User) -> None:
        self.user = user
        self._engine: _Engine | None = None
        self._salts = itertools.count(secrets.randbits(63))

    @property
    def knows_engine(self) -> bool:
        return self._engine is not None

    def forget(self) -> None:
        """The engine is another than we thought; `discover` it anew."""
        self._engine = None

    def discover(self, message_id: int, pdu: bytes) -> bytes:
        """A message that an engine answers with a report of who it is (RFC 3414 section 4). `pdu` asks for nothing."""
        return Frame(message_id, REPORTABLE, body=put_scoped(b"", "", pdu)).encode()

    def encode(self, message_id: int, context: str, pdu: bytes, now: float, *, level: int | None = None) -> bytes:
        """The message for a PDU, to an engine that is known; `level` is the user's where not given."""
        assert self._engine is not None
        engine, user = self._engine, self.user
        level = user.level if level is None else level
        body, salt = put_scoped(engine.id, context, pdu), b""
        boots, time = (engine.clock.boots, engine.clock.at(now)) if level else (0, 0)
        if level & PRIVATE:
            salt = (next(self._salts) % 2**64).to_bytes(8, "big")
            if user.priv == "DES":
                salt = boots.to_bytes(4, "big") + salt[4:]
            body = encrypt(user, engine.keys.priv, boots, time, salt, body)
        room = bytes(AUTH[user.auth].kept) if level else b""
        flags = level | REPORTABLE
        frame = Frame(message_id, flags, engine.id, boots, time, user.name.encode(), room, salt, body)
        message = frame.encode()
        if not level:
            return message
        place = digest_place(message)
        return message[: place.start] + sign(user, engine.keys.auth, message) + message[place.stop :]

    def decode(self, data: bytes, now: float) -> Heard:
        """What a datagram says; PacketError for what is broken, forged, of another engine, or of another time."""
        frame = parse_frame(data)
        if self._engine is None:
            self._meet(frame, now)
        engine = self._engine
        assert engine is not None
        if not frame.flags & AUTHENTIC or not self.user.auth:
            if frame.flags & PRIVATE:
                raise PacketError("encrypted and not signed")
            return Heard(frame.message_id, False, parse_scoped(frame.body))
        if frame.engine_id != engine.id or frame.user != self.user.name.encode():
            raise PacketError("of another engine or for another user")
        place = digest_place(data)
        zeros = bytes(place.stop - place.start)
        signed = sign(self.user, engine.keys.auth, data[: place.start] + zeros + data[place.stop :])
        if not hmac.compare_digest(signed, frame.digest):
            raise PacketError("the signature is wrong")
        self._engine = engine = _Engine(engine.id, engine.keys, _tell_time(engine.clock, frame, now))
        body = frame.body
        if frame.flags & PRIVATE:
            if not self.user.priv:
                raise PacketError("encrypted for somebody else")
            body = decrypt(self.user, engine.keys.priv, frame.boots, frame.time, frame.salt, body)
        return Heard(frame.message_id, True, parse_scoped(body))

    def _meet(self, frame: Frame, now: float) -> None:
        """Whoever answers first is the engine. Its clock is a guess until a signed message tells it."""
        if not 5 <= len(frame.engine_id) <= 32:
            raise PacketError("no engine's name")
        clock = _Clock(frame.boots, frame.time, now)
        self._engine = _Engine(frame.engine_id, make_keys(self.user, frame.engine_id), clock)


def _tell_time(clock: _Clock, frame: Frame, now: float) -> _Clock:
    """Our idea of the engine's clock after a signed message; PacketError where that is an old one played again."""
    expected = clock.at(now)
    if frame.boots < clock.boots or (frame.boots == clock.boots and frame.time < expected - WINDOW):
        raise PacketError("of a time long gone")
    if (frame.boots, frame.time) > (clock.boots, expected):
        return _Clock(frame.boots, frame.time, now)
    return clock
