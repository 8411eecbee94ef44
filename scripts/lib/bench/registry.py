"""Records of nodes that a test writes into its own Redis: what the gateways' registry holds, without gateways."""

import json
import socket
import time

from .rounds import Failed

# The longest lease that readers accept (registry-client/src/limits.rs): no heartbeat is needed meanwhile.
LEASE_MS = 3_600_000


def write_nodes(redis_port, prefix, nodes):
    """`nodes`: id -> (address for clients, address of the admin pages or none: it is not probed then). All are ready
    and weigh the same."""
    now_ms = int(time.time() * 1000)
    commands = []
    for node_id, (address, admin) in nodes.items():
        record = {"v": 1, "id": node_id, "generation": now_ms, "nonce": "bench", "state": "ready", "addr": address,
                  "seq": 1, "ttl_ms": LEASE_MS, **({"admin": admin} if admin else {})}
        commands.append(("HSET", f"{prefix}:nodes", node_id, json.dumps(record)))
        commands.append(("ZADD", f"{prefix}:deadlines", str(now_ms + LEASE_MS), node_id))
    send(redis_port, commands)


def send(redis_port, commands):
    """Commands to Redis in one go; every answer has to be a number or OK."""
    wire = b"".join(
        b"*%d\r\n" % len(command) + b"".join(b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()) for word in command)
        for command in commands)
    with socket.create_connection(("127.0.0.1", redis_port), 5) as connection, connection.makefile("rb") as answers:
        connection.sendall(wire)
        for command in commands:
            answer = answers.readline()
            if not answer.startswith((b":", b"+OK")):
                raise Failed(f"Redis answered {command[0]} with {answer!r}")
