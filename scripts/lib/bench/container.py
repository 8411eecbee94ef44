"""A node in a container of half a core and 256 MiB with 300 subscribers: RayFlux's own test.

RayFlux states 1,600 requests/s under 100 ms with none failed. A request here is one publication that has reached
one subscriber, 0 % failed is that every publication reached every subscriber, once and in order.
"""

import contextlib
import os
import shutil
import subprocess
import time

import docker_engine

from . import network
from .rounds import PEERS, ROOT, START_S_MAX, Failed, Missing, finished, free_port, needs, run, say

SUBSCRIBERS = 300
# What RayFlux states of itself, deliveries a second.
STATED = 1_600
P99_MS_MAX = 100
# Publications a second that are tried, one after the other, as long as the one before was served.
RATES = (110, 220, 440, 880, 1_760, 3_520, 7_040)
CPUS, MEMORY = "0.5", "256m"
STOP_S = 2


def container(bench):
    with network.outside():
        return contained(bench)


def contained(bench):
    engine(bench)
    with image(bench) as name:
        best = [attempt(bench, name) for _ in range(1 if bench.quick else min(bench.rounds, 3))]
    stated = "RayFlux, stated"
    each = [found for found in best if found]
    if not each:
        raise Failed(f"not even {RATES[0] * SUBSCRIBERS:,} deliveries/s came whole with p99 below {P99_MS_MAX} ms")
    rounds = len(each)
    rows = [
        finished(f"{SUBSCRIBERS} subscribers", "deliveries/s", False,
                 {"ours": [found["per_s"] for found in each], stated: [STATED] * rounds}, {}),
        finished(f"{SUBSCRIBERS} subscribers p99", "ms", True, {"ours": [found["p99"] for found in each]}, {}),
    ]
    return [{**row, "rounds": rounds} for row in rows]


def engine(bench):
    """One that answers: the machine's, or one for this case alone."""
    if docker_engine.answers():
        return
    needs(("dockerd", "docker.io"))
    if os.geteuid() != 0:
        raise Missing("no Docker engine answers, and only root can start one")
    say("starting a Docker engine")
    try:
        started = docker_engine.start(os.path.join(bench.folder, "dockerd.log"))
    except docker_engine.NoEngine as why:
        raise Missing(str(why)) from why
    bench.stack.callback(docker_engine.stop, started)


@contextlib.contextmanager
def image(bench):
    """An image of the program that was measured in all other cases: the host's build and the libraries it names."""
    root = os.path.join(bench.folder, "image")
    program = bench.binary("flux-gateway")
    os.makedirs(os.path.join(root, "bin"))
    shutil.copy(program, os.path.join(root, "bin"))
    for line in run(["ldd", program]).splitlines():
        path = next((word for word in line.split() if word.startswith("/")), None)
        if path:
            os.makedirs(root + os.path.dirname(path), exist_ok=True)
            shutil.copy(path, root + path)
    shutil.copy(os.path.join(PEERS, "ours.toml"), root)
    with open(os.path.join(root, "Dockerfile"), "w") as out:
        out.write("FROM scratch\nCOPY . /\n")
    name = f"flux-bench-image-{os.getpid()}"
    run(["docker", "build", "-q", "-t", name, root])
    try:
        yield name
    finally:
        subprocess.run(["docker", "image", "rm", "-f", name], capture_output=True, timeout=60, check=False)


@contextlib.contextmanager
def running(bench, image_name):
    """The container on the host's network: its port, and the process for its CPU time."""
    port, name = free_port(), f"flux-bench-{os.getpid()}"
    admin = f"127.0.0.1:{free_port()}"
    run(["docker", "run", "-d", "--name", name, "--network", "host", "--cpus", CPUS, "--memory", MEMORY, "--memory-swap", MEMORY,
         "--cpuset-cpus", str(bench.server_core), "--ulimit", "memlock=8388608:8388608",
         "--security-opt", f"seccomp={os.path.join(ROOT, 'docker', 'seccomp.json')}",
         image_name, "/bin/flux-gateway", "--listen", f"127.0.0.1:{port}", "--admin", admin, "--config", "/ours.toml"])
    try:
        until = time.monotonic() + START_S_MAX
        while True:
            log = subprocess.run(["docker", "logs", name], capture_output=True, text=True, timeout=30, check=False)
            state = run(["docker", "inspect", "-f", "{{.State.Running}} {{.State.Pid}}", name]).split()
            if state[0] == "true" and subprocess.run(
                    [bench.binary("flux-bench"), "probe-connect", f"ws://127.0.0.1:{port}/connection/websocket", "--count", "1", "--timeout", "2"],
                    capture_output=True, timeout=30, check=False).returncode == 0:
                break
            if state[0] != "true" or time.monotonic() > until:
                raise Failed("the container does not serve: " + (log.stderr or log.stdout).strip()[-300:])
            time.sleep(0.2)
        yield port, state[1]
    finally:
        subprocess.run(["docker", "rm", "-f", name], capture_output=True, timeout=60, check=False)


def attempt(bench, image_name):
    """The highest rate that was served, each rate by a fresh container."""
    best = None
    for rate in RATES[:1] if bench.quick else RATES:
        with running(bench, image_name) as (port, pid):
            report = bench.load("fanout", f"ws://127.0.0.1:{port}/connection/websocket", "--subscribers", SUBSCRIBERS, "--rate", rate,
                                "--size", 100, "--duration", bench.seconds, "--server-pid", pid, incomplete_is_news=False)
        p99 = report["latency"]["p99_us"] / 1000
        failed = report["missing"] + report["refused"] + report["out_of_order"]
        say(f"  {rate:,} publications/s: {report['deliveries_per_s']:,.0f} deliveries/s, p99 {p99:.1f} ms, {failed} failed")
        # A quick run judges no time.
        if failed or (p99 >= P99_MS_MAX and not bench.quick):
            break
        best = {"per_s": report["deliveries_per_s"], "p99": p99}
    return best
