#!/bin/sh
# need.sh PACKAGE...: sees to it that these Debian packages are installed. As root it installs what is missing and
# says so; as a user it prints the one line to run, and fails. Says nothing when nothing is missing.
set -eu
missing=
for package in "$@"; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ]; then
    echo "Missing Debian packages. Run this, then try again:" >&2
    echo "    sudo apt-get install --no-install-recommends$missing" >&2
    exit 1
fi
echo "Installing from Debian's packages:$missing" >&2
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
# Lists may be missing (a fresh machine) or too old: update once, and only then call it a failure.
# shellcheck disable=SC2086
if ! { apt-get install -y --no-install-recommends $missing >"$log" 2>&1 ||
    { apt-get update && apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1; }; then
    tail -n 5 "$log" >&2
    echo "apt-get could not install:$missing" >&2
    rm -f "$log"
    exit 1
fi
rm -f "$log"
