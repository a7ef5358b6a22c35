"""web.editing: drafts, conflicts, versions, secrets, for both files and through the API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from tests.web_rack import mac_of, open_backend
from utility.config import ConfigError
from utility.config_edit import EditError
from web import editing
from web.app import create_app
from web.backend import Backend
from web.editing import ConfigFile, ConflictError, HostsFile, Versions


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    backend, _fleet = open_backend(tmp_path, 4)
    yield backend
    backend.close()
    backend.place.store.close()


@pytest.fixture
def config(backend: Backend) -> ConfigFile:
    return backend.config_file


@pytest.fixture
def hosts(backend: Backend) -> HostsFile:
    return backend.hosts_file


def test_a_change_is_shown_written_and_can_be_taken_back(config: ConfigFile) -> None:
    before = config.read()
    make = config.of_changes([{"key": "lease_time", "value": "300"}])
    draft = config.draft(make)
    assert (draft.problems, "+lease_time: 300" in draft.difference) == ((), True)
    assert config.read() == before
    config.write(draft.base, make, "ann")
    assert config.read() == before + b"lease_time: 300\n"
    (kept,) = config.versions.list()
    assert (kept["who"], kept["size"]) == ("ann", len(before))
    old = config.versions.read(str(kept["id"]))
    assert old == before
    config.write(config.base(config.read()), lambda _now: before, "ann")
    assert config.read() == before
    assert len(config.versions.list()) == 2


def test_nothing_changed_is_nothing_written(config: ConfigFile) -> None:
    stamp = config.path.stat().st_mtime_ns
    assert config.write(config.base(config.read()), lambda now: now, "ann").changes_nothing
    assert config.path.stat().st_mtime_ns == stamp
    assert config.versions.list() == []


def test_a_wrong_file_is_never_written(config: ConfigFile) -> None:
    before = config.read()
    base = config.base(before)
    with pytest.raises(ConfigError, match="lease_time"):
        config.write(base, config.of_changes([{"key": "lease_time", "value": "1"}]), "ann")
    with pytest.raises(EditError):
        config.write(base, config.of_changes([{"key": "a..b", "value": "1"}]), "ann")
    with pytest.raises(EditError):
        config.draft(config.of_changes([{"remove_switch": 9}]))
    assert config.read() == before


def test_an_edit_by_hand_is_not_overwritten(config: ConfigFile, monkeypatch: pytest.MonkeyPatch) -> None:
    base = config.base(config.read())
    config.path.write_bytes(config.read() + b"# by hand\n")
    make = config.of_changes([{"key": "lease_time", "value": "300"}])
    with pytest.raises(ConflictError):
        config.write(base, make, "ann")
    base = config.base(config.read())
    monkeypatch.setattr(editing, "write_file", lambda *_args: False)  # it comes in between, at the last moment
    with pytest.raises(ConflictError):
        config.write(base, make, "ann")
    assert config.read().endswith(b"# by hand\n")


def test_windows_lines_stay(config: ConfigFile) -> None:
    config.path.write_bytes(b"\xef\xbb\xbf" + config.read().replace(b"\n", b"\r\n"))
    data = config.draft(config.of_changes([{"key": "lease_time", "value": "300"}])).data
    assert data.count(b"\r\n") == data.count(b"\n")


def test_a_switch_comes_and_goes(config: ConfigFile) -> None:
    base = config.base(config.read())
    config.write(base, config.of_changes([{"add_switch": {"address": "127.0.4.9", "name": "new"}}]), "ann")
    assert [each.name for each in config.config_of(config.read()).switches] == ["rack-0", "new"]
    config.write(config.base(config.read()), config.of_changes([{"remove_switch": 1.0}]), "ann")
    assert len(config.config_of(config.read()).switches) == 1


def test_secrets_leave_as_names_and_come_back(config: ConfigFile) -> None:
    config.path.write_bytes(config.read().replace(b"{timeout", b"{write_community: Sesame, timeout"))
    shown = config.shown(config.read())
    assert "Sesame" not in shown
    draft = config.draft(config.of_text(shown.replace("retries: 0", "retries: 1")))
    assert b"write_community: Sesame" in draft.data
    assert "Sesame" not in draft.difference
    draft = config.draft(config.of_changes([{"key": "snmp.write_community", "value": "Other"}]))
    assert b"write_community: Other" in draft.data
    assert draft.difference
    assert "Other" not in draft.difference


def test_versions_are_bounded_and_named_by_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(editing, "KEPT", 3)
    versions = Versions(tmp_path / "versions")
    assert versions.list() == []
    for number in range(5):
        versions.keep(f"text {number} \udcff".encode(errors="surrogateescape"), "ann", 1_700_000_000.0 + number)
    listed = versions.list()
    assert [each["when"] for each in listed] == [1_700_000_004.0, 1_700_000_003.0, 1_700_000_002.0]
    assert versions.read(str(listed[0]["id"])) == b"text 4 \xff"
    for wrong in ("", "../web_secret", "0000000000000-00000000", "x"):
        assert versions.read(wrong) is None
    (tmp_path / "versions" / f"{listed[0]['id']}.json").write_text("{")
    assert len(versions.list()) == 2
    assert versions.read(str(listed[0]["id"])) is None


def test_hosts_are_edited_whatever_was_seen_meanwhile(hosts: HostsFile, backend: Backend) -> None:
    before = hosts.read()
    base = hosts.base(before)
    backend.rack.hosts.seen(mac_of(0), 1_700_000_000)
    backend.rack.hosts.flush()
    text = before.decode().replace("pi2", "second")
    hosts.write(base, hosts.of_text(text), "ann")
    assert f"{mac_of(0)};127.0.8.1;pi1;1700000000".encode() in hosts.read()
    assert backend.rack.hosts.named("second")
    with pytest.raises(ConflictError):
        hosts.write(base, hosts.of_text(text), "ann")
    assert len(hosts.versions.list()) == 1


def test_lines_of_hosts_come_change_and_go(hosts: HostsFile, backend: Backend) -> None:
    changes: list[dict[str, object]] = [
        {"op": "edit", "mac": mac_of(0), "hostname": "first"},
        {"op": "remove", "mac": mac_of(1)},
        {"op": "add", "mac": "DC-A6-32-00-00-09"},
    ]
    hosts.write(hosts.base(hosts.read()), hosts.of_changes(changes), "ann")
    assert [each["hostname"] for each in hosts.rows()] == ["first", "pi3", "pi4", ""]
    with pytest.raises(EditError, match="is not in hosts"):
        hosts.draft(hosts.of_changes([{"op": "remove", "mac": mac_of(1)}]))
    with pytest.raises(EditError, match="cannot have these characters"):
        hosts.draft(hosts.of_changes([{"op": "edit", "mac": mac_of(0), "hostname": "a;b"}]))
    wrong = hosts.of_changes([{"op": "edit", "mac": mac_of(0), "address": "10.0.0.1"}])
    assert "outside" in str(hosts.draft(wrong).problems[0])
    with pytest.raises(ConfigError):
        hosts.write(hosts.base(hosts.read()), wrong, "ann")
    assert hosts.draft(lambda now: now).changes_nothing
    assert hosts.write(hosts.base(hosts.read()), lambda now: now, "ann").changes_nothing


@pytest.fixture
def client(backend: Backend) -> FlaskClient:
    client = create_app(backend).test_client()
    found = client.get("/").text
    client.environ_base["HTTP_X_CSRF_TOKEN"] = found.partition('csrf-token" content="')[2].partition('"')[0]
    return client


def test_through_the_api(client: FlaskClient, backend: Backend) -> None:
    for name, change in (
        ("config", {"changes": [{"key": "switches[0].name", "value": "lower"}]}),
        ("hosts", {"changes": [{"op": "edit", "mac": mac_of(0), "hostname": "first"}]}),
    ):
        shown = client.get(f"/api/v1/{name}").get_json()
        draft = client.post(f"/api/v1/{name}/check", json=change).get_json()
        assert (draft["problems"], bool(draft["diff"])) == ([], True)
        written = client.put(f"/api/v1/{name}", json={**change, "base": shown["base"]})
        assert written.status_code == 200
        assert client.put(f"/api/v1/{name}", json={**change, "base": shown["base"]}).status_code == 409
        (version,) = client.get(f"/api/v1/{name}/versions").get_json()
        old = client.get(f"/api/v1/{name}/versions/{version['id']}").get_json()
        assert old["diff"]
        back = client.post(
            f"/api/v1/{name}/versions/{version['id']}/restore", json={"base": written.get_json()["base"]}
        )
        assert back.status_code == 200
        assert client.get(f"/api/v1/{name}").get_json()["text"] == shown["text"]
    trail = [each.action for each in backend.place.store.audit()]
    assert trail == ["restore hosts.csv", "edit hosts.csv", "restore config.yaml", "edit config.yaml"]


def test_a_broken_file_is_shown_to_be_mended(client: FlaskClient, backend: Backend) -> None:
    path = backend.config_file.path
    good = path.read_text()
    path.write_text(good + "broken: [\n")
    shown = client.get("/api/v1/config").get_json()
    assert (shown["form"], shown["switches"]) == (False, [])
    assert shown["problems"][0]["line"] > 0
    written = client.put("/api/v1/config", json={"base": shown["base"], "text": good})
    assert written.status_code == 200
    assert path.read_text() == good
    refused = client.put("/api/v1/config", json={"base": written.get_json()["base"], "text": "x: 1\n"})
    assert (refused.status_code, json.loads(refused.text)["problems"][0]["key"]) == (409, "x")
