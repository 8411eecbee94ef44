"""Programs that a benchmark starts and stops, and the figures of its rounds."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time

from . import network

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
PEERS = os.path.join(ROOT, "scripts", "peers")
CACHE = os.path.join(ROOT, ".flux", "bench")
START_S_MAX = 20
STOP_S_MAX = 10
STEP_S_MAX = 180
# Share of a core that other programs may use before a figure is remarked upon.
OTHERS_MAX = 0.15
# Less than this of what was due within the measured time: the server does not keep the rate.
KEPT_MIN = 0.9


class Failed(Exception):
    """One line for the user."""


class Missing(Failed):
    """A program that is no part of ours cannot be had here: what needs it is skipped, with this reason."""


class Behind(Exception):
    """A server did not keep the rate that was asked for: its cell says so, and the row goes on."""


# What stands in the cell of a server without a figure.
BEHIND, LIMITED, BROKEN = "could not keep up", "load generator at its limit", "failed"


def say(text):
    print(text, file=sys.stderr, flush=True)


def run(command, **options):
    """What a command says that builds, fetches or asks something, in the machine's own network."""
    with network.outside():
        done = subprocess.run(command, text=True, capture_output=True, timeout=3600, check=False, **options)
    if done.returncode != 0:
        tail = (done.stderr or done.stdout).strip().splitlines()[-5:]
        raise Failed(f"`{' '.join(command)}` failed ({done.returncode}): " + " | ".join(tail))
    return done.stdout


def target():
    return os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def needs(*programs):
    """Programs of the system, each a name and the packages that have it; what is missing is installed
    where apt-get can do that unasked."""
    missing = [(program, packages) for program, packages in programs if shutil.which(program) is None]
    if missing:
        install(*(package for _, each in missing for package in each.split()))
    for program, packages in missing:
        if shutil.which(program) is None:
            raise Missing(f"{program} is missing: apt-get install {packages}")


def install(*packages):
    """Asks apt-get for them, where there is one that can be asked; whether they came is for the caller to see."""
    if shutil.which("apt-get") is None:
        return
    say("installing " + " ".join(packages) + " (apt-get)")
    apt = [*([] if os.geteuid() == 0 else ["sudo", "-n"]), "apt-get"]
    if not run_quietly(*apt, "install", "-y", "-q", *packages):
        run_quietly(*apt, "update", "-q")
        run_quietly(*apt, "install", "-y", "-q", *packages)


def run_quietly(*command):
    """Whether the command has done it."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with network.outside(), contextlib.suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run(command, env=environment, capture_output=True, timeout=600, check=False).returncode == 0
    return False


class Bench:
    """One run of `scripts/bench`: which cores, how many rounds, what is running.

    `folder` is for logs and files and goes with the run, as everything does that was started.
    """

    def __init__(self, options, folder):
        cores = sorted(os.sched_getaffinity(0))
        self.server_core, self.load_core = cores[0], cores[1 if len(cores) > 1 else 0]
        if len(cores) < 2:
            say("only one core: server and load generator share it, the figures compare but say little")
        self.quick = options.quick
        self.rounds = options.rounds or (1 if options.quick else 5)
        # For figures that scatter by little: memory, and what is compared with itself.
        self.few_rounds = min(self.rounds, 3)
        # Of a measured window, and before it. All cases together have 40 minutes.
        self.seconds = 1 if options.quick else 1.2 if options.case == "compare" else 4
        self.warmup = 0.3 if options.quick else 0.7
        self.ours = options.ours
        self.connections = options.connections
        self.folder = folder
        self.stack = contextlib.ExitStack()
        self.remarks = set()
        # Cases that could not run, those for want of programs that are not ours, and how many ran.
        self.failures, self.skipped, self.passed = [], [], 0
        # Whether the load generator was the limit since this was last looked at.
        self.load_limited = False

    # -- programs ---------------------------------------------------------------------------

    @contextlib.contextmanager
    def running(self):
        """What is started inside is stopped at its end."""
        outer, self.stack = self.stack, contextlib.ExitStack()
        try:
            yield
        finally:
            inner, self.stack = self.stack, outer
            inner.close()

    def build(self):
        """Ours, always all of it: what is chosen decides the features of the crates that are shared, and
        another choice would build them again. With `--ours` the load generator alone."""
        names = ["flux-bench", *([] if self.ours else ["flux-gateway", "flux-lb"])]
        say("building " + ", ".join(names) + " (release)")
        run(["cargo", "build", "--release", "--quiet", *(argument for name in names for argument in ("-p", name))], cwd=ROOT)

    def binary(self, name):
        return os.path.join(target(), "release", name)

    def start(self, command, port, core, env=None, name="server"):
        """Starts a program on one core and waits until it accepts connections."""
        log_path = os.path.join(self.folder, f"{name}-{port}.log")
        with open(log_path, "w") as log:
            process = subprocess.Popen(
                ["taskset", "-c", str(core), *command],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder,
                env={**os.environ, **(env or {})})
        self.stack.callback(stop, process)
        until = time.monotonic() + START_S_MAX
        while True:
            if process.poll() is not None or time.monotonic() > until:
                with open(log_path) as log:
                    raise Failed(f"{name} did not start: " + log.read().strip()[-500:])
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return process
            time.sleep(0.05)

    def load(self, *arguments, shared=False, incomplete_is_news=True, core=None):
        """One run of flux-bench on the load core, if no other: its report. `shared`: what stands behind the server
        has that core too, so that what other programs use says nothing."""
        done = subprocess.run(
            ["taskset", "-c", str(self.load_core if core is None else core), self.binary("flux-bench"), *map(str, arguments), "--json"],
            text=True, capture_output=True, timeout=STEP_S_MAX, check=False)
        lines = done.stdout.strip().splitlines()
        if not lines:
            raise Failed(f"flux-bench {arguments[0]}: " + done.stderr.strip()[-500:])
        report = json.loads(lines[-1])
        if done.returncode != 0 and incomplete_is_news:
            self.remarks.add(f"flux-bench {' '.join(map(str, arguments))} was not complete: {done.stderr.strip() or 'see its report'}")
        cpu = report.get("cpu", {})
        self.load_limited |= cpu.get("load_limited", False)
        if cpu.get("other_cores", 0) > OTHERS_MAX and not shared and report["scenario"] != "relay":
            self.remarks.add("other programs used more than 15 % of a core in some rounds: run again on a quiet machine")
        return report

    def gateway(self, core, *more, config="ours.toml", shards=1):
        """A node on one core with one shard, if not more: its port for clients and the process."""
        port = free_port()
        if self.ours:
            command = [part.format(port=port) for part in shlex.split(self.ours)]
        else:
            if "--admin" not in more:
                more = (*more, "--admin", f"127.0.0.1:{free_port()}")
            command = [self.binary("flux-gateway"), "--listen", f"127.0.0.1:{port}",
                       "--config", os.path.join(PEERS, config), "--shards", str(shards), *more]
        return port, self.start(command, port, core, name="flux-gateway", env={"FLUX_LOG": "info"})

    def redis(self, core):
        """A Redis that keeps nothing on disk: its port and the process."""
        port = free_port()
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        return port, self.start(command, port, core, name="redis")

    def count(self, rate):
        """How many of something come in a measured window."""
        return round(rate * self.seconds)

    # -- figures ----------------------------------------------------------------------------

    def row(self, name, unit, measures, less_is_better=False, rounds=None, at_least=False):
        """`measures`: name -> function that measures once. Interleaved rounds, medians, ratio."""
        return self.rows([(name, unit, None, less_is_better)], measures, rounds, at_least)[0]

    def rows(self, kinds, measures, rounds=None, at_least=False):
        """Several figures of the same rounds: `kinds` is (name, unit, key, less_is_better). A peer that fails, and
        any server that does not keep the rate in most rounds, has a word in its cell instead of a figure.
        `at_least`: the figure is what was reached, so that a load generator at its limit makes it too low."""
        values = {kind[0]: {who: [] for who in measures} for kind in kinds}
        limited = {who: 0 for who in measures}
        misses = {who: [] for who in measures}
        rounds = rounds or self.rounds
        for number in range(rounds):
            said = []
            for who, measure in measures.items():
                # Twice in vain and never a figure: the rest would be in vain as well.
                if len(misses[who]) >= 2 and not values[kinds[0][0]][who]:
                    continue
                self.load_limited = False
                try:
                    measured = measure()
                except Behind as why:
                    misses[who].append(LIMITED if self.load_limited else BEHIND)
                    said.append(f"{who}: {misses[who][-1]}, {why}")
                    continue
                except Failed as why:
                    if who == "ours":
                        raise
                    misses[who].append(BROKEN)
                    if isinstance(why, Missing) and f"{who}: {why}" not in self.skipped:
                        self.skipped.append(f"{who}: {why}")
                    self.remarks.add(f"{kinds[0][0]}, {who}: {why}")
                    continue
                limited[who] += self.load_limited
                for name, _, key, _ in kinds:
                    values[name][who].append(measured[key] if key else measured)
                    said.append(f"{name} {who} {shown(values[name][who][-1])}")
            say(f"  round {number + 1} of {rounds}: " + ", ".join(said))
        words = {who: missed[-1] for who, missed in misses.items() if 2 * len(missed) > rounds or not values[kinds[0][0]][who]}
        rows = [finished(name, unit, less, values[name], words) for name, unit, _, less in kinds]
        # A median of rounds of which most were cut short by the load generator says nothing of the server.
        stopped = [who for who, count in limited.items() if 2 * count > rounds]
        for row in rows:
            row["rounds"] = rounds
            row["load_limited"] = stopped
            # Where only ours could have had more, the ratio is a lower bound.
            row["at_least"] = at_least and stopped == ["ours"] and row["ratio"] is not None
            if stopped and not row["at_least"]:
                row["ratio"] = None
        return rows


def finished(name, unit, less_is_better, values, words=None):
    """The row of a figure: `values` are those of each round, by who was measured; `words` what stands in place
    of a figure."""
    words = words or {}
    medians = {who: None if who in words else statistics.median(each) for who, each in values.items()}
    ours = medians.pop("ours")
    peers = {who: value for who, value in medians.items() if value is not None}
    ratio = None
    if peers and ours:
        best = (min if less_is_better else max)(peers, key=peers.get)
        ratio = paired(values["ours"], values[best], less_is_better)
    return {"name": name, "unit": unit, "ours": None if ours is None else rounded(ours),
            "peers": {who: rounded(value) for who, value in peers.items()}, "words": words,
            "ratio": None if ratio is None else round(ratio, 3), "rounds": max(map(len, values.values())),
            "values": {who: [rounded(value) for value in each] for who, each in values.items()}}


def paired(ours, peer, less_is_better):
    """The median of the rounds' ratios, above 1 is better for us. What a machine that others share does in one round
    and not in the next falls upon both. Where a round was missed by one of them: the ratio of the medians."""
    if len(ours) != len(peer) or 0 in (*ours, *peer):
        ours, peer = [statistics.median(ours)], [statistics.median(peer)]
    return statistics.median(theirs / mine if less_is_better else mine / theirs for mine, theirs in zip(ours, peer, strict=True))


def rounded(value):
    """To what a median of a few rounds is good for."""
    return round(value, 1 if abs(value) >= 100 else 3)


def shown(value):
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.1f}" if abs(value) >= 100 else f"{value:,.2f}"


def table(case, rows):
    rounds = rows[0]["rounds"]
    print(f"\n{case} ({f'medians of {rounds} rounds' if rounds > 1 else 'one round, which judges nothing'})")
    for row in rows:
        cells = "   ".join(f"{who} {cell(row, who):>12}" for who in columns([row]))
        print(f"  {row['name']:<22} {row['unit']:<18} {cells}   {verdict(row)}")


def columns(rows):
    """Who was measured, ours first."""
    return list(dict.fromkeys(["ours", *(who for row in rows for who in (*row["peers"], *row.get("words", {})))]))


def cell(row, who):
    """A figure, a word in its place, or nothing: not measured."""
    figure = row["ours"] if who == "ours" else row["peers"].get(who)
    return row.get("words", {}).get(who, "") if figure is None else shown(figure)


def verdict(row):
    """The ratio, or why there is none."""
    if row.get("at_least"):
        return f"at least {row['ratio']:.2f} x: the load generator was above 90 % of its core with ours"
    if row.get("load_limited"):
        return f"no conclusion: the load generator was above 90 % of its core ({', '.join(row['load_limited'])})"
    return "-" if row["ratio"] is None else f"{row['ratio']:.2f} x"


def stop(process):
    """Ends a program that this script started, by its pid; a drain is not waited for."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
    if process.poll() is None:
        process.kill()
        process.wait(STOP_S_MAX)


def required(report, key):
    value = report.get(key)
    if value is None:
        raise Failed(f"the server used too little CPU to measure `{key}`: {json.dumps(report)}")
    return value


def cpu_s(pid):
    """CPU time of a process so far, user and system, all threads, in seconds."""
    try:
        # The id of another process's CPU clock, as clock_getcpuclockid(3) makes it.
        return time.clock_gettime(~pid << 3 | 2)
    except OSError as error:
        raise Failed(f"process {pid} is gone: {error}") from error
