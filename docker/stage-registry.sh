#!/usr/bin/env bash
# Lays out an image root with the host's redis-server, redis-cli and the libraries they name.
# usage: docker/stage-registry.sh DIRECTORY
set -euo pipefail
root=${1:?a directory for the image}
rm -rf "$root"
mkdir -p "$root/bin"
for program in redis-server redis-cli; do
  path=$(readlink -f "$(command -v "$program")")
  cp "$path" "$root/bin/$program"
  ldd "$path" | grep -o '/[^ ]*' | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
  done
done
