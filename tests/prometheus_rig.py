"""A real Prometheus for tests: run with what `piman grafana` wrote, but quicker, and asked by its HTTP API."""

from __future__ import annotations

import contextlib
import json
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.lab.rig import until

PORT = 19090


class Prometheus:
    """The API of the one that runs."""

    @staticmethod
    def get(path: str, **asked: str) -> object:
        url = f"http://127.0.0.1:{PORT}/api/v1/{path}?{urllib.parse.urlencode(asked)}"
        with urllib.request.urlopen(url, timeout=20) as answer:
            found = json.loads(answer.read())
        assert found["status"] == "success", found
        return found["data"]

    def query(self, expression: str) -> list[dict[str, object]]:
        found = self.get("query", query=expression)
        assert isinstance(found, dict)
        result = found["result"]
        assert isinstance(result, list)
        return result

    def targets(self) -> list[dict[str, object]]:
        found = self.get("targets", state="active")
        assert isinstance(found, dict)
        targets = found["activeTargets"]
        assert isinstance(targets, list)
        return targets

    def healthy(self) -> set[str]:
        """What it scrapes with success."""
        return {str(target["scrapeUrl"]) for target in self.targets() if target["health"] == "up"}

    def rules(self) -> list[dict[str, object]]:
        found = self.get("rules")
        assert isinstance(found, dict)
        (group,) = found["groups"]
        rules: list[dict[str, object]] = group["rules"]
        return rules

    def firing(self, name: str) -> list[dict[str, object]]:
        found = self.get("alerts")
        assert isinstance(found, dict)
        return [each for each in found["alerts"] if each["state"] == "firing" and each["labels"]["alertname"] == name]

    def is_ready(self) -> bool:
        try:
            return bool(self.query("1"))
        except OSError:
            return False


@contextlib.contextmanager
def prometheus(written: Path) -> Iterator[Prometheus]:
    """Check the folder that `piman grafana` wrote, and run on it, with a scrape each second."""
    config = written / "prometheus.yml"
    quicker = config.read_text().replace("interval: 15s", "interval: 1s")
    config.write_text(quicker.replace("/sd\n", "/sd\n        refresh_interval: 1s\n"))
    for words in (("config", str(config)), ("rules", str(written / "piman.rules.yml"))):
        checked = subprocess.run(["promtool", "check", *words], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stdout + checked.stderr
    command = [
        "prometheus", f"--config.file={config}", f"--storage.tsdb.path={written}/data",
        f"--web.listen-address=127.0.0.1:{PORT}", "--log.level=warn",
    ]  # fmt: skip
    log = written / "prometheus.log"
    with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        try:
            running = Prometheus()
            until(running.is_ready, 60, "Prometheus answers")
            yield running
        except AssertionError as error:
            raise AssertionError(f"{error}\n{log.read_text()[-2000:]}") from error
        finally:
            process.terminate()
            process.wait(30)
