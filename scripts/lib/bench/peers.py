"""Peers that are installed by name: from npm, the Go module proxy, or the system's packages."""

import glob
import os
import shutil

from .rounds import CACHE, ROOT, Missing, install, needs, run, say

BUN = "bun@1.4.5"
NATS = "nats-server@v2.15.2"
NGINX_MODULES = ["/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/share/nginx/modules"]


def bun_binary():
    """Bun's program from npm, in a folder that git ignores. The package's install script, which npm 11
    does not run unasked, is not needed: the program lies in the package for the platform (npm 10's run
    of it moves the program into the package `bun`)."""
    def installed():
        found = [path for folder in ("@oven/bun-*", "bun") for path in sorted(glob.glob(os.path.join(CACHE, "node_modules", folder, "bin", "bun*")))]
        # The package `bun` ships a small text in place of the program until its install script has run.
        return next((path for path in found if os.access(path, os.X_OK) and os.path.getsize(path) > 1_000_000), None)

    if installed() is None:
        if shutil.which("npm") is None:
            raise Missing("npm is missing: apt-get install npm (Bun, the peer, comes from it)")
        say(f"installing {BUN} into {os.path.relpath(CACHE, ROOT)}")
        os.makedirs(CACHE, exist_ok=True)
        run(["npm", "install", "--prefix", CACHE, "--no-audit", "--no-fund", "--ignore-scripts", BUN])
    if installed() is None:
        raise Missing(f"npm installed no Bun program for this machine under {CACHE}")
    return installed()


def nats_binary():
    """NATS's server, built from its Go module in a folder that git ignores and that is named by the version."""
    folder = os.path.join(CACHE, NATS)
    program = os.path.join(folder, "nats-server")
    if not os.access(program, os.X_OK):
        if shutil.which("go") is None:
            raise Missing("go is missing: apt-get install golang (NATS, a peer, is built with it)")
        say(f"building {NATS} in {os.path.relpath(folder, ROOT)}")
        os.makedirs(folder, exist_ok=True)
        run(["go", "install", "github.com/nats-io/" + NATS.replace("@", "/v2@")], env={**os.environ, "GOBIN": folder})
    return program


def nchan_module():
    return nginx_module("ngx_nchan_module.so", "libnginx-mod-nchan")


def nginx_module(name, package):
    """A module's file among those of the system's nginx."""
    needs(("nginx", f"nginx {package}"))
    if installed_module(name) is None:
        # nginx was there without it.
        install(package)
    path = installed_module(name)
    if path is None:
        raise Missing(f"nginx has no {name}: apt-get install {package}")
    return path


def installed_module(name):
    return next((path for path in (os.path.join(folder, name) for folder in NGINX_MODULES) if os.path.exists(path)), None)
