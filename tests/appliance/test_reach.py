# SPDX-License-Identifier: GPL-2.0-or-later
"""What a VM's user sends from a booted host: a kernel of Debian's own, with its modules."""

from __future__ import annotations

import json

from tests.appliance.machine import Host
from tests.appliance.vm import defined

# As a user: which ways lead to a service of root's on the host. Prints "" for each that does.
_ATTACK = """
import json, os, socket, sys
uid, where = int(sys.argv[1]), ("127.0.0.1", 5432)
MPTCP, UDP_LITE, SCTP, FAST_OPEN = 262, 136, 132, 0x20000000
ECHO = bytes([8, 0, 0, 0, 0, 1, 0, 1])
servers = [socket.socket(proto=protocol) for protocol in (0, SCTP)]
for server in servers:
    server.bind(where)
    server.listen()
def connected(protocol=0):
    with socket.socket(proto=protocol) as client:
        client.settimeout(2)
        client.connect(where)
def fast_opened():
    with socket.socket() as client:
        client.sendto(b"x", FAST_OPEN, where)
def sent(protocol=0, content=b"x"):
    with socket.socket(type=socket.SOCK_DGRAM, proto=protocol) as client:
        client.sendto(content, where)
ways = {
    "tcp": connected,
    "mptcp": lambda: connected(MPTCP),
    "fast open": fast_opened,
    "udp": sent,
    "udp-lite": lambda: sent(UDP_LITE),
    "ping": lambda: sent(socket.IPPROTO_ICMP, ECHO),
    "sctp": lambda: connected(SCTP),
}
found = {}
for name, way in ways.items():
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        try:
            way()
        except OSError as error:
            os.write(writer, str(error).encode())
        os._exit(0)
    os.close(writer)
    found[name] = os.fdopen(reader).read()
print(json.dumps(found))
"""
_NOBODY = 65534


def test_a_vms_user_sends_nothing_from_the_host(guarded: Host) -> None:
    vm = defined(guarded, "web01").start()
    guarded.run("sysctl -w net.ipv4.ping_group_range='0 2147483647'")
    guarded.put("/root/attack.py", _ATTACK)

    def got_through(uid: int) -> list[str]:
        found = json.loads(guarded.run(f"python3 /root/attack.py {uid}").stdout)
        return [way for way, error in found.items() if not error]

    assert len(got_through(_NOBODY)) == 7
    assert got_through(vm.status()["uid"]) == []
