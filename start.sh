#!/usr/bin/env bash
# Builds and starts the cluster and waits until it is ready.
set -euo pipefail
# shellcheck source=scripts/lib/common.sh
. "$(dirname "$0")/scripts/lib/common.sh"
# shellcheck source=scripts/lib/setup.sh
. "$ROOT/scripts/lib/setup.sh"

usage() {
  cat <<'USAGE'
usage: ./start.sh [--docker|--local] [--nodes N]

Starts a Redis registry, N gateways (default 3, at most 9), the balancer and the dashboard, waits
until they are ready and prints where they are. In Docker where an engine answers, else as local
processes with a real redis-server. Run again, it starts what is missing and leaves alone what runs.
USAGE
}

want='' nodes=''
while [ $# -gt 0 ]; do
  case $1 in
    --docker) want=docker ;;
    --local) want=local ;;
    --nodes) nodes=${2:-none}; shift $(($# > 1)) ;;
    --nodes=*) nodes=${1#*=} ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
  shift
done
nodes=${nodes:-$(node_count)}
[[ $nodes =~ ^[1-9]$ ]] || { warn "--nodes $nodes: give a number from 1 to 9"; exit 2; }

now=$(mode)
want=${want:-${now:-$(docker_answers && echo docker || echo local)}}
if [ -n "$now" ] && [ "$now" != "$want" ]; then
  fail "the cluster has been started in the other way ($now)" "./cleanup.sh, then start again"
fi
[ "$nodes" -ge "$(node_count)" ] || [ -z "$now" ] || nodes=$(node_count)

need curl curl
case $want in
  docker) docker_answers || fail "no Docker engine answers" "start it (sudo systemctl start docker), or ./start.sh --local" ;;
  local) need redis-server redis-server ;;
esac

mkdir -p "$STATE"
printf '%s\n' "$want" >"$STATE/mode"
printf '%s\n' "$nodes" >"$STATE/nodes"
# Where a port is taken, nothing has been started: nothing to remember.
[ -n "$now" ] || trap 'rm -f "$STATE"/{mode,nodes}; rmdir "$STATE" 2>/dev/null || true' EXIT
check_port registry "$REGISTRY_PORT"
check_port tcp-lb 8080
check_port dashboard 9090
for n in $(seq "$nodes"); do check_port "gateway-$n" "800$n"; check_port "gateway-$n" "810$n"; done
trap - EXIT

case $want in
  docker)
    build_images
    for n in $(seq "$nodes"); do let_draining_leave "$n"; done
    write_more_gateways "$nodes"
    step "starting containers"
    FLUX_HTTP_API_KEY=$(api_key)
    export FLUX_HTTP_API_KEY
    services=(registry tcp-lb dashboard)
    for n in $(seq "$nodes"); do services+=("gateway-$n"); done
    compose up -d --no-build --no-recreate "${services[@]}" >"$STATE/compose.log" 2>&1 \
      || fail "the containers do not start: $(tail -n 3 "$STATE/compose.log")" "read .flux/compose.log"
    ;;
  local)
    build_programs
    for n in $(seq "$nodes"); do let_draining_leave "$n"; done
    step "starting processes (logs in .flux/)"
    running registry || launch_registry
    for n in $(seq "$nodes"); do running "gateway-$n" || launch_gateway "$n"; done
    running tcp-lb || launch_tcp_lb
    running dashboard || launch_dashboard
    ;;
esac

step "waiting until everything is ready"
for n in $(seq "$nodes"); do await "gateway-$n" "127.0.0.1:810$n" 60 get "127.0.0.1:810$n/ready"; done
await tcp-lb "$LB_ADMIN" 30 get "$LB_ADMIN/ready"
for n in $(seq "$nodes"); do await tcp-lb "$LB_ADMIN" 30 lb_eligible "gateway-$n"; done
await dashboard "$DASHBOARD" 30 get "$DASHBOARD/ready"

registry="redis-cli -p $REGISTRY_PORT"
[ "$want" = local ] || registry="docker exec flux-registry redis-cli"
cat <<READY

${GREEN}ready${PLAIN}: $nodes gateways, $want

  clients      ws://$LB/connection/websocket   (any Centrifuge SDK)
  dashboard    http://localhost:9090/dashboard
  balancer     http://$LB_ADMIN/api/nodes
  gateways     http://127.0.0.1:8101/api/status   (8102, 8103, ...)
  registry     $registry HGETALL gateway:nodes
  server API   curl -H "X-API-Key: \$(cat .flux/api-key)" http://127.0.0.1:8101/api/publish \\
                 -d '{"channel": "room", "data": {"text": "hello"}}'

try next
  ./verify.sh      every part, and one message through every pair of nodes
  ./demo.sh        a kill, a drain, a partition and a rolling restart under live clients
  ./cleanup.sh     stop and remove it all
READY
