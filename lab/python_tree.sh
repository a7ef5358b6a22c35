#!/bin/bash
# python_tree.sh FOLDER: Debian's arm64 Python and psutil, as much of them as the node agent needs, for the lab's root file
# system: 17 MB of Debian's 80. Where this machine's Python is of the same version, its modules are compiled, so that a
# Pi in QEMU does not have to.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=../install/debian.sh
. "$HERE/../install/debian.sh"

folder=$1
work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT

gather() {
    local list
    list=$(debian_packages arm64 install python3-psutil) || exit 1
    mapfile -t debs < <(grep -E '/(libc6|libexpat1|libffi8|zlib1g|libpython3\.[0-9]+-(minimal|stdlib)|python3\.[0-9]+-minimal|python3-psutil)_' <<<"$list")
    [ ${#debs[@]} = 8 ] || die "Debian's packages of Python are not what they were: ${debs[*]##*/}"
    unpack_debs "$work" "${debs[@]}"
}
with_cache gather

cd "$work"
version=$(basename "$(echo usr/bin/python3.*)")
library=usr/lib/$version
ln -s "$version" usr/bin/python3
rm -rf usr/share usr/sbin etc var "$library"/{idlelib,lib2to3,test,distutils,ensurepip,pydoc_data,tkinter,unittest,turtledemo} \
    "$library"/{asyncio,ctypes/test,curses,dbm,email/mime,multiprocessing,sqlite3,venv,wsgiref,xml,xmlrpc,config-*} \
    "$library"/sitecustomize.py usr/lib/python3/dist-packages/psutil/tests usr/lib/*-linux-gnu/{audit,gconv} lib/*-linux-gnu/gconv \
    lib/*-linux-gnu/lib{BrokenLocale,SegFault,anl,c_malloc_debug,memusage,nsl,nss_compat,nss_hesiod,pcprofile,thread_db}* \
    usr/lib/locale
# Of the compiled modules, those that something here imports.
find "$library/lib-dynload" -name '*.so' ! -name '_ctypes.*' ! -name '_json.*' -delete
find "$library/encodings" -name '*.py' ! -name '__init__.py' ! -name aliases.py ! -name ascii.py ! -name idna.py ! -name latin_1.py ! -name utf_8.py -delete
if [ "$(python3 -c 'import sys; print("python%d.%d" % sys.version_info[:2])')" = "$version" ] &&
    python3 -m compileall -q -b --invalidation-mode unchecked-hash -s "$work" "$library" usr/lib/python3; then
    find "$library" usr/lib/python3 -name '*.py' -delete
fi
mkdir -p "$(dirname "$folder")"
rm -rf -- "$folder"
mv "$work" "$folder"
chmod 755 "$folder"
mkdir -p "$work"
