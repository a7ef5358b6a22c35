"""piman grafana: the files that it writes for Prometheus and Grafana, and how it fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from piman import cli

CONFIG = """\
private_number: 4
server_address: 172.30.4.1
subnet_mask: 255.255.255.0
interface: lo
switches: []
monitoring: {thresholds: {temperature: 70}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "config.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, ["grafana", *words])


def test_all_files(folder: Path) -> None:
    done = run("out")
    assert done.exit_code == 0, done.output
    names = {str(path.relative_to(folder / "out")) for path in (folder / "out").rglob("*") if path.is_file()}
    assert names == {
        "prometheus.yml", "piman.rules.yml", "datasource.yml", "dashboards.yml", "dashboards/piman.json",
    }  # fmt: skip
    assert all(name in done.output for name in names)
    assert '["127.0.0.1:5000"]' in (folder / "out/prometheus.yml").read_text()
    assert "piman_pi_temperature_celsius > 70" in (folder / "out/piman.rules.yml").read_text()
    assert str(folder / "out/dashboards") in (folder / "out/dashboards.yml").read_text()
    assert json.loads((folder / "out/dashboards/piman.json").read_text())["uid"] == "piman-rack"
    assert run("out").exit_code == 0


@pytest.mark.parametrize(
    ("web", "url"),
    [
        ("{address: 0.0.0.0}", "https://172.30.4.1:5000/sd"),
        ("{address: 0.0.0.0, tls: off}", "http://172.30.4.1:5000/sd"),
        ('{address: "::1"}', "http://[::1]:5000/sd"),
        ("{tls: on}", "https://127.0.0.1:5000/sd"),
    ],
)
def test_how_the_manager_is_reached(folder: Path, web: str, url: str) -> None:
    (folder / "config.yaml").write_text(f"{CONFIG}web: {web}\n")
    assert run("out").exit_code == 0
    assert f"- url: {url}\n" in (folder / "out/prometheus.yml").read_text()


def test_several_managers_and_a_token(folder: Path) -> None:
    names = ("--manager", "rack-a", "--manager", "https://rack-b:8080/", "--manager", "[fe80::1]")
    done = run("out", *names, "--prometheus", "http://p:9")
    assert done.exit_code == 0, done.output
    text = (folder / "out/prometheus.yml").read_text()
    assert '["rack-a:5000", "[fe80::1]:5000"]' in text
    assert "- url: https://rack-b:8080/sd\n" in text
    tokens = ("--token-file", "/a", "--token-file", "/b", "--token-file", "/c")
    assert run("out", *names, *tokens, "--force").exit_code == 0
    text = (folder / "out/prometheus.yml").read_text()
    assert [text.count(f'credentials_file: "/{each}"') for each in "abc"] == [2, 2, 2]


def test_the_data_source(folder: Path) -> None:
    assert run("out", "--prometheus", "http://p:9").exit_code == 0
    assert "url: http://p:9\n" in (folder / "out/datasource.yml").read_text()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--token-file", "/a", "--token-file", "/b"), "2 token files for 1 managers; give one for each"),
        (("--manager", "ftp://x"), "expected HOST, HOST:PORT or https://HOST:PORT"),
        (("--manager", "user@x"), "found 'user@x'"),
    ],
)
def test_options_that_do_not_fit(folder: Path, words: tuple[str, ...], sentence: str) -> None:
    done = run("out", *words)
    assert done.exit_code == 1  # click's runner; piman's own main() gives the code of the failure
    assert sentence in done.output
    assert not (folder / "out").exists()


def test_what_somebody_edited_is_not_overwritten(folder: Path) -> None:
    assert run("out").exit_code == 0
    (folder / "out/prometheus.yml").write_text("mine")
    refused = run("out")
    assert refused.exit_code == 1
    assert "is there with other content" in refused.output
    assert run("out", "--force").exit_code == 0
    assert (folder / "out/prometheus.yml").read_text() != "mine"


def test_a_folder_that_cannot_be_written(folder: Path) -> None:
    (folder / "file").write_text("")
    done = run("file/out")
    assert done.exit_code == 1
    assert "cannot be written: Not a directory" in done.output
