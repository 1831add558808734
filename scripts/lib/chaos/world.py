"""What faults act upon: three nodes in their network, the load on them, and a diary of what was done when."""

import logging
import os
import subprocess
import time

import wire
from cluster import IDS, Cluster, Node
from chaos import load, network, segments

TOPIC, PARTITIONS = "chaos", 6
WATCHED = (TOPIC, "__consumer_offsets")
DISK_MIB = 160
# Everything that has to do with time is Kafka's default. Small segments and retention so that a long run rolls and deletes, and
# fits the small disks; few partitions of the internal topic so that one start is quick.
PROPERTIES = ["default.replication.factor=3", "min.insync.replicas=2", "offsets.topic.num.partitions=3",
              "group.initial.rebalance.delay.ms=0", "auto.create.topics.enable=false", "log.segment.bytes=1048576",
              "log.retention.bytes=8388608", "log.retention.check.interval.ms=10000", "log.segment.delete.delay.ms=1000"]


class World:
    def __init__(self, work, rng):
        self.rng, self.work, self.begin, self.diary, self.back = rng, work, time.monotonic(), [], None
        self.network = network.Network(IDS)
        self.cluster = Cluster("ottla", [self.node(id) for id in IDS], PROPERTIES)
        self.cluster.start()
        self.cluster.ask(lambda address: wire.create_topic(address, TOPIC, PARTITIONS, 3))
        logger = logging.getLogger("clients")
        logger.propagate = False
        logger.addHandler(logging.FileHandler(os.path.join(work, "clients.log")))
        self.load = load.Load(self.cluster.bootstrap, TOPIC, PARTITIONS, logger)
        self.load.start()
        self.cluster.until("the first records and commits", lambda: self.load.acknowledged() > 500 and self.load.committer.committed)

    def node(self, id):
        node = Node(id, os.path.join(self.work, f"node-{id}"), network.host(id), self.network.prefix(id))
        os.makedirs(node.data)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "tmpfs", node.data], check=True)
        return node

    @property
    def nodes(self):
        return self.cluster.nodes

    def note(self, text):
        self.diary.append(f"{time.monotonic() - self.begin:9.3f} {text}")

    def hold(self, *choices):
        """The fault lasts for one of these times, or a little less."""
        self.sleep(self.rng.choice(choices) * self.rng.uniform(0.8, 1))

    def sleep(self, seconds):
        time.sleep(seconds)

    def others(self, id):
        return [other for other in IDS if other != id]

    def leader(self):
        return self.cluster.leader(TOPIC, self.rng.randrange(PARTITIONS))

    def kill(self, id):
        self.note(f"kill -9 of node {id}")
        self.nodes[id].kill()

    def start(self, *ids):
        """Starts stopped nodes; from their first answer on they have to be back in the ISR soon."""
        for id in ids:
            self.cluster.run(self.nodes[id])
        for id in ids:
            self.note(f"node {id} answers after {self.nodes[id].ready():.2f} s")
        self.healed()

    def healed(self):
        self.back = time.monotonic()

    def whole(self):
        """Waits until every replica is in sync; seconds since the fault was healed."""
        self.cluster.until("every replica in sync on every node", lambda: self.cluster.in_sync(*WATCHED), 90)
        return time.monotonic() - self.back

    def flowing(self):
        """Waits until every producer is acknowledged again in every partition: a client that still waits for its next attempt
        to connect does so because of this fault, not of the next one."""
        now = time.monotonic()
        self.cluster.until("every producer acknowledged in every partition", lambda: self.load.acks.all_since(now), 60)

    def spread(self):
        """Where one node leads everything its clients know no other. librdkafka then looks for one in steps of a second, once that
        node dies. Kafka elects the preferred leaders every five minutes; here a cycle takes seconds."""
        def leaders():
            return {state.leader for state in self.cluster.partitions(TOPIC).values()}

        def elected():
            self.cluster.ask(lambda address: wire.elect_preferred(address, TOPIC, range(PARTITIONS)))
            return len(leaders()) > 1

        if len(leaders()) == 1:
            self.cluster.until("more than one node leads", elected)
            self.flowing()

    def end(self):
        """Ends the load and the nodes; what is wrong then, as lines."""
        self.load.stop()
        self.load.checker.check()
        self.healed()
        self.whole()
        for node in self.nodes.values():
            node.stop()
        logs = {p: [os.path.join(node.data, f"{TOPIC}-{p}") for node in self.nodes.values()] for p in range(PARTITIONS)}
        found = [(p, segments.difference(directories)) for p, directories in logs.items()]
        return self.load.problems + [f"replicas of {TOPIC}-{p}: {text}" for p, text in found if text]
