#!/bin/bash
# tests/bench/run.sh [tftp|dhcp|ntp|image|footprint|findport|monitoring|web]... [--quick] [--markdown]: our servers beside their peers, in turn,
# in network namespaces of their own. Prints a table, leaves JSON and plots in build/bench; exits with 1 if a promised ratio does not
# hold. --quick takes under 2 minutes instead of 10; --markdown measures nothing and prints the last results for a README.
set -euo pipefail
cd "$(dirname "$0")/../.."
sh install/need.sh iproute2 gcc libc6-dev dnsmasq-base atftpd kea-dhcp4-server chrony nginx-light snmpd chromium

python=.venv/bin/python
[ -x $python ] || { sh install/need.sh python3-venv && "${PYTHON:-python3}" -m venv .venv; }
$python -c 'import click, matplotlib, playwright, psutil' 2>/dev/null || .venv/bin/pip install --quiet --disable-pip-version-check -e '.[dev,bench]'

mkdir -p .cache/bench
for source in tests/bench/*load.c; do
    program=.cache/bench/$(basename "$source" .c)
    [ "$program" -nt "$source" ] || gcc -O2 -Wall -Wextra -o "$program" "$source"
done

root=() nice=(nice -n -15)  # both sides of each comparison, before whatever else this machine does
[ "$(id -u)" = 0 ] || root=(--user --map-root-user) nice=()
exec "${nice[@]}" unshare "${root[@]}" --net --mount --pid --fork --mount-proc --kill-child sh -c '
    mount -t tmpfs tmpfs /run && mkdir -p /run/netns /run/lock && ip link set lo up && exec "$@"' \
    sh $python -m tests.bench.bench "$@"
