"""Who may import whom, read from the source with ast: the walls of the house."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("commands", "dhcp", "tftp", "tcp", "ntp", "utility", "monitoring", "web", "lab")
PROTOCOLS = {"dhcp", "tftp", "tcp", "ntp"}

# package -> packages it may import, besides itself
MAY_IMPORT = {
    "piman.py": {"commands", "monitoring"},
    # tcp and tftp for what they say of files: an image's id, what boot loaders cannot fetch.
    "commands": {"lab", "monitoring", "tcp", "tftp", "utility", "web"},
    "dhcp": {"utility"},
    "tftp": {"utility"},
    "tcp": {"utility"},
    "ntp": {"utility"},
    "utility": set[str](),
    "monitoring": {"utility"},
    "web": {"monitoring", "utility"},
    # The light Pis of the lab speak the protocols with the same packet code as the servers.
    "lab": {"monitoring", "utility", *PROTOCOLS},
}
READ_FROM_YAML = ("sheet", "reading", "switches", "monitoring")
# module -> the only files that may import it
ONLY_IN = {
    "pysnmp": {"utility/snmp.py"},
    "cryptography": {"utility/usm.py"},
    "yaml": {"utility/config_edit.py", *(f"utility/config/{name}.py" for name in READ_FROM_YAML)},
    "dotenv": {"utility/config/sheet.py"},
    "click": {"piman.py", *(f"commands/{path.name}" for path in ROOT.glob("commands/*.py"))},
    "sqlite3": {"monitoring/store.py", "monitoring/samples.py"},
    "psutil": {"monitoring/monitoring_server.py"},  # it runs on the Pi
}
PACKET_FLOOR = tuple(f"{package}/packet.py" for package in sorted(PROTOCOLS))
# dhcp's decision is too long for one file. Each file may import those before it.
DHCP_FLOOR = ("frames", "boards", "replies", "leases", "clients", "policy", "proxy")
DECISION_FLOOR = (
    *(f"dhcp/{name}.py" for name in DHCP_FLOOR),
    "ntp/policy.py",
    "tftp/transfer.py",
    "tcp/session.py",
    "monitoring/diagnosis.py",
    "monitoring/alerts.py",
    "monitoring/healing.py",
    "monitoring/metrics.py",
    "monitoring/answers.py",
    "monitoring/blocks.py",
    "monitoring/graph.py",
)
# What would bring sockets, clocks, files, logs or threads into the two floors that have none.
OUTSIDE_WORLD = {
    "asyncio", "fcntl", "glob", "io", "logging", "mmap", "os", "random", "secrets", "select", "selectors",
    "shutil", "signal", "socket", "subprocess", "tempfile", "threading", "time",
}  # fmt: skip
# Names that the decision floor may take from utility: types without behaviour of their own.
PLAIN = {
    "utility.hosts": {"Host", "parse_mac"},
    "utility.config": {"Healing"},
    "utility.rules": {"BUILT_IN", "MEASURES", "AlertSeverity", "Rule", "duration_text", "matches"},
    "utility.service": {"FileRecord", "Report", "Severity", "Stage"},
}


def sources() -> list[str]:
    """All our Python files, as paths below the root; the tests are not part of the house."""
    found = (path for package in PACKAGES for path in sorted(ROOT.glob(f"{package}/**/*.py")))
    return ["piman.py", *(str(path.relative_to(ROOT)) for path in found)]


def tree(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text(), file)


def imports(file: str) -> Iterator[tuple[str, str]]:
    """Each imported (module, name); name is empty for a whole module. Those for types only, and in functions, too."""
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: a relative import; write the package's name"
            yield from ((node.module or "", alias.name) for alias in node.names)


def tops(file: str) -> set[str]:
    return {module.partition(".")[0] for module, _ in imports(file)}


def present(files: tuple[str, ...]) -> list[str]:
    found = [file for file in files if (ROOT / file).exists()]
    assert found, "these files have moved: the test guards nothing"
    return found


def test_the_files_are_found() -> None:
    assert {"piman.py", "utility/config/reading.py", "dhcp/packet.py"} <= set(sources())


@pytest.mark.parametrize("file", sources())
def test_packages_import_only_those_they_may(file: str) -> None:
    package = file.partition("/")[0]
    ours = tops(file) & {*PACKAGES, "piman", "tests"}
    if file == "commands/server.py":  # it joins everything
        assert not ours & {"piman", "tests"}
    else:
        assert ours - {package} <= MAY_IMPORT[package]


@pytest.mark.parametrize("file", sources())
def test_a_foreign_library_has_one_door(file: str) -> None:
    foreign = tops(file) - sys.stdlib_module_names - {*PACKAGES, "piman"}
    if not file.startswith("web/"):  # the web framework
        assert foreign <= ONLY_IN.keys()
    for module, files in ONLY_IN.items():
        assert module not in tops(file) or file in files


@pytest.mark.parametrize("file", present(PACKET_FLOOR))
def test_the_packet_floor_imports_the_standard_library_alone(file: str) -> None:
    assert tops(file) <= sys.stdlib_module_names - OUTSIDE_WORLD


@pytest.mark.parametrize("file", present(DECISION_FLOOR))
def test_the_decision_floor_has_no_socket_no_clock_no_file_no_logger(file: str) -> None:
    package, _, stem = file.removesuffix(".py").partition("/")
    below = DHCP_FLOOR[: DHCP_FLOOR.index(stem)] if package == "dhcp" else ()
    allowed = {f"{package}.{each}" for each in ("packet", *below)} | {"monitoring.metrics"}
    assert not tops(file) & OUTSIDE_WORLD
    for module, name in imports(file):
        if module == package:
            assert name == "packet", f"{file} imports {name} of its package"
        elif module.partition(".")[0] == package:
            assert module in allowed
        elif module.partition(".")[0] == "utility":
            assert name in PLAIN.get(module, set()), f"{file} imports {module}.{name}, which is no plain type"
        else:
            assert module.partition(".")[0] in sys.stdlib_module_names


@pytest.mark.parametrize("file", present((*PACKET_FLOOR, *DECISION_FLOOR)))
def test_the_pure_floors_call_no_clock_and_open_no_file(file: str) -> None:
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("open", "print", "input", "datetime.now", "datetime.utcnow", "date.today")
            # A Path may be carried about as a value.
            assert called.rpartition(".")[2] not in (
                "stat",
                "exists",
                "is_file",
                "iterdir",
                "resolve",
                "unlink",
                "open",
            )
            assert not called.rpartition(".")[2].startswith(("read_bytes", "read_text", "write_bytes", "write_text"))


@pytest.mark.parametrize("file", sources())
def test_modules_hold_no_state_that_changes(file: str) -> None:
    """A module-level list, set or dictionary is written in CAPITALS, and no function declares a global."""
    module = tree(file)
    containers = (ast.List, ast.Set, ast.Dict, ast.ListComp, ast.SetComp, ast.DictComp)
    assert not [node for node in ast.walk(module) if isinstance(node, ast.Global)]
    for node in module.body:
        if not isinstance(node, (ast.Assign, ast.AnnAssign)) or not isinstance(node.value, containers):
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        assert all(name in ("__all__", name.upper()) for name in names), f"{file}:{node.lineno}: {names}"


def test_nobody_imports_piman() -> None:
    assert [file for file in sources() if "piman" in tops(file)] == []
