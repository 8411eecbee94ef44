"""The faults, in Docker and with local processes."""

import json
import os
import signal
import subprocess

from . import cluster
from .cluster import ROOT, STATE, read_state


class Skipped(Exception):
    """This machine cannot make the fault; says why."""


class Failed(Exception):
    """A step of the fault did not work."""


def run(*command, timeout_s=60, check=True):
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, cwd=ROOT)
    if check and done.returncode != 0:
        raise Failed(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()


def current():
    """The engine of the cluster that runs, or None."""
    return {"docker": Docker, "local": Local}.get(read_state("mode"), lambda: None)()


class Engine:
    """What both have: each action is told before it begins, to whoever set `say`."""

    def __init__(self):
        self.say = lambda words: None

    def act(self, *command):
        self.say(" ".join(command))
        return run(*command)


class Docker(Engine):
    """Containers, by the commands that a person would type."""

    name = "docker"

    def balancer_itself(self):
        """The balancer's own address. The proxy behind a published port spends six descriptors on each connection."""
        address = run("docker", "inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "flux-tcp-lb")
        return f"ws://{address}:8080/connection/websocket"

    def kill(self, node):
        self.act("docker", "kill", f"flux-{node}")

    def stop(self, node):
        """`docker stop` in the background: it returns when the node has left."""
        command = ["docker", "stop", f"flux-{node}"]
        self.say(" ".join(command))
        self.stopping = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def terminate(self, node):
        self.act("docker", "exec", f"flux-{node}", "kill", "-TERM", "1")

    def start(self, node):
        self.act("docker", "start", f"flux-{node}")

    def runs(self, node):
        return run("docker", "inspect", "-f", "{{.State.Running}}", f"flux-{node}") == "true"

    def exit_code(self, node):
        """Of a node that has ended; None where it cannot be known."""
        return int(run("docker", "inspect", "-f", "{{.State.ExitCode}}", f"flux-{node}"))

    def prepare_cut(self, node):
        pass

    def cut(self, node):
        self.act("docker", "network", "disconnect", "flux-network", f"flux-{node}")

    def heal(self, node):
        self.act("docker", "network", "connect", "flux-network", f"flux-{node}")

    def after_cut(self, node):
        pass

    def registry(self, *command):
        return run("docker", "exec", "flux-registry", "redis-cli", *command)

    def stop_registry(self):
        self.act("docker", "kill", "flux-registry")

    def start_registry(self):
        self.act("docker", "start", "flux-registry")

    def flush_registry(self):
        self.act("docker", "exec", "flux-registry", "redis-cli", "FLUSHALL")

    def log(self, node):
        done = subprocess.run(
            ["docker", "logs", "--tail", "200", f"flux-{node}"], capture_output=True, text=True, timeout=20
        )
        return done.stdout + done.stderr

    def start_twin(self, node):
        """A second process with the node's id, on addresses of its own."""
        number = node.rsplit("-", 1)[1]
        self.say(f"docker run ... flux-gateway --id {node}  (a second one)")
        run("docker", "rm", "-f", f"flux-{node}-twin", check=False)
        limits = run("docker", "inspect", "-f", "{{json .HostConfig.Ulimits}}", f"flux-{node}")
        ulimits = []
        for limit in json.loads(limits) or []:
            ulimits += ["--ulimit", f"{limit['Name']}={limit['Soft']}:{limit['Hard']}"]
        run(
            "docker", "run", "-d", "--name", f"flux-{node}-twin", "--network", "flux-network",
            "--label", "com.docker.compose.project=flux",
            "--security-opt", f"seccomp={ROOT}/docker/seccomp.json", "--cap-drop", "ALL", "--read-only",
            "--cpus", "1", "--memory", "512m", *ulimits, "flux:local",
            "flux-gateway", "--config", "/etc/flux/demo.toml", "--allow-anonymous",
            "--redis", "redis://flux-registry:6379", "--id", node,
            "--listen", f"0.0.0.0:800{number}", "--admin", f"0.0.0.0:810{number}",
        )  # fmt: skip

    def stop_twin(self, node):
        run("docker", "rm", "-f", f"flux-{node}-twin", check=False)


class Local(Engine):
    """Processes by the pid that start.sh left in .flux/."""

    name = "local"

    def balancer_itself(self):
        return cluster.CLIENTS

    def pid(self, node):
        return int(read_state(f"{node}.pid") or 0)

    def shell(self, script):
        """A function of scripts/lib/common.sh, the way start.sh calls it."""
        return run("bash", "-c", f'set -euo pipefail; . "{ROOT}/scripts/lib/common.sh"; {script}')

    def signal(self, node, number):
        if not self.runs(node):
            raise Failed(f"{node} does not run")
        self.say(f"kill -{signal.Signals(number).name[3:]} {self.pid(node)}  ({node})")
        os.kill(self.pid(node), number)

    def kill(self, node):
        self.signal(node, signal.SIGKILL)

    def stop(self, node):
        self.signal(node, signal.SIGTERM)

    terminate = stop

    def start(self, node):
        self.say(f"flux-gateway --id {node} ...")
        self.shell(f"launch_gateway {node.rsplit('-', 1)[1]}")

    def runs(self, node):
        return self.shell(f"process_lives {node} && echo yes || echo no") == "yes"

    def exit_code(self, node):
        return None

    # The partition: the node moves into a network namespace, whose link is then taken down.
    NAMESPACE = "flux-partition"
    LINK, PEER = "flux-cut0", "flux-cut1"
    NETWORK, HERE, THERE = "10.231.77.0/30", "10.231.77.1", "10.231.77.2"

    def prepare_cut(self, node):
        if os.geteuid() != 0 or subprocess.run(["ip", "netns", "add", self.NAMESPACE], capture_output=True).returncode:
            raise Skipped("a partition of local processes needs a network namespace (root and iproute2)")
        with open(os.path.join(STATE, "netns"), "w", encoding="utf-8") as file:
            file.write(self.NAMESPACE)
        for command in [
            f"ip link add {self.LINK} type veth peer name {self.PEER} netns {self.NAMESPACE}",
            f"ip addr add {self.HERE}/30 dev {self.LINK}",
            f"ip link set {self.LINK} up",
            f"ip -n {self.NAMESPACE} addr add {self.THERE}/30 dev {self.PEER}",
            f"ip -n {self.NAMESPACE} link set {self.PEER} up",
            f"ip -n {self.NAMESPACE} link set lo up",
            # Nothing meant for the node may leave this machine while its link is down.
            f"ip route add blackhole {self.NETWORK} metric 9999",
        ]:
            run(*command.split())
        self.registry("CONFIG", "SET", "bind", f"127.0.0.1 {self.HERE}")
        self.registry("CONFIG", "SET", "protected-mode", "no")
        self.leave(node)
        number = node.rsplit("-", 1)[1]
        self.shell(
            f'launch {node} ip netns exec {self.NAMESPACE} "$(binary flux-gateway)"'
            f' --config "$ROOT/scripts/demo.toml" --allow-anonymous --id {node}'
            f" --listen {self.THERE}:800{number} --admin {self.THERE}:810{number}"
            f' --redis "redis://{self.HERE}:$REGISTRY_PORT"'
        )

    def cut(self, node):
        self.act("ip", "-n", self.NAMESPACE, "link", "set", self.PEER, "down")

    def heal(self, node):
        self.act("ip", "-n", self.NAMESPACE, "link", "set", self.PEER, "up")

    def after_cut(self, node):
        """Back to where start.sh had put it."""
        if read_state("netns") is None:
            return
        self.leave(node)
        run("ip", "netns", "del", self.NAMESPACE, check=False)
        run("ip", "link", "del", self.LINK, check=False)
        run("ip", "route", "del", "blackhole", self.NETWORK, check=False)
        self.registry("CONFIG", "SET", "bind", "127.0.0.1")
        self.start(node)
        os.remove(os.path.join(STATE, "netns"))

    def leave(self, node):
        """Ends a node with a shortened drain."""
        if self.runs(node):
            self.signal(node, signal.SIGTERM)
            cluster.wait_for(1, lambda: False)
            if self.runs(node):
                self.signal(node, signal.SIGTERM)
        if not cluster.wait_for(20, lambda: not self.runs(node)):
            self.kill(node)
            cluster.wait_for(5, lambda: not self.runs(node))

    def registry(self, *command):
        return run("redis-cli", "-p", "6390", *command)

    def stop_registry(self):
        self.signal("registry", signal.SIGKILL)

    def start_registry(self):
        self.say("redis-server ...")
        self.shell("launch_registry")

    def flush_registry(self):
        self.act("redis-cli", "-p", "6390", "FLUSHALL")

    def log(self, node):
        with open(os.path.join(STATE, f"{node}.log"), encoding="utf-8", errors="replace") as file:
            return file.read()[-20000:]

    def start_twin(self, node):
        self.say(f"flux-gateway --id {node} ...  (a second one)")
        self.shell(
            f'launch {node}-twin "$(binary flux-gateway)" --config "$ROOT/scripts/demo.toml" --id {node}'
            f' --listen 127.0.0.1:8009 --admin 127.0.0.1:8109 --redis "redis://127.0.0.1:$REGISTRY_PORT"'
        )

    def stop_twin(self, node):
        self.leave(f"{node}-twin")
