# Sourced by the clients' `run`: generates what they need, starts a platform for them, and looks at what they print.

# A folder for what is made on the way.
work=$(mktemp -d)
platform_pid=
trap leave EXIT

# Leaves nothing behind.
leave() {
  [ -z "$platform_pid" ] || kill "$platform_pid" 2>/dev/null || true
  wait
  rm -rf "$work"
}

clients=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$clients/../tools.sh"

# generate LANGUAGE OUT: the commands that proto/README.md gives for a language, as they stand there.
generate() {
  local commands
  commands=$(sed -n "/^### $1\$/,/^##/s/^    //p" "$root/proto/README.md")
  [ -n "$commands" ] || fail "proto/README.md has no commands for $1"
  mkdir -p "$2"
  (cd "$root" && OUT=$2 bash -euo pipefail -c "$commands") || fail "the protos do not compile for $1"
}

# Everything in one process with the starter kit, until the script ends; the one of the calling script where it has one.
platform() {
  [ -z "${PAVIOR_TEST_PLATFORM:-}" ] || return 0
  local pavior="$target/debug/pavior" free=() name folder
  [ -x "$pavior" ] || (cd "$root" && cargo build --locked -p pavior)
  # What the golden path and the look at its page run.
  need git git
  need python3 python3
  need curl curl
  say "starting the platform"
  export PAVIOR_TEST_PLATFORM PAVIOR_SERVER PAVIOR_ORGANIZATION=acme PAVIOR_TOKEN PAVIOR_AUDITOR_TOKEN
  PAVIOR_TEST_PLATFORM=$work/platform
  mkdir "$PAVIOR_TEST_PLATFORM"
  touch "$PAVIOR_TEST_PLATFORM/log"
  for name in gateway admin git; do free+=("--set=listen.$name=127.0.0.1:0"); done
  "$pavior" serve --all "${free[@]}" \
    --set=data_dir="$PAVIOR_TEST_PLATFORM/data" \
    --set=development.issuer=true \
    --set=shutdown.notice_ms=0 \
    --set=drivers.skeleton_roots="['$root/deploy/starter/skeletons']" \
    --set=gateway.web_origins="['$web_origin']" 2>"$PAVIOR_TEST_PLATFORM/log" &
  platform_pid=$!
  for _ in $(seq 600); do
    PAVIOR_SERVER=$(server_in "$PAVIOR_TEST_PLATFORM/log")
    [ -z "$PAVIOR_SERVER" ] && kill -0 "$platform_pid" 2>/dev/null || break
    sleep 0.1
  done
  [ -n "$PAVIOR_SERVER" ] || { cat "$PAVIOR_TEST_PLATFORM/log" >&2; fail "the platform did not start"; }
  PAVIOR_TOKEN=$(token operator)
  for folder in organization databases/sqlite templates; do
    "$pavior" apply -f "$root/deploy/starter/$folder" >"$work/applied" 2>&1 || { cat "$work/applied" >&2; return 1; }
  done
  PAVIOR_TOKEN=$(token alice)
  PAVIOR_AUDITOR_TOKEN=$(token vera)
}

# server_in LOG: where the gateway listens, once the whole line stands in its log; nothing before.
server_in() {
  local line
  while read -r line; do
    [[ "$line" != "gateway listens on "* ]] || echo "http://${line##* }"
  done <"$1"
}

# The page that calls with gRPC-Web; a browser finds it on this machine.
web_origin=http://portal.localhost

# token PERSON: a token of the development issuer.
token() {
  "$target/debug/pavior" token --dev --as "$1" --data "$PAVIOR_TEST_PLATFORM/data"
}

# main_job PROJECT COMMAND…: the command, with the project's id as its last argument, does the main job and tells it as
# `expected.txt` says; then the project runs.
main_job() {
  local project=$1 told="$work/$1.told" page start=$SECONDS
  shift
  say "the main job: $project"
  if ! "$@" "$project" | tee "$told"; then
    echo "FAIL $project: it failed"
    return 1
  fi
  # Steps that do not wait for each other end in any order.
  if ! diff <(sed "s/PROJECT/$project/" "$clients/expected.txt" | sort) <(sed 's/^running at .*/running/' "$told" | sort); then
    echo "FAIL $project: it told something else"
    return 1
  fi
  page=$(curl -sS --max-time 30 "$(sed -n 's/^running at //p' "$told")") || true
  if ! grep -qF "name: $project" <<<"$page"; then
    printf '%s\nFAIL %s: it does not run\n' "$page" "$project"
    return 1
  fi
  echo "ok $project ($((SECONDS - start)) s)"
}
