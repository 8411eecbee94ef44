# Shared by the commands at the root: places, words, checks. Sourced, never run.
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
STATE=$ROOT/.flux
LB=127.0.0.1:8080
LB_ADMIN=127.0.0.1:8090
DASHBOARD=127.0.0.1:9090
REGISTRY_PORT=6390

# shellcheck disable=SC2034 # the commands that source this use them
if [ -t 1 ]; then
  BOLD=$'\e[1m' RED=$'\e[31m' GREEN=$'\e[32m' YELLOW=$'\e[33m' PLAIN=$'\e[0m'
else
  # shellcheck disable=SC2034
  BOLD='' RED='' GREEN='' YELLOW='' PLAIN=''
fi

say() { printf '%s\n' "$*"; }
step() { printf '%s==>%s %s\n' "$BOLD" "$PLAIN" "$*"; }
warn() { printf '%s!%s %s\n' "$YELLOW" "$PLAIN" "$*" >&2; }
# fail WHAT REMEDY
fail() {
  printf '%sfailed:%s %s\n' "$RED" "$PLAIN" "$1" >&2
  [ -z "${2:-}" ] || printf '  remedy: %s\n' "$2" >&2
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# wait_until SECONDS COMMAND...: polls until the command succeeds.
wait_until() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $deadline ] || return 1
    sleep 0.1
  done
}

get() { curl -fsS --max-time 2 "http://$1"; }

# Whether the balancer gives a node new connections.
lb_eligible() { get "$LB_ADMIN/api/nodes" | tr '{' '\n' | grep "\"id\":\"$1\"" | grep -q '"eligible":true'; }

docker_answers() { have docker && docker info >/dev/null 2>&1; }

# Debian's compose is the older command; both read the same files.
compose() {
  local command=(docker compose) files=(-f "$ROOT/docker/compose.yml")
  docker compose version >/dev/null 2>&1 || command=(docker-compose)
  [ ! -f "$STATE/compose.more.yml" ] || files+=(-f "$STATE/compose.more.yml")
  "${command[@]}" --project-directory "$ROOT/docker" -p flux "${files[@]}" "$@"
}

mode() { cat "$STATE/mode" 2>/dev/null || true; }
node_count() { cat "$STATE/nodes" 2>/dev/null || echo 3; }

# The programs that start.sh built for this host; docker/build.sh makes the link.
binary() { printf '%s/target/cluster/%s' "$ROOT" "$1"; }

# flux-bench: the host's, or for people without Rust the image's.
bench() {
  if [ -x "$(binary flux-bench)" ]; then
    "$(binary flux-bench)" "$@"
  else
    docker run --rm -i --network host --security-opt "seccomp=$ROOT/docker/seccomp.json" flux:local flux-bench "$@"
  fi
}

# --- the parts: registry, gateway-N, tcp-lb, dashboard --------------------------------------------

# running NAME: its container or its process.
running() {
  case $(mode) in
    docker) [ "$(docker inspect -f '{{.State.Running}}' "flux-$1" 2>/dev/null)" = true ] ;;
    *) process_lives "$1" ;;
  esac
}
not_running() { ! running "$1"; }

last_words() {
  case $(mode) in
    docker) docker logs --tail 3 "flux-$1" 2>&1 ;;
    *) tail -n 3 "$STATE/$1.log" 2>/dev/null ;;
  esac
}

# The key of the server API, made at the first start.
api_key() {
  if [ ! -s "$STATE/api-key" ]; then
    (umask 077 && head -c 24 /dev/urandom | base64 | tr -d '+/=\n' >"$STATE/api-key")
  fi
  cat "$STATE/api-key"
}

# --- local processes: .flux/NAME.pid and .flux/NAME.log -------------------------------------------

pid_of() { cat "$STATE/$1.pid" 2>/dev/null; }

# Whether NAME's process lives and is still ours: a pid may have been given to somebody else.
process_lives() {
  local pid start
  pid=$(pid_of "$1") && start=$(cat "$STATE/$1.start" 2>/dev/null) && [ -n "$start" ] || return 1
  [ "$(start_time "$pid")" = "$start" ]
}

# When the process began, in clock ticks since boot; empty once it is gone or a zombie.
start_time() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
  stat=${stat##*) }
  [ "${stat:0:1}" = Z ] || printf '%s' "$stat" | cut -d' ' -f20
}

# launch NAME COMMAND...: in the background, detached from the terminal, logging to a file.
launch() {
  local name=$1 pid
  shift
  setsid "$@" >>"$STATE/$name.log" 2>&1 </dev/null &
  pid=$!
  start_time "$pid" >"$STATE/$name.start"
  printf '%s\n' "$pid" >"$STATE/$name.pid"
}

launch_registry() {
  launch registry redis-server --port "$REGISTRY_PORT" --bind 127.0.0.1 --save '' --appendonly no \
    --dir "$STATE" --unixsocket "$STATE/registry.sock"
}

launch_gateway() {
  FLUX_HTTP_API_KEY=$(api_key) launch "gateway-$1" "$(binary flux-gateway)" --config "$ROOT/scripts/demo.toml" --id "gateway-$1" \
    --listen "127.0.0.1:800$1" --admin "127.0.0.1:810$1" --redis "redis://127.0.0.1:$REGISTRY_PORT"
}

launch_tcp_lb() {
  launch tcp-lb "$(binary flux-lb)" --listen "$LB" --admin "$LB_ADMIN" --redis "redis://127.0.0.1:$REGISTRY_PORT"
}

launch_dashboard() {
  launch dashboard "$(binary flux-dashboard)" --listen "$DASHBOARD" \
    --redis "redis://127.0.0.1:$REGISTRY_PORT" --balancer "http://$LB_ADMIN"
}
