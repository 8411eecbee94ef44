"""A network of the run's own, in which servers and load generator meet: a namespace with nothing but loopback.

The machine's firewall rules and its connection tracking (Docker brings both) then weigh on nobody, and sockets that
other programs have left behind are none of it. Its congestion control is Reno: some machines' default (BBR) sets
timers for every connection that cost as much as a small message, which says nothing of a server.
"""

import contextlib
import ctypes
import fcntl
import os
import socket
import struct

CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS, IFF_UP, NAME_LEN = 0x8914, 1, 16

# The machine's network and the run's, once there is one, and which of them this thread is in.
outer = inner = None
is_inside = False


def enter():
    """Whether the run has a network of its own from now on, for this thread and all that it starts."""
    global outer, inner, is_inside
    machine = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    if libc().unshare(CLONE_NEWNET) != 0:
        # Only root may.
        os.close(machine)
        return False
    outer, inner = machine, os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack(f"{NAME_LEN}sh22x", b"lo", IFF_UP))
    # In some containers settings are read-only; all servers have the same either way.
    with contextlib.suppress(OSError), open("/proc/sys/net/ipv4/tcp_congestion_control", "w") as setting:
        setting.write("reno")
    is_inside = True
    return True


@contextlib.contextmanager
def outside():
    """In the machine's own network meanwhile: what installs something, and Docker, need it."""
    if not is_inside:
        yield
        return
    move(outer)
    try:
        yield
    finally:
        move(inner)


def move(namespace):
    global is_inside
    if libc().setns(namespace, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
    is_inside = namespace == inner


def libc():
    return ctypes.CDLL(None, use_errno=True)
