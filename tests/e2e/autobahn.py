#!/usr/bin/env python3
"""The Autobahn conformance suite (fuzzing client) against the gateway's /echo.

  tests/e2e/autobahn.py [CASES]     CASES as the suite writes them, e.g. 6.* (default: all)

FLUX_BIN is the folder of the built programs (target/debug), AUTOBAHN_PYTHON a Python 2.7 (python2.7),
AUTOBAHN_PACKAGES the folder that holds autobahntestsuite. A case passes as OK or INFORMATIONAL; the
compression cases, which a server without permessage-deflate leaves UNIMPLEMENTED, count as skipped;
FAILED and NON-STRICT fail, as does a close that is not clean. The last line is
`N passed, N failed, N skipped`.
"""

import collections
import json
import os
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAMS = os.environ.get("FLUX_BIN", os.path.join(ROOT, "target", "debug"))
PYTHON = os.environ.get("AUTOBAHN_PYTHON", "python2.7")
PACKAGES = os.environ.get("AUTOBAHN_PACKAGES", os.path.join(ROOT, "target", "autobahn"))
# Case 9.* sends messages of 16 MiB.
CONFIG = {"echo": True, "websocket": {"message_size_limit": 16 << 20}}
PASSED = {"OK", "INFORMATIONAL"}
CASES_LEAST = 500
START_S_MAX = 20


def start(folder):
    """Starts a gateway; answers its process and its address."""
    config = os.path.join(folder, "config.json")
    with open(config, "w", encoding="utf-8") as file:
        json.dump(CONFIG, file)
    log = os.path.join(folder, "gateway.log")
    with open(log, "wb") as output:
        gateway = subprocess.Popen(
            [os.path.join(PROGRAMS, "flux-gateway"), "--config", config, "--listen", "127.0.0.1:0",
             "--admin", "127.0.0.1:0", "--shards", "1"], stdout=output, stderr=output,
            # FLUX_* in the environment is configuration to it.
            env={key: value for key, value in os.environ.items() if not key.startswith("FLUX_")})
    deadline = time.monotonic() + START_S_MAX
    while time.monotonic() < deadline and gateway.poll() is None:
        with open(log, encoding="utf-8") as file:
            for line in file:
                record = json.loads(line) if line.startswith("{") else {}
                if record.get("message") == "listening":
                    return gateway, record["clients"]
        time.sleep(0.05)
    gateway.kill()
    with open(log, encoding="utf-8") as file:
        sys.exit(f"the gateway does not start:\n{file.read()}")


def fuzz(folder, address, cases):
    """Runs the suite; answers its report, case by case."""
    spec = os.path.join(folder, "spec.json")
    with open(spec, "w", encoding="utf-8") as file:
        json.dump({
            "outdir": os.path.join(folder, "report"),
            "servers": [{"agent": "flux", "url": f"ws://{address}/echo"}],
            "cases": cases, "exclude-cases": [], "exclude-agent-cases": {},
        }, file)
    # A site directory, since the suite's namespace packages are found by their .pth files only.
    program = f"import site; site.addsitedir({PACKAGES!r}); from autobahntestsuite.wstest import run; run()"
    done = subprocess.run([PYTHON, "-c", program, "-m", "fuzzingclient", "-s", spec], cwd=folder, text=True,
                          capture_output=True, check=False)
    report = os.path.join(folder, "report", "index.json")
    if not os.path.exists(report):
        sys.exit(f"the suite wrote no report:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    with open(report, encoding="utf-8") as file:
        return json.load(file)["flux"]


def main():
    cases = sys.argv[1:] or ["*"]
    with tempfile.TemporaryDirectory(prefix="flux-autobahn-") as folder:
        gateway, address = start(folder)
        try:
            report = fuzz(folder, address, cases)
            has_died = gateway.poll() is not None
        finally:
            gateway.terminate()
            code = gateway.wait(timeout=60)
    seen = collections.Counter(case["behavior"] for case in report.values())
    bad = {name: case for name, case in report.items()
           if case["behavior"] not in PASSED | {"UNIMPLEMENTED"}
           or case["behaviorClose"] not in PASSED | {"UNIMPLEMENTED"}}
    for name, case in sorted(bad.items()):
        print(f"FAILED  {name}: {case['behavior']}, close {case['behaviorClose']} (code {case['remoteCloseCode']})")
    print(", ".join(f"{behavior}: {count}" for behavior, count in seen.most_common()))
    failed = len(bad)
    if has_died or code != 0:
        print(f"FAILED  the gateway ended with {code}")
        failed += 1
    if cases == ["*"] and len(report) < CASES_LEAST:
        print(f"FAILED  only {len(report)} cases were run")
        failed += 1
    skipped = seen["UNIMPLEMENTED"]
    if skipped:
        print(f"skipped: {skipped} compression cases: the gateway does not negotiate permessage-deflate")
    print(f"{len(report) - len(bad) - skipped} passed, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
