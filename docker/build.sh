#!/usr/bin/env bash
# Builds the programs as static binaries, which run on this host and in an empty image alike, and
# links target/cluster to them.
set -euo pipefail
cd "$(dirname "$0")/.."
target=$(rustc -vV | sed -n 's/^host: //p')
# glibc can be linked in statically, name resolution through /etc/hosts and DNS included.
RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --target "$target" --target-dir target \
  -p flux-gateway -p flux-lb -p flux-dashboard -p flux-bench
ln -sfn "$target/release" target/cluster
