#!/usr/bin/env bash
# Stops and removes what start.sh started, and nothing else.
set -euo pipefail
# shellcheck source=scripts/lib/common.sh
. "$(dirname "$0")/scripts/lib/common.sh"

case ${1:-} in
  '') ;;
  -h | --help)
    say 'usage: ./cleanup.sh'
    say 'Stops and removes the containers, network and images, or the processes, that start.sh made, and .flux/.'
    exit 0
    ;;
  *) say 'usage: ./cleanup.sh' >&2; exit 2 ;;
esac

# Two signals: the second one shortens the drain.
stop_process() {
  local pid
  process_lives "$1" || return 0
  pid=$(pid_of "$1")
  kill -TERM "$pid" 2>/dev/null || true
  sleep 0.2
  ! process_lives "$1" || kill -TERM "$pid" 2>/dev/null || true
}

await_process() {
  wait_until "$2" process_gone "$1" || kill -KILL "$(pid_of "$1")" 2>/dev/null || true
}
process_gone() { ! process_lives "$1"; }

stop_local() {
  local file name names=()
  for file in "$STATE"/*.pid; do
    name=$(basename "$file" .pid)
    [ ! -e "$file" ] || [ "$name" = registry ] || names+=("$name")
  done
  for name in "${names[@]}"; do stop_process "$name" & done
  wait
  for name in "${names[@]}"; do await_process "$name" 10; done
  # The registry goes last, so that the nodes can sign off.
  stop_process registry
  await_process registry 5
  # A demo that was killed in its partition leaves its namespace; the link goes with it.
  if [ -f "$STATE/netns" ]; then
    ip netns del "$(cat "$STATE/netns")" 2>/dev/null || true
    ip route del blackhole 10.231.77.0/30 2>/dev/null || true
  fi
}

# Containers of this directory that run without .flux/ (it was removed by hand).
orphans() {
  docker_answers || return 0
  docker ps -aq --filter label=com.docker.compose.project=flux \
    --filter "label=com.docker.compose.project.working_dir=$ROOT/docker"
}

stop_docker() {
  docker_answers || fail "no Docker engine answers" "start it, then run ./cleanup.sh again"
  docker rm -f flux-gateway-1-twin >/dev/null 2>&1 || true
  if [ -f "$STATE/compose.more.yml" ] || [ -n "$(orphans)" ] || docker network inspect flux-network >/dev/null 2>&1; then
    compose down --timeout 3 --remove-orphans >"$STATE/compose.log" 2>&1 \
      || fail "the containers could not be removed: $(tail -n 3 "$STATE/compose.log")" "read .flux/compose.log"
  fi
  docker image rm flux:local flux-registry:local >/dev/null 2>&1 || true
}

running_in=$(mode)
[ -n "$running_in" ] || [ -z "$(orphans)" ] || running_in=docker
mkdir -p "$STATE"
case $running_in in
  docker)
    step "removing containers, network and images"
    stop_docker
    ;;
  local)
    step "stopping processes"
    stop_local
    ;;
  *) say "nothing to clean up" ;;
esac
# Benchmarks and tests keep their own things in .flux/, which stay.
rm -rf "$STATE"/{mode,nodes,api-key,image.sum,compose.log,compose.more.yml,netns,image,registry-image} \
  "$STATE"/*.pid "$STATE"/*.start "$STATE"/*.log "$STATE"/registry.sock
rmdir "$STATE" 2>/dev/null || true
