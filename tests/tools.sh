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

# install PACKAGE: a Debian package.
install() {
  say "installing $1"
  command -v apt-get >/dev/null 2>&1 || fail "$1 is missing and there is no apt-get to install it with"
  local as=()
  [ "$(id -u)" = 0 ] || as=(sudo)
  "${as[@]}" apt-get update -qq
  "${as[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$1" >/dev/null || fail "could not install $1"
}

# need COMMAND PACKAGE: a command, or the Debian package that brings it.
need() {
  command -v "$1" >/dev/null 2>&1 || install "$2"
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

# A Python environment with the packages of tests/clients/python/requirements.txt.
need_python() {
  need python3 python3
  local wanted="$root/tests/clients/python/requirements.txt" stamp="$tools/python/.installed"
  if ! cmp -s "$wanted" "$stamp"; then
    say "installing the Python packages of the tests"
    python3 -c 'import ensurepip' 2>/dev/null || install python3-venv
    python3 -m venv "$tools/python"
    "$tools/python/bin/pip" install --quiet --disable-pip-version-check -r "$wanted"
    cp "$wanted" "$stamp"
  fi
  export PATH="$tools/python/bin:$PATH"
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
