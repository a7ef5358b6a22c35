"""The table of attacks on the web page, each over a real connection, each refused."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlencode

import pytest

from monitoring.fleet import Fleet
from tests.web_rack import mac_of, open_backend
from utility.service import Report, Stage
from web import access as access_module
from web.access import Access, make_token, set_password
from web.backend import Backend
from web.server import WebServer

PASSWORD = "correct horse battery"
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    text: str

    @property
    def cookie(self) -> str:
        return self.headers.get("Set-Cookie", "").partition(";")[0]


class Site:
    """A running server, and a browser without manners."""

    def __init__(self, folder: Path, password: bool = True, tls: str = "off") -> None:
        self.backend: Backend
        self.fleet: Fleet
        self.backend, self.fleet = open_backend(folder, 12)
        place = self.backend.place
        if password:
            set_password(place.store, place.state_dir, PASSWORD)
        web = replace(place.web, tls=tls)
        self.backend.access = Access(place.store, place.state_dir)
        self.server = WebServer(web, 0, place.state_dir, lambda: self.backend)
        self.port, self.tls = self.server.port, tls == "on"
        self.thread = threading.Thread(target=self.server.run, name="web")
        self.thread.start()

    def ask(self, method: str, path: str, body: bytes | str = b"", host: str = "", **headers: str) -> Answer:
        connection = self._connect()
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            connection.putheader("Host", host or f"localhost:{self.port}")
            data = body.encode() if isinstance(body, str) else body
            if method not in ("GET", "HEAD"):
                connection.putheader("Content-Length", str(len(data)))
            for name, value in headers.items():
                connection.putheader(name.replace("_", "-"), value)
            connection.endheaders(data or None)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read().decode())
        finally:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        if not self.tls:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=10, context=context)

    def page(self, path: str = "/login", **headers: str) -> tuple[str, str]:
        """A page's cookie and the token in it."""
        answer = self.ask("GET", path, Accept="text/html", **headers)
        found = re.search(r'csrf-token" content="([0-9a-f]+)"', answer.text)
        assert found, answer.text
        return answer.cookie or headers.get("Cookie", ""), found[1]

    def log_in(self, password: str, cookie: str, token: str, **more: str) -> Answer:
        form = urlencode({"password": password, "csrf_token": token, **more})
        return self.ask("POST", "/login", form, Cookie=cookie, Content_Type="application/x-www-form-urlencoded")

    def enter(self) -> tuple[str, str]:
        """Log in as one should; the cookie, and the token of a page."""
        answer = self.log_in(PASSWORD, *self.page())
        assert answer.status == 303, answer.text
        return self.page("/", Cookie=answer.cookie)

    def close(self) -> None:
        began = time.monotonic()
        self.server.stop()
        self.thread.join(5)
        assert time.monotonic() - began < 5
        assert not self.thread.is_alive()
        self.backend.place.store.close()


@pytest.fixture(autouse=True)
def quick_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_module, "SCRYPT", (16, 1, 1))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


@pytest.fixture
def open_site(tmp_path: Path) -> Iterator[Site]:
    """On localhost, with no password."""
    site = Site(tmp_path, password=False)
    yield site
    site.close()


ORDER = json.dumps({"pis": [{"mac": "dc:a6:32:aa:00:01"}]})
JSON = {"Content_Type": "application/json"}


# ------------------------------------------------------------------------------------------------- who is let in at all


@pytest.mark.parametrize("path", ["/", "/api/v1/pis", "/api/v1/config", "/events", "/api/v1/openapi.json"])
def test_nothing_is_shown_without_the_password(site: Site, path: str) -> None:
    answer = site.ask("GET", path)
    assert answer.status in (302, 401)
    assert "pi1" not in answer.text


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "evil.example:5000", "", "localhost@evil.example", "[::1", "x:y:z"],
)
@pytest.mark.parametrize("path", ["/", "/api/v1/pis", "/login"])
def test_rebinding_another_sites_name_is_not_ours(open_site: Site, host: str, path: str) -> None:
    answer = open_site.ask("GET", path, host=host or "  ")
    assert answer.status in (400, 403), answer.text
    assert "pi1" not in answer.text


@pytest.mark.parametrize("host", ["localhost", "localhost:8080", "127.0.0.1:5000", "[::1]:5000", "LOCALHOST"])
def test_our_own_names_are_ours_through_any_tunnel(open_site: Site, host: str) -> None:
    assert open_site.ask("GET", "/api/v1/pis", host=host).status == 200


def test_a_page_that_others_reach_is_shut_until_it_has_a_password(tmp_path: Path) -> None:
    backend, _fleet = open_backend(tmp_path, 1)
    backend.place = replace(backend.place, web=replace(backend.place.web, addresses=("0.0.0.0",)))
    from web.app import create_app

    client = create_app(backend).test_client()
    for path in ("/", "/login", "/api/v1/pis", "/events"):
        assert client.get(path).status_code == 403
    assert client.post("/api/v1/restart", json={"targets": ["pi1"]}).status_code == 403
    set_password(backend.place.store, backend.place.state_dir, PASSWORD)
    assert client.get("/login").status_code == 200
    backend.close()
    backend.place.store.close()


# ------------------------------------------------------------------------------------------------- other sites' orders


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Referer": "http://evil.example/page"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Origin": "http://localhost"},  # another port of this machine
        {"Origin": "http://localhost:1"},
    ],
)
@pytest.mark.parametrize("has_password", [True, False])
def test_csrf_an_order_from_another_site_is_refused(
    tmp_path: Path, headers: Mapping[str, str], has_password: bool
) -> None:
    site = Site(tmp_path, has_password)
    with contextlib.closing(site):
        cookie, token = site.enter() if has_password else site.page("/")
        answer = site.ask("POST", "/api/v1/adopt", ORDER, Cookie=cookie, X_CSRF_Token=token, **JSON, **headers)
        assert answer.status == 403
        answer = site.ask("POST", "/api/v1/adopt", ORDER, Cookie=cookie, X_CSRF_Token=token, **JSON)
        assert answer.status == 200, answer.text


@pytest.mark.parametrize("token", ["", "0" * 64, "another's", "\xe9"])
def test_csrf_an_order_without_the_pages_token_is_refused(site: Site, token: str) -> None:
    cookie, _own = site.enter()
    _cookie, others = site.page()
    wanted = others if token == "another's" else token
    answer = site.ask("POST", "/api/v1/adopt", ORDER, Cookie=cookie, X_CSRF_Token=wanted, **JSON)
    assert (answer.status, "csrf" in answer.text) == (403, True)


def test_csrf_a_form_of_another_site_cannot_be_an_order(open_site: Site) -> None:
    cookie, token = open_site.page("/")
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        answer = open_site.ask("POST", "/api/v1/adopt", ORDER, Cookie=cookie, X_CSRF_Token=token, Content_Type=kind)
        assert answer.status == 415
    assert open_site.ask("POST", "/api/v1/adopt", ORDER, **JSON).status == 403, "a browser that never saw our page"


def test_no_other_site_may_read_or_frame_us(open_site: Site) -> None:
    for path in ("/", "/api/v1/pis", "/static/style.css", "/nothing"):
        headers = open_site.ask("GET", path, Origin="http://evil.example").headers
        assert "Access-Control-Allow-Origin" not in headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        policy = headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in policy
        assert "unsafe-inline" not in policy
        assert "default-src 'none'" in policy


# ------------------------------------------------------------------------------------------------- scripts in names


def test_xss_through_a_hostname_in_hosts_csv_is_refused(open_site: Site) -> None:
    cookie, token = open_site.page("/")
    before = json.loads(open_site.ask("GET", "/api/v1/hosts").text)
    change = {"op": "edit", "mac": mac_of(0), "hostname": "<b>x</b>"}
    body = json.dumps({"base": before["base"], "changes": [change]})
    answer = open_site.ask("PUT", "/api/v1/hosts", body, Cookie=cookie, X_CSRF_Token=token, **JSON)
    assert answer.status == 409
    assert "expected up to 63 letters" in answer.text
    path = open_site.backend.rack.hosts.path
    path.write_text(path.read_text().replace("pi1;", f"{EVIL};"))
    open_site.backend.rack.hosts.check()
    assert "<script>alert" not in open_site.ask("GET", "/").text
    shown = open_site.ask("GET", "/api/v1/hosts")
    assert shown.headers["Content-Type"] == "application/json"


def test_xss_through_what_a_pi_says_is_text(open_site: Site) -> None:
    report = Report(
        mac_of(0), Stage.UP, heard=EVIL, event=EVIL, facts={"hostname": EVIL, "vendor": EVIL, "model": EVIL}
    )
    open_site.fleet.report(report)
    open_site.fleet.report(Report("02:00:00:00:00:66", heard=EVIL, facts={"hostname": EVIL, "model": EVIL}))
    open_site.fleet.tick(time.time())
    pages = [path for path in _pages(open_site) if "<" not in path]
    for path in [*pages, f"/pi/{mac_of(0)}", "/pi/02:00:00:00:00:66"]:
        answer = open_site.ask("GET", path, Accept="text/html")
        assert "<script>alert" not in answer.text, path
        assert "<img src=x" not in answer.text, path
    answer = open_site.ask("GET", "/api/v1/picture")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")


def _pages(site: Site) -> list[str]:
    """The addresses of the HTML pages."""
    from web.app import create_app

    rules = create_app(site.backend).url_map.iter_rules()
    return [rule.rule for rule in rules if rule.endpoint.startswith("pages.")]


@pytest.mark.parametrize(
    "path",
    [
        "/<script>alert(1)</script>",
        "/?q=<script>alert(1)</script>",
        "/login?next=%22%3E<script>alert(1)</script>",
    ],
)
def test_xss_through_the_address_is_text(site: Site, path: str) -> None:
    assert "<script>alert" not in site.ask("GET", path.replace(" ", "%20"), Accept="text/html").text


# ------------------------------------------------------------------------------------------------- paths


@pytest.mark.parametrize(
    "path",
    [
        "/static/../backend.py",
        "/static/..%2fbackend.py",
        "/static/%2e%2e/%2e%2e/pyproject.toml",
        "/static//etc/passwd",
        "/static/..\\backend.py",
        "/static/%00",
        "//etc/passwd",
        "/api/v1/config/versions/..%2f..%2fweb_secret",
        "/api/v1/config/versions/%2e%2e",
        "/api/v1/pis/..%2f..%2fetc%2fpasswd/files",
    ],
)
def test_paths_lead_nowhere_else(open_site: Site, path: str) -> None:
    answer = open_site.ask("GET", path)
    assert answer.status in (301, 302, 308, 400, 404)
    assert "root:" not in answer.text
    assert "import" not in answer.text


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "\\/evil.example",
        "javascript:alert(1)",
        "/\t/evil.example",
        "",
    ],
)
def test_the_log_in_leads_to_no_other_site(site: Site, target: str) -> None:
    answer = site.log_in(PASSWORD, *site.page(), next=target)
    assert (answer.status, answer.headers["Location"]) == (303, "/")


# ------------------------------------------------------------------------------------------------- sessions


def test_fixation_a_planted_cookie_is_worth_nothing(site: Site) -> None:
    planted, token = site.page()
    answer = site.log_in(PASSWORD, planted, token)
    assert answer.cookie != planted
    assert site.ask("GET", "/api/v1/pis", Cookie=planted).status == 401
    assert site.ask("GET", "/api/v1/pis", Cookie=answer.cookie).status == 200
    kept = answer.headers["Set-Cookie"]
    assert "HttpOnly" in kept
    assert "SameSite=Strict" in kept
    cookie, token = site.page("/", Cookie=answer.cookie)
    form = urlencode({"csrf_token": token})
    out = site.ask("POST", "/logout", form, Cookie=cookie, Content_Type="application/x-www-form-urlencoded")
    assert out.status == 303
    assert site.ask("GET", "/api/v1/pis", Cookie=answer.cookie).status == 401


def test_brute_force_is_slowed_down(site: Site) -> None:
    cookie, token = site.page()
    statuses = [site.log_in(f"guess number {number}", cookie, token).status for number in range(12)]
    assert statuses[:5] == [401] * 5
    assert set(statuses[5:]) == {429}
    assert site.log_in(PASSWORD, cookie, token).status == 429, "even the right one waits"
    trail = [each.action for each in site.backend.place.store.audit()]
    assert trail.count("log in") == 13


def test_a_read_only_token_reads_only(site: Site) -> None:
    token = make_token(site.backend.place.store, "class", "read", 1.0)
    cookie, csrf = site.page("/", Cookie=site.log_in(token, *site.page()).cookie)
    assert site.ask("GET", "/api/v1/pis", Cookie=cookie).status == 200
    assert site.ask("POST", "/api/v1/adopt", ORDER, Cookie=cookie, X_CSRF_Token=csrf, **JSON).status == 403
    assert site.ask("GET", "/api/v1/config", Cookie=cookie).status == 403


def test_no_secret_is_in_any_answer(tmp_path: Path) -> None:
    site = Site(tmp_path, password=False)
    with contextlib.closing(site):
        path = site.backend.config_file.path
        path.write_text(path.read_text().replace("timeout: 0.1", "write_community: Sesame1, timeout: 0.1"))
        cookie, token = site.page("/")
        shown = json.loads(site.ask("GET", "/api/v1/config").text)
        assert "Sesame1" not in str(shown)
        field = next(each for each in shown["fields"] if each["key"] == "snmp.write_community")
        assert (field["set"], field["value"]) == (True, None)
        text = shown["text"].replace("private_number: 4", "private_number: 5")
        body = json.dumps({"base": shown["base"], "text": text})
        saved = site.ask("PUT", "/api/v1/config", body, Cookie=cookie, X_CSRF_Token=token, **JSON)
        assert (saved.status, "Sesame1" in saved.text) == (200, False)
        assert "write_community: Sesame1" in path.read_text()
        versions = json.loads(site.ask("GET", "/api/v1/config/versions").text)
        old = site.ask("GET", f"/api/v1/config/versions/{versions[0]['id']}").text
        assert "Sesame1" not in old
        for each in ("/api/v1/audit", "/api/v1/picture", "/api/v1/rack", "/"):
            assert "Sesame1" not in site.ask("GET", each).text


# ------------------------------------------------------------------------------------------------- the wire


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\nG",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 70000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
    ],
)
def test_what_is_no_request_gets_no_page(open_site: Site, raw: bytes) -> None:
    with socket.create_connection(("127.0.0.1", open_site.port), timeout=5) as connection:
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(65536)
    assert not answer.startswith(b"HTTP/1.1 200")
    assert open_site.ask("GET", "/api/v1/rack").status == 200


def test_too_much_is_refused(open_site: Site) -> None:
    cookie, token = open_site.page("/")
    answer = open_site.ask("POST", "/api/v1/adopt", b"x" * 4_500_000, Cookie=cookie, X_CSRF_Token=token, **JSON)
    assert answer.status == 413


def test_with_tls_the_browsers_address_and_cookies_are_kept_safe(tmp_path: Path) -> None:
    site = Site(tmp_path, tls="on")
    with contextlib.closing(site):
        cookie, token = site.page()
        answer = site.log_in(PASSWORD, cookie, token)
        assert answer.status == 303
        assert "Secure" in answer.headers["Set-Cookie"]
        assert site.ask("GET", "/api/v1/pis", Cookie=answer.cookie).status == 200
        assert site.backend.place.store.audit()[0].who == "web (127.0.0.1)"
        with socket.create_connection(("127.0.0.1", site.port), timeout=5) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"200" not in plain.recv(1000)
        inner = next(each for each in _listening_ports() if each != site.port and _answers_http(each))
        assert b"403" in _answers_http(inner), "who goes around the TLS is refused"


def _listening_ports() -> list[int]:
    """Of this process, on loopback."""
    ports = []
    mine = {str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in mine:
            ports.append(int(fields[1].rpartition(":")[2], 16))
    return ports


def _answers_http(port: int) -> bytes:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            return connection.recv(1000)
    except OSError:
        return b""
