#!/usr/bin/env bash
# Lays out the root file system of the programs' image from what docker/build.sh has built.
# usage: docker/stage-image.sh DIRECTORY
set -euo pipefail
cd "$(dirname "$0")/.."
root=${1:?a directory for the image}

busybox=$(command -v busybox || true)
if [ -z "$busybox" ] || ldd "$busybox" >/dev/null 2>&1; then
  echo "stage-image: no static busybox (the image needs a kill): install busybox-static" >&2
  exit 1
fi

rm -rf "$root"
mkdir -p "$root/bin" "$root/etc/flux"
for program in flux-gateway flux-lb flux-dashboard flux-bench; do
  cp "target/cluster/$program" "$root/bin/"
done
cp "$busybox" "$root/bin/busybox"
for applet in kill sh; do ln -s busybox "$root/bin/$applet"; done
cp scripts/demo.toml "$root/etc/flux/demo.toml"
