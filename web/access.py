"""Who may use the web page: passwords, tokens, sessions, and how often one may be wrong. No Flask, no clock.

Three roles, each with the rights of those before it: `read` looks, `operate` restarts and reinstalls, `admin` edits the
configuration and makes tokens. Of passwords, tokens and cookies only hashes are kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import secrets
import threading
from dataclasses import dataclass
from pathlib import Path

from monitoring.store import Store, Token, WebSession

ROLES = ("read", "operate", "admin")
MIN_PASSWORD = 8
MAX_PASSWORD = 1024
SCRYPT = (1 << 14, 8, 5)  # n, r, p: 16 MB for a quarter of a second on a Pi 4 (OWASP's list of 2023)
SESSION_IDLE = 24 * 3600.0
SESSION_LIFE = 14 * 24 * 3600.0
SEEN_INTERVAL = 600.0  # between two notes that a session is alive
TOKEN_PREFIX = "piman_"

FREE_TRIES = 5
FIRST_PAUSE = 2.0
LONGEST_PAUSE = 300.0
MAX_ADDRESSES = 1024
TRIES_PER_MINUTE = 30  # of all addresses together


class AccessError(Exception):
    """It may not be, in a sentence."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: a name for the audit trail, and a role."""

    who: str
    role: str

    def may(self, role: str) -> bool:
        """Whether a caller of this role may do what needs `role`."""
        return ROLES.index(self.role) >= ROLES.index(role)


def digest(secret: str) -> str:
    """What is kept of a token or a cookie: they are long and random, so that a plain hash gives nothing away."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def hash_password(password: str) -> str:
    """`scrypt$n$r$p$salt$hash`; AccessError for a password that is none."""
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise AccessError(f"a password has {MIN_PASSWORD} to {MAX_PASSWORD} characters")
    salt = secrets.token_bytes(16)
    n, r, p = SCRYPT
    return f"scrypt${n}${r}${p}${salt.hex()}${_scrypt(password, salt, n, r, p).hex()}"


def check_password(password: str, stored: str) -> bool:
    """Whether it is the password of that hash."""
    found = re.fullmatch(r"scrypt\$(\d{1,8})\$(\d{1,3})\$(\d{1,3})\$([0-9a-f]+)\$([0-9a-f]+)", stored.strip())
    if found is None or len(password) > MAX_PASSWORD:
        return False
    n, r, p = (int(found[i]) for i in (1, 2, 3))
    return hmac.compare_digest(_scrypt(password, bytes.fromhex(found[4]), n, r, p), bytes.fromhex(found[5]))


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode("utf-8", "surrogateescape"), salt=salt, n=n, r=r, p=p, maxmem=1 << 27)


class Throttle:
    """Slows down who guesses: after FREE_TRIES wrong ones of an address, each costs twice the wait of the last.

    Thread safe: `_lock` guards the tables.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wrong: dict[str, tuple[int, float]] = {}  # address -> how often in a row, and when it may try again
        self._minute: list[float] = []

    def pause(self, address: str, now: float) -> float:
        """Seconds until the address may try; 0: it may, and this counts as a try."""
        with self._lock:
            self._minute = [each for each in self._minute if 0 <= now - each < 60]
            _count, until = self._wrong.get(address, (0, 0.0))
            if until > now:
                return min(until - now, LONGEST_PAUSE)
            if len(self._minute) >= TRIES_PER_MINUTE:
                return 60 - (now - self._minute[0])
            self._minute.append(now)
            return 0.0

    def failed(self, address: str, now: float) -> None:
        with self._lock:
            count = self._wrong.pop(address, (0, 0.0))[0] + 1
            over = count - FREE_TRIES
            until = now + min(FIRST_PAUSE * 2 ** min(over, 16), LONGEST_PAUSE) if over >= 0 else 0.0
            self._wrong[address] = (count, until)
            while len(self._wrong) > MAX_ADDRESSES:
                del self._wrong[next(iter(self._wrong))]

    def succeeded(self, address: str) -> None:
        with self._lock:
            self._wrong.pop(address, None)


class Access:
    """The keys of one state folder.

    given    a password from .env or the environment; it goes before the one in the folder
    """

    def __init__(self, store: Store, state_dir: Path, given: str = "") -> None:
        self._store = store
        self._file = state_dir / "web_password"
        self._given = given
        self.secret = read_secret(state_dir / "web_secret")  # signs what pages send back
        self.throttle = Throttle()
        self._one_at_a_time = threading.Lock()  # scrypt takes memory and time: guesses queue

    @property
    def has_password(self) -> bool:
        return bool(self._given) or bool(self._stored())

    def _stored(self) -> str:
        try:
            return self._file.read_text().strip()
        except FileNotFoundError:
            return ""

    def log_in(self, secret: str, address: str, now: float) -> tuple[str, Caller]:
        """A password or a token -> a new cookie and whose it is; AccessError says what was wrong."""
        pause = self.throttle.pause(address, now)
        if pause:
            raise AccessError(f"too many wrong passwords; try again in {max(1, round(pause))} s")
        caller = self.caller_of_token(secret) if secret.startswith(TOKEN_PREFIX) else None
        if caller is None and not self._is_password(secret):
            self.throttle.failed(address, now)
            raise AccessError("this is not the password")
        self.throttle.succeeded(address)
        caller = caller or Caller(f"web ({address})", "admin")
        cookie = secrets.token_urlsafe(32)
        self._store.end_sessions(seen_before=now - SESSION_IDLE)
        self._store.save_session(WebSession(digest(cookie), caller.who, caller.role, now, now))
        return cookie, caller

    def _is_password(self, secret: str) -> bool:
        if self._given:
            return hmac.compare_digest(digest(secret), digest(self._given))
        with self._one_at_a_time:
            return check_password(secret, self._stored())

    def caller_of_cookie(self, cookie: str, now: float) -> Caller | None:
        """Whose session it is; None for one that is over or never was."""
        session = self._store.session(digest(cookie)) if cookie else None
        if session is None or not 0 <= now - session.created < SESSION_LIFE or now - session.seen >= SESSION_IDLE:
            return None
        if now - session.seen >= SEEN_INTERVAL:
            self._store.save_session(WebSession(session.hash, session.who, session.role, session.created, now))
        return Caller(session.who, session.role)

    def log_out(self, cookie: str) -> None:
        self._store.end_sessions(digest(cookie))

    def caller_of_token(self, token: str) -> Caller | None:
        wanted = digest(token)
        found = (each for each in self._store.tokens() if hmac.compare_digest(each.hash, wanted))
        return next((Caller(f"token {each.name}", each.role) for each in found), None)

    def csrf_token(self, cookie: str) -> str:
        """What a page of that cookie sends back with each order, and no other site can know."""
        return hmac.new(self.secret, f"csrf {cookie}".encode(), "sha256").hexdigest()

    def is_csrf_token(self, cookie: str, token: str) -> bool:
        return bool(cookie) and hmac.compare_digest(self.csrf_token(cookie).encode(), token.encode("utf-8", "replace"))


def set_password(store: Store, state_dir: Path, password: str) -> None:
    """Keep the hash of a new password, and end every session; AccessError, OSError."""
    write_private(state_dir / "web_password", f"{hash_password(password)}\n".encode())
    store.end_sessions()


def make_token(store: Store, name: str, role: str, now: float) -> str:
    """A new token, which is shown this once; AccessError."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name):
        raise AccessError("a token's name has up to 64 letters, digits, - _ and .")
    if role not in ROLES:
        raise AccessError(f"a role is {', '.join(ROLES[:-1])} or {ROLES[-1]}")
    token = TOKEN_PREFIX + secrets.token_urlsafe(32)
    if not store.add_token(Token(name, role, digest(token), now)):
        raise AccessError(f"there is a token {name!r} already; remove it first")
    return token


def read_secret(path: Path) -> bytes:
    """The key that signs what pages send back, made at first use: it outlives a restart, so open pages go on."""
    for _again in range(2):
        with contextlib.suppress(FileNotFoundError):
            found = path.read_bytes()
            if len(found) >= 32:
                return found
        with contextlib.suppress(FileExistsError):
            write_private(path, secrets.token_bytes(32), only_new=path.exists() is False)
    return path.read_bytes()


def write_private(path: Path, data: bytes, only_new: bool = False) -> None:
    """Replace a file that only we may read, in one step; `only_new`: FileExistsError where another was quicker."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            folder = path.parent.stat()
            if os.geteuid() == 0:  # `sudo piman password` must not lock out the service
                os.fchown(descriptor, folder.st_uid, folder.st_gid)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        if only_new:
            path.hardlink_to(temporary)
        else:
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
