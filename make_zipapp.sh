#!/bin/sh
# make_zipapp.sh: builds build/piman.pyz, one executable file with Piman and all it depends on.
# Downloads the Python packages once, into .cache/; a second run needs no network.
set -eu
cd "$(dirname "$0")"

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    { echo "Piman needs Python 3.11 or newer; $python is $("$python" -V 2>&1). Set PYTHON=... to name another." >&2; exit 1; }
"$python" -c 'import ensurepip, venv' 2>/dev/null || sh install/need.sh python3-venv

# What the bundle depends on is in pyproject.toml, so its hash (and the Python) names the cached packages.
key=$({ "$python" -VV; cat pyproject.toml; } | sha256sum | cut -c1-12)
site=.cache/zipapp-$key/site
if [ ! -e "$site/.complete" ]; then
    rm -rf "$PWD"/.cache/zipapp-*
    "$python" -m venv ".cache/zipapp-$key/venv"
    pip=".cache/zipapp-$key/venv/bin/pip"
    "$pip" install --quiet --disable-pip-version-check shiv
    "$python" -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' |
        "$pip" install --quiet --disable-pip-version-check --target "$site" --requirement /dev/stdin
    touch "$site/.complete"
fi

rm -rf build
mkdir build
cp -r "$site" build/site
# git knows what belongs to us; a tree without git (an unpacked archive) is taken as it lies.
{ git ls-files -z piman.py commands dhcp tftp tcp ntp utility monitoring web lab install ':!web/screenshots' 2>/dev/null ||
    find piman.py commands dhcp tftp tcp ntp utility monitoring web lab install -type f -not -path '*/__pycache__/*' -not -path 'web/screenshots/*' -print0; } |
    xargs -0 cp --parents -t build/site
".cache/zipapp-$key/venv/bin/shiv" --compressed --site-packages build/site --entry-point piman:main \
    --python '/usr/bin/env python3' --output-file build/piman.pyz
rm -rf build/site
chmod +x build/piman.pyz
echo "build/piman.pyz: $(du -h build/piman.pyz | cut -f1)"
