"""The way of a publication through Redis: two nodes, one Redis, a channel with history.

Against Redis's own, with the very command that the gateway sends, taken from MONITOR: throughput
against redis-benchmark, per second of Redis's CPU time and with the same pipelining; latency
against one connection that sends it and one that is subscribed, no gateway in between.
"""

import contextlib
import json
import os
import re
import socket
import subprocess
import threading
import time
import urllib.request

from .rounds import START_S_MAX, STEP_S_MAX, Failed, cpu_s, finished, free_port, needs

# Bytes of a publication's data.
SIZE = 100
# Publications a second at which latency is measured.
RATE = 5_000
# Publications a second that the nodes are driven to for throughput: with room to spare on a core that both
# share with the load generator, so that nothing is refused. The more there are, the more go at once.
HIGH_RATE = 30_000
PUBLISHERS = 8
# How long redis-benchmark's runs are to take, at about this many commands a second.
COMMANDS_A_SECOND = 40_000
# The nodes' batches: REDIS_PUBLISH_BATCH in gateway/src/limits.rs.
BATCH_MAX = 512
DEEPEST = f"redis-benchmark -P {BATCH_MAX}"


def publish(bench):
    needs(("redis-server", "redis-server"), ("redis-benchmark", "redis-tools"))
    redis_port, redis = bench.redis(bench.server_core)
    from_url, to_url = (node(bench, number, redis_port) for number in (1, 2))
    command = recorded(bench, redis_port, from_url, to_url)
    rows = throughput(bench, redis_port, redis, from_url, to_url, command)
    return rows + latency(bench, redis_port, redis, from_url, to_url, command)


def node(bench, number, redis_port):
    """A node that has reached its Redis, on the load generator's core: its URL for clients."""
    admin = f"127.0.0.1:{free_port()}"
    port, _ = bench.gateway(bench.load_core, "--id", f"publish-{number}", "--redis", f"redis://127.0.0.1:{redis_port}",
                            "--admin", admin, config="publish.toml")
    until = time.monotonic() + START_S_MAX
    while True:
        with contextlib.suppress(OSError, ValueError), urllib.request.urlopen(f"http://{admin}/ready", timeout=2) as answer:
            if not json.load(answer)["degraded"]:
                return f"ws://127.0.0.1:{port}/connection/websocket"
        if time.monotonic() > until:
            raise Failed(f"node {number} has not reached its Redis: http://{admin}/ready")
        time.sleep(0.1)


# -- the command --------------------------------------------------------------------------


class Command:
    """What the gateway sends to Redis for one publication."""

    def __init__(self, arguments):
        self.arguments = arguments
        at = [number for number, argument in enumerate(arguments) if b".client." in argument]
        if arguments[0] != b"EVALSHA" or not at:
            raise Failed(f"this is not how a publication is published: {arguments!r:.200}")
        self.channel = arguments[at[0]].decode()

    def wire(self):
        """As it goes over the wire."""
        parts = [b"*%d\r\n" % len(self.arguments)]
        parts += [b"$%d\r\n%s\r\n" % (len(argument), argument) for argument in self.arguments]
        return b"".join(parts)

    def words(self):
        """For a command line, which carries no zero bytes: in the record's binary head, others stand for
        them. To Redis that head is bytes like any."""
        return [argument.replace(b"\0", b"\x01") for argument in self.arguments]


def recorded(bench, redis_port, from_url, to_url):
    """The command, as Redis has received it during a few publications."""
    with socket.create_connection(("127.0.0.1", redis_port), 5) as monitor, monitor.makefile("rb") as lines:
        monitor.sendall(b"MONITOR\r\n")
        bench.load("fanout", to_url, "--publish-url", from_url, "--subscribers", 1, "--rate", 50, "--size", SIZE,
                   "--warmup", 0.1, "--duration", 0.5)
        monitor.settimeout(2)
        with contextlib.suppress(TimeoutError):
            for line in lines:
                words = [unescaped(word) for word in re.findall(rb'"((?:[^"\\]|\\.)*)"', line)]
                if b" lua]" not in line and words and any(b'"seq":"' in word for word in words):
                    return Command(words)
    raise Failed("MONITOR has shown no publication")


def unescaped(text):
    """A word of MONITOR's as it was."""
    names = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"a": b"\a", b"b": b"\b"}

    def one(match):
        code = match[1]
        return bytes([int(code[1:], 16)]) if code[:1] == b"x" and len(code) == 3 else names.get(code, code)

    return re.sub(rb"\\(x[0-9a-f]{2}|.)", one, text)


# -- throughput ---------------------------------------------------------------------------


def throughput(bench, redis_port, redis, from_url, to_url, command):
    """Publications per second of Redis's CPU time. redis-benchmark sends as many at once as Redis has read
    at once in the gateway's round before, and has one subscriber as the gateway's round has."""
    depth = 1
    rate = 3_000 if bench.quick else HIGH_RATE

    def ours():
        nonlocal depth
        watch = RedisWatch(redis_port, redis.pid)
        report = bench.load("fanout", to_url, "--publish-url", from_url, "--subscribers", 1, "--publishers", PUBLISHERS,
                            "--rate", rate, "--size", SIZE, "--duration", bench.seconds)
        found = watch.finish()
        if report["refused"]:
            bench.remarks.add(f"{report['refused']} publications were refused at {rate:,}/s")
        depth = max(1, round(found["depth"]))
        return found

    def peer(pipelining):
        with subscribed(redis_port, command.channel):
            watch = RedisWatch(redis_port, redis.pid)
            redis_benchmark(bench, redis_port, command, pipelining, bench.count(COMMANDS_A_SECOND))
            return watch.finish()

    kinds = [("throughput", "pubs/redis-cpu-s", "per_cpu", False), ("pipelining", "commands/read", "depth", False)]
    rows = bench.rows(kinds, {"ours": ours, "redis-benchmark": lambda: peer(depth), DEEPEST: lambda: peer(BATCH_MAX)})
    # More commands in a read are not better or worse: the row shows that they are the same.
    rows[1]["ratio"] = None
    same, most = rows[0]["peers"]["redis-benchmark"], rows[0]["peers"][DEEPEST]
    rows[0]["ratio"] = round(rows[0]["ours"] / same, 3)
    bench.remarks.add(f"throughput's ratio is to redis-benchmark with the same pipelining; to -P {BATCH_MAX} it is {rows[0]['ours'] / most:.2f} x")
    return rows


class RedisWatch:
    """What Redis does from now on: commands of publications, reads, CPU time."""

    def __init__(self, port, pid):
        self.port, self.pid = port, pid
        self.before = self.look()

    def look(self):
        info = redis_info(self.port)
        calls = re.search(r"calls=(\d+)", info.get("cmdstat_evalsha", "calls=0"))[1]
        return {"calls": int(calls), "reads": int(info["total_reads_processed"]), "cpu_s": cpu_s(self.pid)}

    def finish(self):
        now = self.look()
        calls, reads, cpu = (now[key] - self.before[key] for key in ("calls", "reads", "cpu_s"))
        if cpu < 0.02 or not reads:
            raise Failed(f"Redis has done too little to measure: {calls} calls in {cpu:.2f} s")
        return {"per_cpu": calls / cpu, "depth": calls / reads}


def redis_info(port):
    with socket.create_connection(("127.0.0.1", port), 5) as connection, connection.makefile("rb") as answer:
        connection.sendall(b"INFO ALL\r\n")
        text = answer.read(int(answer.readline()[1:])).decode()
    return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)


@contextlib.contextmanager
def subscribed(port, channel):
    """A subscriber that reads everything and looks at nothing."""
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        name = channel.encode()
        connection.sendall(b"*2\r\n$9\r\nSUBSCRIBE\r\n$%d\r\n%s\r\n" % (len(name), name))
        connection.recv(1024)
        connection.settimeout(None)
        reader = threading.Thread(target=drain, args=(connection,), daemon=True)
        reader.start()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            reader.join(5)


def drain(connection):
    with contextlib.suppress(OSError):
        while connection.recv(1 << 20):
            pass


def redis_benchmark(bench, port, command, pipelining, count):
    line = ["taskset", "-c", str(bench.load_core), "redis-benchmark", "-p", str(port), "-c", "1", "-n", str(count),
            "-P", str(pipelining), "-3", "--csv"]
    done = subprocess.run([*map(os.fsencode, line), *command.words()], capture_output=True, timeout=STEP_S_MAX, check=False)
    if done.returncode != 0 or b"rror" in done.stderr:
        raise Failed("redis-benchmark: " + (done.stderr or done.stdout).decode(errors="replace").strip()[-300:])


# -- latency ------------------------------------------------------------------------------


def latency(bench, redis_port, redis, from_url, to_url, command):
    path = os.path.join(bench.folder, "command")
    with open(path, "wb") as out:
        out.write(command.wire())
    window = ["--rate", 500 if bench.quick else RATE, "--size", SIZE, "--duration", bench.seconds, "--server-pid", redis.pid]

    def measured(*arguments):
        report = bench.load(*arguments, *window)
        return {key: report["latency"][f"{key}_us"] / 1000 for key in ("p50", "p99")}

    def ours():
        return measured("fanout", to_url, "--publish-url", from_url, "--subscribers", 1)

    def peer():
        return measured("redis-publish", "--address", f"127.0.0.1:{redis_port}", "--command", path, "--channel", command.channel)

    rate = window[1]
    kinds = [(f"{rate:,}/s {key}", "ms", key, True) for key in ("p50", "p99")]
    rows = bench.rows(kinds, {"ours": ours, "redis": peer})
    pairs = zip(rows[1]["values"]["ours"], rows[1]["values"]["redis"], strict=True)
    above = [mine - theirs for mine, theirs in pairs]
    return [*rows, finished(f"{rate:,}/s p99 above Redis's", "ms", True, {"ours": above})]
