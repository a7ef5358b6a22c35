#!/bin/bash
# tests/run.sh [--soak] [PYTEST ARGUMENTS]: the gate. Installs what the tests need, then format, lint, types, tests.
# With arguments it runs only those tests (tests/run.sh tests/test_config.py -k port). --soak repeats the kills and
# power cuts ten times as often, and lets Hypothesis look for new examples.
# tests/run.sh --fuzz SECONDS [TARGET...]: only the fuzzing, that long for each target, with new chances each time.
# tests/run.sh --debian: only the Debian of create_rootfs.sh, built and installed on a QEMU Pi, and an image of its card.
set -euo pipefail
cd "$(dirname "$0")/.."

export PIMAN_SOAK=
if [ "${1:-}" = --soak ]; then PIMAN_SOAK=1; shift; fi

# Real peers and real parts, from Debian's packages.
sh install/need.sh \
    iproute2 ethtool kmod cpio snmpd snmp qemu-system-arm busybox-static shellcheck udhcpc isc-dhcp-client \
    dhcpcd-base dnsmasq-base isc-dhcp-relay tftp-hpa atftp curl chromium openssl chrony ntpsec-ntpdate e2fsprogs procps prometheus
command -v npm >/dev/null || sh install/need.sh npm

sh install/need.sh qemu-system-x86 u-boot-qemu ipxe-qemu ovmf qemu-efi-aarch64 # boot loaders, and a board for them

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed" >&2; exit 1; }
"$python" -c 'import ensurepip, venv' 2>/dev/null || sh install/need.sh python3-venv
key=$({ "$python" -VV; cat pyproject.toml; } | sha256sum | cut -c1-12)
if [ ! -e ".venv/.piman-$key" ]; then
    rm -rf .venv
    "$python" -m venv .venv
    .venv/bin/pip install --quiet --disable-pip-version-check -e '.[dev]'
    touch ".venv/.piman-$key"
fi
export PATH="$PWD/.venv/bin:$PATH"

# The tests' own world: its own network with loopback only, its own /run for named namespaces, and nothing survives it.
world() {
    local root=()
    [ "$(id -u)" = 0 ] || root=(--user --map-root-user)
    unshare "${root[@]}" --net --mount --pid --fork --mount-proc --kill-child sh -c '
        mount -t tmpfs tmpfs /run && mkdir -p /run/netns /run/lock && ip link set lo up && exec "$@"' sh "$@"
}

# What the virtual Pis boot: fetched and built here, since the tests' world has no network. The second time is quick.
python -c 'from lab.rack import prepare_agent; prepare_agent()'
python -m tests.chromium # axe-core, from npm
python -m tests.peers.guests # small Linux guests, for the same reason

if [ "${1:-}" = --fuzz ]; then world python -m tests.fuzz.fuzz --seed "$RANDOM" --seconds "${@:2}"; exit; fi
if [ "${1:-}" = --debian ]; then
    sh install/need.sh openssh-client
    python -m tests.lab.test_debian
    world python -m pytest tests/lab/test_debian.py
    exit
fi
if [ $# -gt 0 ]; then world python -m pytest "$@"; exit; fi

echo "== format, lint, types"
ruff format --check .
ruff check .
python -m mypy --strict .
# busybox's read has -t, and `IFS= read` means what it says.
shellcheck -S warning -e SC1007,SC3045 make_zipapp.sh install/*.sh install/*/*.sh lab/*.sh install/initram/init tests/run.sh tests/bench/run.sh \
    .ci/run

# Each world is alone with its network, so two can run at once: the peers mostly wait, these mostly work.
beside_the_peers() {
    echo "== unit tests"
    measure_coverage
    echo "== fuzz"
    world python -m tests.fuzz.fuzz --seconds 2
    echo "== a manager that is killed"
    world python -m pytest tests/lab/test_manager_killed.py
}

measure_coverage() {
    world coverage run -m pytest tests --ignore=tests/peers --ignore=tests/lab
    coverage report --fail-under=100 --include="$(paste -sd, <<'PURE'
dhcp/packet.py
dhcp/frames.py
dhcp/boards.py
dhcp/leases.py
dhcp/replies.py
dhcp/clients.py
dhcp/policy.py
dhcp/prepared.py
dhcp/backlog.py
dhcp/proxy.py
tftp/packet.py
tftp/transfer.py
tftp/files.py
tcp/packet.py
tcp/session.py
ntp/chrony.py
ntp/packet.py
ntp/policy.py
monitoring/alerts.py
monitoring/facts.py
monitoring/healing.py
monitoring/diagnosis.py
monitoring/exporters.py
monitoring/prometheus_files.py
monitoring/simple_json.py
monitoring/answers.py
monitoring/blocks.py
monitoring/graph.py
monitoring/health.py
monitoring/metrics.py
monitoring/doctor.py
utility/config/settings.py
utility/config/keys.py
utility/config/kinds.py
utility/config/sheet.py
utility/config/reading.py
utility/config/switches.py
utility/config/monitoring.py
utility/config/checks.py
utility/drivers.py
utility/ext4.py
utility/config_edit.py
utility/hosts.py
utility/power_rules.py
utility/rules.py
utility/fdb.py
utility/findport.py
utility/mac_mapper.py
utility/recorder.py
utility/usm.py
web/boots.py
lab/families.py
lab/replay.py
PURE
)"
}

mkdir -p .cache
beside_the_peers >.cache/beside.log 2>&1 &
beside=$! failed=
trap 'kill "$beside" 2>/dev/null || true' EXIT
echo "== real peers (unit tests, fuzzing and a manager that is killed beside them)"
world python -m pytest tests/peers || failed=1
wait "$beside" || failed=1
cat .cache/beside.log
[ -z "$failed" ] || exit 1

echo "== the rack"
world python -m pytest tests/lab --ignore=tests/lab/test_manager_killed.py --ignore=tests/lab/test_debian.py
