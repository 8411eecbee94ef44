"""A Docker engine for tests and benchmarks: the one that runs, or one that is started and ended again."""

import shutil
import signal
import subprocess
import time

START_S_MAX = 60
STOP_S_MAX = 30


class NoEngine(Exception):
    """Why there is none, in one line."""


def answers():
    """Whether an engine answers."""
    if shutil.which("docker") is None:
        return False
    try:
        asked = subprocess.run(["docker", "info", "--format", "{{.ServerVersion}}"], capture_output=True,
                               text=True, timeout=30, check=False)
    except subprocess.TimeoutExpired:
        return False
    return asked.returncode == 0 and asked.stdout.strip() != ""


def start(log_path):
    """Starts `dockerd` (as root) and waits until it answers: the process, for `stop`."""
    with open(log_path, "ab") as log:
        engine = subprocess.Popen(["dockerd"], stdout=log, stderr=log, start_new_session=True)
    until = time.monotonic() + START_S_MAX
    while time.monotonic() < until and engine.poll() is None:
        if answers():
            return engine
        time.sleep(0.5)
    stop(engine)
    with open(log_path, encoding="utf-8", errors="replace") as file:
        lines = file.read().strip().splitlines()
    raise NoEngine(f"dockerd cannot run here: {lines[-1] if lines else 'it says nothing'}")


def stop(engine):
    """Ends an engine that `start` has started."""
    if engine.poll() is None:
        engine.send_signal(signal.SIGTERM)
        try:
            engine.wait(timeout=STOP_S_MAX)
        except subprocess.TimeoutExpired:
            engine.kill()
            engine.wait()
