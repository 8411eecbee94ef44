#!/usr/bin/env bash
# Checks every part of the running cluster through its public door.
set -euo pipefail
# shellcheck source=scripts/lib/common.sh
. "$(dirname "$0")/scripts/lib/common.sh"

case ${1:-} in
  '') ;;
  -h | --help)
    say 'usage: ./verify.sh'
    say 'Checks registry, gateways, balancer and dashboard through their public doors, one line each, and'
    say 'one message through every pair of nodes. Exit 0 when all is OK.'
    exit 0
    ;;
  *) say 'usage: ./verify.sh' >&2; exit 2 ;;
esac
[ -n "$(mode)" ] || fail "the cluster does not run" "./start.sh"

failed=0
# check WHAT COMMAND...: one line; what the command says is put behind it.
check() {
  local what=$1 said
  shift
  if said=$("$@" 2>&1); then
    printf '%sOK%s    %s\n' "$GREEN" "$PLAIN" "$what${said:+: $(tr '\n' ' ' <<<"$said")}"
  else
    printf '%sFAIL%s  %s\n' "$RED" "$PLAIN" "$what: $(tr '\n' ' ' <<<"${said:-no answer}")"
    failed=$((failed + 1))
  fi
}

redis() {
  case $(mode) in
    docker) docker exec flux-registry redis-cli "$@" ;;
    *) redis-cli -p "$REGISTRY_PORT" "$@" ;;
  esac
}
ping_registry() { redis PING | grep PONG; }
node_record() { redis HGET gateway:nodes "$1" | grep -o '"state":"ready"'; }

# has URL TEXT...: the page answers with 200 and holds each text; says nothing.
has() {
  local page text
  page=$(get "$1") || return 1
  shift
  for text in "$@"; do
    [[ $page == *"$text"* ]] || { say "\"$text\" is missing in: ${page:0:200}"; return 1; }
  done
}
handshake() {
  local said
  said=$(bench connect "ws://$1/connection/websocket" --connections 1 --timeout 5 2>&1) \
    || { say "$said"; return 1; }
}
one_event() {
  local event
  event=$(timeout 5 curl -fsSN "http://$DASHBOARD/api/events" 2>/dev/null | grep -m 1 '^data:') || true
  [[ $event == *'"nodes"'* ]] || { say "no event within 5 s"; return 1; }
}
# The whole page is what it asks for: its style and its script as well.
page() {
  local html part parts
  html=$(get "$DASHBOARD/dashboard") || return 1
  mapfile -t parts < <(grep -oE '(href|src)="[^"#:]+\.(css|js)"' <<<"$html" | cut -d'"' -f2)
  for part in "${parts[@]}"; do
    [[ $part == /* ]] || part=/dashboard/${part#./}
    get "$DASHBOARD$part" >/dev/null || { say "$part does not load"; return 1; }
  done
  [[ $html == *'</html>'* ]]
}

check "registry answers" ping_registry
urls=()
for n in $(seq "$(node_count)"); do
  node=gateway-$n clients=127.0.0.1:800$n admin=127.0.0.1:810$n
  urls+=("ws://$clients/connection/websocket")
  check "$node has its record" node_record "$node"
  check "$node /live" has "$admin/live"
  check "$node /ready" has "$admin/ready" '"ready":true' '"degraded":[]'
  check "$node /metrics" has "$admin/metrics" '# TYPE flux_'
  check "$node /api/status" has "$admin/api/status" "\"id\":\"$node\"" '"connections"'
  check "$node takes a WebSocket" handshake "$clients"
done
check "balancer /live" has "$LB_ADMIN/live"
check "balancer /ready" has "$LB_ADMIN/ready" '"ready":true'
check "balancer /metrics" has "$LB_ADMIN/metrics" '# TYPE flux_lb_'
for n in $(seq "$(node_count)"); do check "balancer routes to gateway-$n" lb_eligible "gateway-$n"; done
check "balancer /api/ring" has "$LB_ADMIN/api/ring?key=verify" '"candidates":["gateway-'
check "a WebSocket through the balancer" handshake "$LB"
check "dashboard /live" has "$DASHBOARD/live"
check "dashboard page" page
check "dashboard /api/topology" has "$DASHBOARD/api/topology" '"id":"gateway-1"' '"state":"READY"'
check "dashboard /api/events" one_event
check "messages between all nodes" bench pairs "${urls[@]}"

if [ $failed -gt 0 ]; then
  printf '%s%s failed%s\n' "$RED" "$failed" "$PLAIN"
  exit 1
fi
printf '%sall OK%s\n' "$GREEN" "$PLAIN"
