"""The faults, each a function of the world that breaks something and mends it again. FAULTS: name, share among the cycles, longest
gap in acknowledgements that it may cause (None: as long as it lasts), function."""

from cluster import IDS


def kill_leader(w):
    victim = w.leader()
    w.kill(victim)
    w.hold(0.2, 2, 4)
    w.start(victim)


FAULTS = [
    ("kill -9 leader", 8, 3, kill_leader),
]
