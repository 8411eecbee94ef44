"""One function a case: starts the servers, measures in rounds, returns the rows."""

import os
import subprocess
import time

from .peers import bun_binary
from .rounds import PEERS, START_S_MAX, Failed, free_port, needs, required

NGINX_MODULES = ["/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/share/nginx/modules"]
OUR_DOOR = "/connection/websocket"


def echo(bench):
    """In a closed loop the slower of server and load generator is the limit. At a rate that neither notices
    it is what the same work costs."""
    servers = {"ours": (*bench.gateway(bench.server_core, "--echo"), "/echo"), "bun": (*bun(bench, "bun-echo.js"), "/")}

    def measure(port, process, path, connections, rate):
        report = bench.load("echo", f"ws://127.0.0.1:{port}{path}", "--connections", connections, "--size", 20,
                            "--duration", bench.seconds, "--server-pid", process.pid, *(["--rate", rate] if rate else []))
        return required(report, "messages_per_cpu_s")

    loads = [(100, None)] if bench.quick else [(1, None), (100, None), (1000, None), (100, 50_000), (1000, 50_000)]
    return [
        bench.row(f"n={connections}" + (f" at {rate:,}/s" if rate else ""), "msgs/cpu-s",
                  {who: (lambda server=server: measure(*server, connections, rate)) for who, server in servers.items()})
        for connections, rate in loads
    ]


def fanout(bench):
    rows = []
    for rate in [100] if bench.quick else [10, 100, 1000, 4000]:
        def measure(port, process, path, rate=rate):
            report = bench.load("fanout", f"ws://127.0.0.1:{port}{path}", "--subscribers", 100 if bench.quick else 1000,
                                "--rate", rate, "--size", 100, "--duration", bench.seconds, "--server-pid", process.pid)
            return {"per_cpu": required(report, "deliveries_per_cpu_s"), "p99": report["latency"]["p99_us"] / 1000}

        # Fresh servers for each rate: what a saturated one still has queued is not the next one's business.
        try:
            with bench.running():
                servers = {"ours": (*bench.gateway(bench.server_core), OUR_DOOR), "bun": (*bun(bench, "bun-centrifuge.js"), "/")}
                rows += bench.rows([(f"rate={rate}", "deliveries/cpu-s", "per_cpu", False), (f"rate={rate} p99", "ms", "p99", True)],
                                   {who: (lambda server=server: measure(*server)) for who, server in servers.items()})
        except Failed as why:
            bench.failures.append(f"fanout rate={rate}: {why}")
    if not rows:
        raise Failed("no rate could be measured")
    return rows


def idle(bench):
    connections = 500 if bench.quick else 10_000

    def measure(start):
        with bench.running():
            port, process, path = start()
            report = bench.load("idle", f"ws://127.0.0.1:{port}{path}", "--connections", connections, "--channel", "idle",
                                "--hold", 1 if bench.quick else 3, "--server-pid", process.pid)
        return required(report, "resident_per_connection")

    return [bench.row(f"n={connections}", "bytes/conn", {
        "ours": lambda: measure(lambda: (*bench.gateway(bench.server_core), OUR_DOOR)),
        "bun": lambda: measure(lambda: (*bun(bench, "bun-centrifuge.js"), "/")),
    }, less_is_better=True)]


def connect(bench):
    """New connections at an even rate: TCP, upgrade, and the close that follows."""
    rate = 500 if bench.quick else 2_000
    servers = {"ours": (*bench.gateway(bench.server_core), OUR_DOOR), "bun": (*bun(bench, "bun-centrifuge.js"), "/")}

    def measure(port, process, path):
        report = bench.load("probe-connect", f"ws://127.0.0.1:{port}{path}", "--count", rate * bench.seconds, "--rate", rate,
                            "--server-pid", process.pid)
        return {"per_cpu": required(report, "handshakes_per_cpu_s"), "p99": report["handshake"]["p99_us"] / 1000}

    return bench.rows([(f"rate={rate}", "handshakes/cpu-s", "per_cpu", False), (f"rate={rate} p99", "ms", "p99", True)],
                      {who: (lambda server=server: measure(*server)) for who, server in servers.items()})


def relay(bench):
    needs(("redis-server", "redis-server"), ("haproxy", "haproxy"), ("nginx", "nginx libnginx-mod-stream"))
    redis_port, _ = bench.redis(bench.load_core)
    redis_url = f"redis://127.0.0.1:{redis_port}"
    # The echo server behind all three is our gateway, on the load generator's core.
    upstream, _ = bench.gateway(bench.load_core, "--echo", "--id", "relay-1", "--redis", redis_url)
    port = free_port()
    balancers = {"ours": (port, bench.start(
        [bench.binary("flux-lb"), "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{free_port()}", "--redis", redis_url],
        port, bench.server_core, name="flux-lb"))}
    port = free_port()
    balancers["haproxy"] = (port, bench.start(
        ["haproxy", "-db", "-f", os.path.join(PEERS, "haproxy.cfg")], port, bench.server_core,
        {"LISTEN_PORT": str(port), "UPSTREAM_PORT": str(upstream)}, "haproxy"))
    port = free_port()
    balancers["nginx"] = (port, bench.start(
        ["nginx", "-p", bench.folder, "-c", nginx_configuration(bench, port, upstream)], port, bench.server_core, name="nginx"))
    for port, _ in balancers.values():
        until_upgraded(bench, port)

    def measure(port, process, connections):
        report = bench.load("relay", f"ws://127.0.0.1:{port}/echo", "--connections", connections, "--size", 20,
                            "--duration", bench.seconds, "--server-pid", process.pid)
        return required(report, "messages_per_cpu_s")

    return [
        bench.row(f"n={connections}", "round trips/cpu-s",
                  {who: (lambda balancer=balancer: measure(*balancer, connections)) for who, balancer in balancers.items()})
        for connections in ([100] if bench.quick else [100, 1000])
    ]


def bun(bench, script):
    port = free_port()
    command = [bun_binary(), os.path.join(PEERS, script)]
    return port, bench.start(command, port, bench.server_core, {"PORT": str(port)}, "bun")


def nginx_configuration(bench, port, upstream):
    modules = next((path for path in NGINX_MODULES if os.path.exists(f"{path}/ngx_stream_module.so")), None)
    if modules is None:
        raise Failed("nginx has no stream module: apt-get install libnginx-mod-stream")
    with open(os.path.join(PEERS, "nginx-stream.conf")) as template:
        text = template.read()
    for name, value in {"MODULES": modules, "LISTEN_PORT": port, "UPSTREAM_PORT": upstream}.items():
        text = text.replace(f"@{name}@", str(value))
    path = os.path.join(bench.folder, "nginx.conf")
    with open(path, "w") as out:
        out.write(text)
    return path


def until_upgraded(bench, port):
    """A balancer is ready when a WebSocket opens through it."""
    until = time.monotonic() + START_S_MAX
    while True:
        done = subprocess.run([bench.binary("flux-bench"), "probe-connect", f"ws://127.0.0.1:{port}/echo", "--count", "1", "--timeout", "2"],
                              capture_output=True, text=True, timeout=30, check=False)
        if done.returncode == 0:
            return
        if time.monotonic() > until:
            raise Failed(f"no WebSocket through the balancer on port {port}: {done.stdout.strip() or done.stderr.strip()}")
        time.sleep(0.2)
