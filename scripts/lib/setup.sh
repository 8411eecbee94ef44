# What start.sh needs before it can start anything: packages, programs, images.
# shellcheck shell=bash

# need COMMAND PACKAGE: installs the package with the system's package manager, after saying so.
need() {
  ! have "$1" || return 0
  local sudo=()
  [ "$(id -u)" = 0 ] || sudo=(sudo)
  if have apt-get; then
    step "installing $2 (apt-get)"
    "${sudo[@]}" apt-get install -y -q "$2" >/dev/null 2>&1 \
      || { "${sudo[@]}" apt-get update -q >/dev/null && "${sudo[@]}" apt-get install -y -q "$2" >/dev/null; } || true
  elif have dnf; then
    step "installing $2 (dnf)"
    "${sudo[@]}" dnf install -y -q "$2" || true
  elif have pacman; then
    step "installing $2 (pacman)"
    "${sudo[@]}" pacman -S --noconfirm --quiet "$2" || true
  fi
  hash -r
  have "$1" || fail "$1 is missing" "install the package $2 and start again"
}

build_programs() {
  have cargo || fail "no Rust toolchain" "install it from https://rustup.rs, or use ./start.sh --docker"
  need cc gcc
  need make make
  step "building (release, static; the first time takes minutes)"
  "$ROOT/docker/build.sh" || fail "the build failed" "read the messages above"
}

# The limits that containers get: what this host allows, since more keeps a container from starting.
container_limits() {
  CLUSTER_NOFILE=$(ulimit -Hn)
  [ "$CLUSTER_NOFILE" != unlimited ] || CLUSTER_NOFILE=1048576
  CLUSTER_MEMLOCK=$(ulimit -Hl)
  if [ "$CLUSTER_MEMLOCK" = unlimited ]; then CLUSTER_MEMLOCK=-1; else CLUSTER_MEMLOCK=$((CLUSTER_MEMLOCK * 1024)); fi
  export CLUSTER_NOFILE CLUSTER_MEMLOCK CLUSTER_SECCOMP=$ROOT/docker/seccomp.json
}

build_images() {
  export CLUSTER_IMAGE=flux:local CLUSTER_REGISTRY_IMAGE=redis:7-alpine
  container_limits
  docker compose version >/dev/null 2>&1 || need docker-compose docker-compose

  if have cargo; then
    need busybox busybox-static
    build_programs
    image_from_host
  elif ! docker image inspect "$CLUSTER_IMAGE" >/dev/null 2>&1; then
    step "building inside Docker (no Rust on this host; takes minutes)"
    docker build -t "$CLUSTER_IMAGE" -f "$ROOT/docker/Dockerfile" "$ROOT" \
      || fail "the image could not be built" "read the messages above"
  fi

  docker image inspect flux-registry:local >/dev/null 2>&1 && CLUSTER_REGISTRY_IMAGE=flux-registry:local
  if ! docker image inspect "$CLUSTER_REGISTRY_IMAGE" >/dev/null 2>&1 \
    && ! timeout 60 docker pull -q "$CLUSTER_REGISTRY_IMAGE" >/dev/null 2>&1; then
    export CLUSTER_REGISTRY_IMAGE=flux-registry:local
    step "making the registry's image from the host's redis-server (redis:7-alpine cannot be pulled)"
    need redis-server redis-server
    "$ROOT/docker/stage-registry.sh" "$STATE/registry-image"
    docker build -q -t "$CLUSTER_REGISTRY_IMAGE" -f "$ROOT/docker/registry.Dockerfile" \
      "$STATE/registry-image" >/dev/null 2>&1 \
      || fail "the registry's image could not be made" "docker build -f docker/registry.Dockerfile .flux/registry-image"
  fi
}

# Makes the image again only when a program or the demo's configuration has changed.
image_from_host() {
  local sum
  sum=$(cd "$ROOT" && cat docker/host.Dockerfile docker/stage-image.sh scripts/demo.toml target/cluster/flux-{gateway,lb,dashboard,bench} | sha256sum)
  if [ "$(cat "$STATE/image.sum" 2>/dev/null)" = "$sum" ] && docker image inspect "$CLUSTER_IMAGE" >/dev/null 2>&1; then
    return
  fi
  step "making the image from the host's build"
  "$ROOT/docker/stage-image.sh" "$STATE/image"
  docker build -q -t "$CLUSTER_IMAGE" -f "$ROOT/docker/host.Dockerfile" "$STATE/image" >/dev/null 2>&1 \
    || fail "the image could not be made" "docker build -f docker/host.Dockerfile .flux/image"
  printf '%s\n' "$sum" >"$STATE/image.sum"
  rm -rf "$STATE/image"
}

# Gateways beyond the three of compose.yml, as a second compose file.
write_more_gateways() {
  local file=$STATE/compose.more.yml n
  rm -f "$file"
  [ "$1" -gt 3 ] || return 0
  printf 'services:\n' >"$file"
  for n in $(seq 4 "$1"); do
    cat >>"$file" <<SERVICE
  gateway-$n:
    extends: { file: $ROOT/docker/program.yml, service: program }
    container_name: flux-gateway-$n
    environment: ["FLUX_HTTP_API_KEY=$(api_key)"]
    command: ["flux-gateway", "--config", "/etc/flux/demo.toml", "--allow-anonymous", "--redis", "redis://flux-registry:6379", "--id", "gateway-$n", "--listen", "0.0.0.0:800$n", "--admin", "0.0.0.0:810$n"]
    ports: ["127.0.0.1:800$n:800$n", "127.0.0.1:810$n:810$n"]
SERVICE
  done
}

# check_port NAME PORT: a part that does not run yet needs its port.
check_port() {
  ! running "$1" || return 0
  if (exec 3<>"/dev/tcp/127.0.0.1/$2") 2>/dev/null; then
    fail "port $2, which $1 needs, is taken by another program" "see which: ss -ltnp 'sport = :$2'; stop it and start again"
  fi
}

# A node in its drain would not take new clients: it is left to go, then started again.
let_draining_leave() {
  local name=gateway-$1
  running "$name" || return 0
  curl -s --max-time 2 "http://127.0.0.1:810$1/ready" | grep -q draining || return 0
  step "$name is draining; waiting for it to leave"
  wait_until 40 not_running "$name" || fail "$name does not leave" "./cleanup.sh, then start again"
}

# await NAME ADMIN SECONDS COMMAND...: until the command succeeds; says at once if the part has died.
await() {
  local name=$1 admin=$2 deadline=$((SECONDS + $3)) said logs=".flux/$1.log"
  shift 3
  until "$@" >/dev/null 2>&1; do
    if not_running "$name"; then
      fail "$name has ended: $(last_words "$name")" "the lines above say why; flux-gateway --doctor says what this machine lacks"
    fi
    if [ $SECONDS -ge $deadline ]; then
      said=$(curl -sS --max-time 2 "http://$admin/ready" 2>&1 || true)
      [ "$(mode)" != docker ] || logs="docker logs flux-$name"
      fail "$name is not ready: ${said:-no answer}" "read $logs; flux-gateway --doctor says what this machine lacks"
    fi
    sleep 0.1
  done
}
