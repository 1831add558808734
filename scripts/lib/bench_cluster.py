"""`scripts/bench cluster`: three Ottla nodes and three Apache Kafka nodes, all broker and controller, with the same settings, in one
run. CPU is that of all three processes. Gaps in acknowledgements are those of librdkafka's producers with their defaults."""

import logging
import os
import time

import wire
from bench import load_row, loadgen
from chaos import load
from cluster import IDS, Cluster, Node

PROPERTIES = ["default.replication.factor=3", "min.insync.replicas=2", "offsets.topic.num.partitions=3", "log.segment.delete.delay.ms=1000",
              "group.initial.rebalance.delay.ms=0"]
# Longer than Kafka takes to notice a dead leader.
FAIL_OVER_SECONDS = 14
MANY, MANY_PER_TOPIC = 10_000, 1000


class Brokers(Cluster):
    def __init__(self, name, work):
        nodes = [Node(id, os.path.join(work, f"{name}-{id}"), "127.0.0.1") for id in IDS]
        for n in nodes:
            os.makedirs(n.data)
        super().__init__(name, nodes, PROPERTIES)
        self.name = name

    def load(self, *args):
        nodes = self.alive()
        return loadgen(self.name, nodes[0].address, [n.process.pid for n in nodes], "--replication-factor", 3, *args)


# As in scripts/bench: name, loadgen arguments, [(metric, label, target ratio, bigger is better)]
def rows(seconds):
    produce = ["--warmup", 1, "--seconds", seconds, "produce", "--acks", -1, "--delete"]
    return [
        ("RF 3, acks=all, 1 MiB batches", [*produce, "--in-flight", 5],
         [("mb_per_s", "MB/s", 2, True), ("cpu_s_per_gb", "CPU s/GB", 0.45, False)]),
        ("RF 3, acks=all, 16 KiB batches, 6 partitions", [*produce, "--batch-bytes", 16384, "--partitions", 6, "--connections", 3, "--in-flight", 5],
         [("req_per_s", "req/s", 2.5, True), ("cpu_us_per_req", "CPU us/req", 0.3, False)]),
        ("RF 3, acks=all, one record a request, 64 in flight", [*produce, "--batch-bytes", 1, "--in-flight", 64],
         [("req_per_s", "req/s", 5, True), ("cpu_us_per_req", "CPU us/req", 0.15, False)]),
        ("RF 3, acks=all, open loop 1 k/s", ["--warmup", 1, "--seconds", seconds, "latency", "--rate", 1000],
         [("ack_p50_us", "ack p50 us", 0.7, False), ("ack_p99_us", "ack p99 us", 0.5, False), ("cpu_us_per_req", "CPU us/record", None, False)]),
    ]


def run(table, work, names, only, pairs, seconds, quick):
    two = [Brokers(name, work) for name in names]
    try:
        wanted = [row for row in rows(seconds) if only.search(row[0])]
        others = [row for row in (kill_leader_row, rolling_row, idle_row) if only.search(row.__doc__)]
        if wanted or others:
            for cluster in two:
                cluster.start()
        if wanted:
            for cluster, warm in zip(two, (1, 3 if quick else 40)):
                cluster.load("--seconds", warm, "produce", "--acks", -1, "--batch-bytes", 1, "--in-flight", 64, "--topic", "warm", "--delete")
        for row in wanted:
            load_row(table, two, *row, pairs)
        for row in others:
            row(table, two)
        for cluster in two:
            cluster.stop()
        if only.search(many_rows.__doc__) and not quick:
            many_rows(table, work)
    finally:
        for cluster in two:
            cluster.stop()


def with_load(cluster, topic, act):
    """Lets stock producers and a group run while `act` does something: (longest gap in acknowledgements, errors clients saw)."""
    logger = logging.getLogger("clients")
    logger.propagate = False
    logger.addHandler(logging.NullHandler())
    cluster.ask(lambda address: wire.create_topic(address, topic, 6, 3))
    clients = load.Load(cluster.bootstrap, topic, 6, logger)
    clients.start()
    cluster.until("the first records and commits", lambda: clients.acknowledged() > 2000 and clients.committer.committed)
    clients.acks.restart()
    act()
    gap, _ = clients.acks.worst()
    clients.checker.check()
    clients.stop()
    for text in clients.problems[:5]:
        print(f"| {topic} | {cluster.name}: {text} | | | | | |", flush=True)
    return gap, len(clients.problems)


def back(cluster, node, topic):
    cluster.run(node)
    node.ready()
    cluster.until("all replicas in sync", lambda: cluster.in_sync(topic), 120)


def kill_leader_row(table, two):
    """kill -9 of a leader"""
    got = []
    for cluster in two:
        def act():
            victim = cluster.nodes[cluster.leader("killed")]
            victim.kill()
            time.sleep(FAIL_OVER_SECONDS)
            back(cluster, victim, "killed")
        got.append(with_load(cluster, "killed", act))
    table.add("kill -9 of a leader", "longest gap in acknowledgements s", got[0][0], got[1][0], bound=3)
    table.add("kill -9 of a leader", "errors that clients saw", got[0][1], got[1][1], bound=0)


def rolling_row(table, two):
    """rolling restart of three brokers"""
    got = []
    for cluster in two:
        def act():
            for node in cluster.nodes.values():
                node.stop()
                back(cluster, node, "rolled")
        got.append(with_load(cluster, "rolled", act))
    table.add("rolling restart of three brokers", "longest gap in acknowledgements s", got[0][0], got[1][0], bound=1)
    table.add("rolling restart of three brokers", "errors that clients saw", got[0][1], got[1][1], bound=0)


def idle_row(table, two):
    """a broker with 1,000 replicas, idle"""
    got = []
    for cluster in two:
        cluster.load("topics", "--prefix", "idle", "--partitions", 1000)
        cluster.until("all replicas in sync", lambda: cluster.in_sync("idle-0"), 120)
        time.sleep(5)
        got.append(cluster.load("--seconds", 10, "watch")["core_percent"] / len(IDS))
    table.add("a broker with 1,000 replicas, idle", "% of a core", *got, 0.1)


def many_rows(table, work):
    """10,000 partitions RF 3: Ottla alone, as three of Apache Kafka do not fit into the memory of a small machine beside it"""
    cluster = Brokers("ottla", os.path.join(work, "many"))
    alone = float("nan")
    try:
        cluster.start()
        created = cluster.load("topics", "--partitions", MANY, "--per-topic", MANY_PER_TOPIC)["seconds"]
        topics = [f"many-{i}" for i in range(MANY // MANY_PER_TOPIC)]
        cluster.until("all replicas in sync", lambda: cluster.in_sync(*topics), 300, 0.5)
        victim = cluster.nodes[cluster.leader("many-0")]
        witness = next(n for n in cluster.nodes.values() if n is not victim)
        victim.kill()

        def led_by_others():
            _, found = wire.metadata(witness.address, topics, 10)
            return all(p.leader not in (-1, victim.id) for parts in found.values() for p in parts.values())
        failed_over = cluster.until("all partitions have another leader", led_by_others, 60)
        cluster.run(victim)
        killed = victim.ready()
        cluster.until("all replicas in sync", lambda: cluster.in_sync(*topics), 300, 0.5)
        stopped = victim.stop()
        cluster.run(victim)
        restarted = victim.ready()
        in_sync = cluster.until("all replicas in sync", lambda: cluster.in_sync(*topics), 300, 0.2)
    finally:
        cluster.stop()
    for label, seconds, bound in [("create s", created, None), ("fail-over of a broker s", failed_over, 2), ("restart of a broker s", restarted, 2),
                                  ("restart after kill -9 s", killed, None), ("controlled stop s", stopped, None), ("back in all ISRs s", in_sync, None)]:
        table.add("10,000 partitions RF 3, Ottla alone", label, seconds, alone, bound=bound)
