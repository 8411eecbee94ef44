"""Peers from package registries."""

import glob
import os
import shutil

from .rounds import CACHE, ROOT, Failed, run, say

BUN = "bun@1.4.5"


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
            raise Failed("npm is missing: apt-get install npm (Bun, the peer, comes from it)")
        say(f"installing {BUN} into {os.path.relpath(CACHE, ROOT)}")
        os.makedirs(CACHE, exist_ok=True)
        run(["npm", "install", "--prefix", CACHE, "--no-audit", "--no-fund", "--ignore-scripts", BUN])
    if installed() is None:
        raise Failed(f"npm installed no Bun program for this machine under {CACHE}")
    return installed()
