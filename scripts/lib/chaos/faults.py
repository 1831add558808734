"""The faults, each a function of the world that breaks something and mends it again."""

import os
import shutil
import signal
from collections import namedtuple

import wire
from cluster import IDS
from chaos import segments
from chaos.load import GROUP
from chaos.network import CLIENTS
from chaos.world import PARTITIONS, TOPIC


def kill_leader(w):
    kill_and_start(w, w.leader())


def kill_follower(w):
    leader = w.leader()
    kill_and_start(w, w.rng.choice(w.others(leader)))


def kill_controller(w):
    kill_and_start(w, w.cluster.controller())


def kill_coordinator(w):
    kill_and_start(w, w.cluster.ask(lambda address: wire.coordinator(address, GROUP)))


def kill_and_start(w, id):
    w.kill(id)
    w.hold(0.2, 2, 4)
    w.start(id)


def kill_all(w):
    for id in w.rng.sample(IDS, 3):
        w.kill(id)
    w.start(*w.rng.sample(IDS, 3))


def pause(seconds):
    def fault(w):
        id = w.rng.choice(IDS)
        w.note(f"SIGSTOP of node {id} for {seconds} s")
        w.nodes[id].send(signal.SIGSTOP)
        w.sleep(seconds)
        w.nodes[id].send(signal.SIGCONT)
        w.healed()
    return fault


def isolate(w):
    """One node reaches no other; its clients reach it in every second case."""
    id, with_clients = w.rng.choice(IDS), w.rng.random() < 0.5
    w.note(f"node {id} is cut from the others" + " and from clients" * with_clients)
    for other in w.others(id) + [CLIENTS] * with_clients:
        w.network.cut_both(id, other)
    mend(w)


def one_way(w):
    """What one node sends to another does not arrive."""
    source, target = w.rng.sample(IDS, 2)
    w.note(f"nothing from node {source} reaches node {target}")
    w.network.cut(source, target)
    mend(w)


def split(w):
    """Two nodes do not reach each other, both reach the third; or none reaches any."""
    pairs = [(1, 2), (1, 3), (2, 3)]
    cut = w.rng.choice([[pair] for pair in pairs] + [pairs])
    w.note(f"nothing between nodes {cut}")
    for pair in cut:
        w.network.cut_both(*pair)
    mend(w)


def cut_controller(w):
    """The active controller's node is cut from the other nodes; clients still reach it."""
    id = w.cluster.controller()
    w.note(f"node {id}, the active controller, is cut from the others")
    for other in w.others(id):
        w.network.cut_both(id, other)
    mend(w)


def mend(w):
    w.hold(2, 12)
    w.network.heal()
    w.note("the network is whole")
    w.healed()


def wipe(w):
    """A node comes back with an empty disk."""
    id = w.rng.choice(IDS)
    w.kill(id)
    node = w.nodes[id]
    for name in os.listdir(node.data):
        path = os.path.join(node.data, name)
        shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
    w.note(f"the disk of node {id} is empty")
    w.cluster.format(node)
    w.hold(0.2, 3)
    w.start(id)


def torn_tail(w):
    """A node is killed and what its disk had not synced is cut or overwritten."""
    id = w.rng.choice(IDS)
    w.kill(id)
    data = w.nodes[id].data
    for p in range(PARTITIONS):
        path = segments.files(os.path.join(data, f"{TOPIC}-{p}"))[-1]
        synced, size = segments.synced_bytes(path, segments.recovery_point(data, TOPIC, p)), os.path.getsize(path)
        if synced >= size:
            continue
        at = w.rng.randrange(synced, size)
        garbled = w.rng.random() < 0.5
        with open(path, "r+b") as f:
            if garbled:
                f.seek(at)
                f.write(w.rng.randbytes(min(size - at, w.rng.randrange(1, 5000))))
            else:
                f.truncate(at)
        w.note(f"{TOPIC}-{p} of node {id}: {'garbled' if garbled else 'cut'} at {at} of {size}, {synced} were synced")
    w.hold(0.2, 3)
    w.start(id)


def full_disk(w):
    """A disk is full for a while; the node may end, and then starts again with room."""
    id = w.rng.choice(IDS)
    node = w.nodes[id]
    ballast = os.path.join(node.data, "ballast")
    w.note(f"the disk of node {id} is full")
    with open(ballast, "wb", buffering=0) as f:
        try:
            while True:
                f.write(b"\0" * 65536)
        except OSError:
            pass
    w.hold(2, 4)
    os.remove(ballast)
    w.note(f"node {id} has room again; it {'runs' if node.alive() else 'has ended'}")
    # A directory that failed stays offline until the process starts anew.
    if node.alive():
        node.kill()
    w.start(id)


def rolling_restart(w):
    for id in w.rng.sample(IDS, 3):
        w.note(f"node {id} stopped within {w.nodes[id].stop():.2f} s")
        w.start(id)
        w.whole()


# Share among the cycles; the longest gap in acknowledgements that it may cause in seconds, or None: as long as it lasts.
Fault = namedtuple("Fault", "name share longest_gap act")
FAULTS = [
    Fault("kill -9 leader", 8, 3, kill_leader),
    Fault("kill -9 follower", 5, 3, kill_follower),
    Fault("kill -9 active controller", 7, 2, kill_controller),
    Fault("kill -9 group coordinator", 4, 3, kill_coordinator),
    Fault("kill -9 all", 4, None, kill_all),
    Fault("SIGSTOP 5 s", 1, None, pause(5)),
    Fault("SIGSTOP 15 s", 1, None, pause(15)),
    Fault("SIGSTOP 40 s", 1, None, pause(40)),
    Fault("partition: one isolated", 3, None, isolate),
    Fault("partition: one way", 2, None, one_way),
    Fault("partition: split", 2, None, split),
    Fault("partition: active controller cut off", 2, None, cut_controller),
    Fault("wiped disk", 2, 3, wipe),
    Fault("torn tail", 4, 3, torn_tail),
    Fault("full disk", 2, None, full_disk),
    Fault("rolling restart", 3, 1, rolling_restart),
]
