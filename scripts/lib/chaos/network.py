"""A network of its own for three nodes: each in a network namespace with one address, joined by a bridge in the namespace of the
script, cut by nft. There is no way out of it. Needs root, or user namespaces."""

import os
import subprocess
import time

CLIENTS = 254
TABLE = """
table inet chaos {
    set from { type ipv4_addr; }
    chain input { type filter hook input priority 0; ip saddr @from drop; }
}
"""


def host(id):
    return f"10.66.0.{id}"


def enter(argv):
    """Runs this script again in namespaces of its own; all its processes end with it."""
    flags = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid() != 0:
        flags.append("--map-root-user")
    os.environ["CHAOS_INSIDE"] = "1"
    os.execvp("unshare", ["unshare", *flags, "--", *argv])


def inside():
    return os.environ.get("CHAOS_INSIDE") == "1"


def sh(*command, **more):
    subprocess.run(command, check=True, **more)


class Network:
    def __init__(self, ids):
        self.holders = {}
        sh("ip", "link", "set", "lo", "up")
        sh("ip", "link", "add", "br0", "type", "bridge")
        sh("ip", "addr", "add", host(CLIENTS) + "/24", "dev", "br0")
        sh("ip", "link", "set", "br0", "up")
        self.nft(CLIENTS, TABLE)
        for id in ids:
            self.add(id)

    def add(self, id):
        own = os.readlink("/proc/self/ns/net")
        holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        while os.readlink(f"/proc/{holder.pid}/ns/net") == own:
            time.sleep(0.002)
        self.holders[id] = holder
        sh("ip", "link", "add", f"node{id}", "type", "veth", "peer", "name", "eth0", "netns", str(holder.pid))
        sh("ip", "link", "set", f"node{id}", "master", "br0", "up")
        sh(*self.prefix(id), "ip", "addr", "add", host(id) + "/24", "dev", "eth0")
        sh(*self.prefix(id), "ip", "link", "set", "eth0", "up")
        sh(*self.prefix(id), "ip", "link", "set", "lo", "up")
        self.nft(id, TABLE)

    def prefix(self, id):
        """A command that runs another one where this node is; clients are in the namespace of the script."""
        return [] if id == CLIENTS else ["nsenter", f"--net=/proc/{self.holders[id].pid}/ns/net"]

    def nft(self, id, text):
        sh(*self.prefix(id), "nft", "-f", "-", input=text, text=True)

    def cut(self, source, target):
        """Packets from one node (or CLIENTS) no longer reach another."""
        self.nft(target, f"add element inet chaos from {{ {host(source)} }}")

    def cut_both(self, one, other):
        self.cut(one, other)
        self.cut(other, one)

    def heal(self):
        for id in (CLIENTS, *self.holders):
            self.nft(id, "flush set inet chaos from")
