"""web.access: passwords, tokens, sessions, and the patience with guesses."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitoring.store import Store
from web import access as access_module
from web.access import (
    FREE_TRIES,
    LONGEST_PAUSE,
    SEEN_INTERVAL,
    SESSION_IDLE,
    SESSION_LIFE,
    TRIES_PER_MINUTE,
    Access,
    AccessError,
    Caller,
    Throttle,
    check_password,
    hash_password,
    make_token,
    read_secret,
    set_password,
)

NOW = 1_700_000_000.0
HERE = "192.0.2.1"


@pytest.fixture(autouse=True)
def quick_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_module, "SCRYPT", (16, 1, 1))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "piman.db") as store:
        yield store


@pytest.fixture
def access(store: Store, tmp_path: Path) -> Access:
    set_password(store, tmp_path, "correct horse")
    return Access(store, tmp_path)


def test_a_password_is_known_by_its_hash_alone() -> None:
    stored = hash_password("correct horse")
    assert "correct" not in stored
    assert stored != hash_password("correct horse")
    assert check_password("correct horse", stored)
    for wrong in ("correct hors", "correct horse ", "", "x" * 2000, "\udcff"):
        assert not check_password(wrong, stored)


@pytest.mark.parametrize("stored", ["", "correct horse", "scrypt$16$1$1$zz$00", "scrypt$16$1$1$00$"])
def test_a_broken_hash_lets_nobody_in(stored: str) -> None:
    assert not check_password("correct horse", stored)


@pytest.mark.parametrize("password", ["", "short", "x" * 1025])
def test_what_is_no_password(password: str) -> None:
    with pytest.raises(AccessError, match="8 to 1024 characters"):
        hash_password(password)


def test_files_of_secrets_are_ours_alone(access: Access, tmp_path: Path) -> None:
    for name in ("web_password", "web_secret"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    secret = read_secret(tmp_path / "web_secret")
    assert len(secret) == 32
    assert read_secret(tmp_path / "web_secret") == secret
    assert len({read_secret(tmp_path / name) for name in ("a", "b")}) == 2
    (tmp_path / "short").write_bytes(b"x")  # a disk that was full
    assert len(read_secret(tmp_path / "short")) == 32
    assert not list(tmp_path.glob("*.new"))


def test_a_log_in_gives_a_cookie_that_ends(access: Access) -> None:
    assert access.has_password
    cookie, who = access.log_in("correct horse", HERE, NOW)
    assert who == Caller(f"web ({HERE})", "admin")
    assert access.caller_of_cookie(cookie, NOW + 1) == who
    for wrong in ("", "x", cookie[:-1]):
        assert access.caller_of_cookie(wrong, NOW + 1) is None
    assert access.caller_of_cookie(cookie, NOW - 1) is None
    assert access.caller_of_cookie(cookie, NOW + SESSION_IDLE) is None
    access.log_out(cookie)
    assert access.caller_of_cookie(cookie, NOW + 1) is None


def test_a_session_lives_as_long_as_it_is_used_but_not_for_ever(access: Access) -> None:
    cookie, who = access.log_in("correct horse", HERE, NOW)
    at = NOW
    while at + SESSION_IDLE / 2 < NOW + SESSION_LIFE:
        at += SESSION_IDLE / 2
        assert access.caller_of_cookie(cookie, at) == who
    assert SEEN_INTERVAL < SESSION_IDLE / 2
    assert access.caller_of_cookie(cookie, NOW + SESSION_LIFE) is None


def test_a_new_password_ends_every_session(access: Access, store: Store, tmp_path: Path) -> None:
    cookie, _who = access.log_in("correct horse", HERE, NOW)
    set_password(store, tmp_path, "battery staple")
    assert access.caller_of_cookie(cookie, NOW) is None
    with pytest.raises(AccessError, match="not the password"):
        access.log_in("correct horse", HERE, NOW)
    assert access.log_in("battery staple", HERE, NOW)


def test_the_password_of_the_environment_goes_before_the_files(access: Access, store: Store, tmp_path: Path) -> None:
    given = Access(store, tmp_path, "from outside")
    assert given.has_password
    assert given.log_in("from outside", HERE, NOW)
    with pytest.raises(AccessError):
        given.log_in("correct horse", HERE, NOW)


def test_nobody_gets_in_without_a_password(store: Store, tmp_path: Path) -> None:
    access = Access(store, tmp_path)
    assert not access.has_password
    with pytest.raises(AccessError):
        access.log_in("", HERE, NOW)


def test_tokens_have_roles_and_open_sessions(access: Access, store: Store) -> None:
    token = make_token(store, "ci", "operate", NOW)
    assert token not in str(store.tokens())
    assert access.caller_of_token(token) == Caller("token ci", "operate")
    assert access.caller_of_token(token[:-1]) is None
    assert access.caller_of_token("\udcff") is None
    cookie, who = access.log_in(token, HERE, NOW)
    assert access.caller_of_cookie(cookie, NOW) == who == Caller("token ci", "operate")
    with pytest.raises(AccessError, match="already"):
        make_token(store, "ci", "read", NOW)
    with pytest.raises(AccessError, match="a role is read, operate or admin"):
        make_token(store, "x", "root", NOW)
    with pytest.raises(AccessError, match="name"):
        make_token(store, "a b", "read", NOW)


def test_roles_contain_one_another() -> None:
    roles = ("read", "operate", "admin")
    may = {role: [Caller("x", role).may(wanted) for wanted in roles] for role in access_module.ROLES}
    assert may == {"read": [True, False, False], "operate": [True, True, False], "admin": [True, True, True]}


def test_what_a_page_sends_back_belongs_to_its_cookie(access: Access, store: Store, tmp_path: Path) -> None:
    token = access.csrf_token("a cookie")
    assert access.is_csrf_token("a cookie", token)
    assert Access(store, tmp_path).is_csrf_token("a cookie", token), "an open page goes on after a restart"
    for cookie, wrong in (("another", token), ("", access.csrf_token("")), ("a cookie", ""), ("a cookie", "\udcff")):
        assert not access.is_csrf_token(cookie, wrong)


def test_guesses_cost_twice_as_long_each_time() -> None:
    throttle, now, pauses = Throttle(), NOW, []
    for _ in range(FREE_TRIES + 12):
        now += throttle.pause(HERE, now)
        assert throttle.pause(HERE, now) == 0
        throttle.failed(HERE, now)
        pauses.append(throttle.pause("192.0.2.99", now) or throttle.pause(HERE, now))
        now += 70
    assert throttle.pause("192.0.2.2", now) == 0, "others are let in"
    assert throttle.pause(HERE, now - 70) == pytest.approx(LONGEST_PAUSE)
    throttle.succeeded(HERE)
    assert throttle.pause(HERE, now) == 0


def test_guesses_from_everywhere_are_slowed_down_together() -> None:
    throttle = Throttle()
    assert all(throttle.pause(f"a{number}", NOW) == 0 for number in range(TRIES_PER_MINUTE))
    assert throttle.pause("one more", NOW + 10) == 50
    assert throttle.pause("one more", NOW + 61) == 0


def test_what_is_remembered_of_guesses_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_module, "MAX_ADDRESSES", 3)
    throttle = Throttle()
    for number in range(10):
        for _again in range(FREE_TRIES):
            throttle.failed(f"a{number}", NOW)
    assert throttle.pause("a0", NOW) == 0
    assert throttle.pause("a9", NOW) > 0
