"""HTTP on the client port: the gateway's page `/`, against nginx's fixed answer with the same body."""

import os
import urllib.request

from .rounds import KEPT_MIN, PEERS, Behind, free_port, needs, required

# Requests a second: at half of what the servers reach the load generator has room as well.
RATE = 80_000


def http(bench):
    needs(("nginx", "nginx"))
    port, process = bench.gateway(bench.server_core)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
        body = answer.read().decode()
    servers = {"ours": (port, process), "nginx": nginx(bench, body)}

    def measure(port, process, connections):
        report = bench.load("http", f"http://127.0.0.1:{port}/", "--connections", connections, "--rate", RATE,
                            "--warmup", bench.warmup, "--duration", bench.seconds, "--server-pid", process.pid)
        if not bench.quick and report["requests_per_s"] < KEPT_MIN * RATE:
            raise Behind(f"{report['requests_per_s']:,.0f} of {RATE:,} requests a second were answered")
        return required(report, "requests_per_cpu_s")

    return [
        bench.row(f"/ n={connections} at {RATE:,}/s", "requests/cpu-s",
                  {who: (lambda server=server: measure(*server, connections)) for who, server in servers.items()})
        for connections in ([100] if bench.quick else [100, 1000])
    ]


def nginx(bench, body):
    port = free_port()
    with open(os.path.join(PEERS, "nginx-http.conf")) as template:
        text = template.read()
    for name, value in {"LISTEN_PORT": str(port), "BODY": body.replace("\n", "\\n")}.items():
        text = text.replace(f"@{name}@", value)
    path = os.path.join(bench.folder, "nginx-http.conf")
    with open(path, "w") as out:
        out.write(text)
    return port, bench.start(["nginx", "-p", bench.folder, "-c", path], port, bench.server_core, name="nginx")
