"""Three combined nodes as one cluster, Ottla's or Apache Kafka's, for scripts in Python; cluster.sh is the same for bash.
Standard library only."""

import os
import signal
import socket
import subprocess
import time

import wire

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CACHE = os.environ.get("OTTLA_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "ottla")
KAFKA = os.path.join(CACHE, "kafka-4.3.1")
TARGET = os.environ.get("CARGO_TARGET_DIR") or os.path.join(ROOT, "target")
OTTLA = os.environ.get("OTTLA_BIN") or os.path.join(TARGET, "release", "ottla")
IDS = (1, 2, 3)


def bash(words):
    """Runs functions of env.sh and python.sh; what they print."""
    words = f". {ROOT}/scripts/lib/env.sh; . {ROOT}/scripts/lib/python.sh; {words}"
    return subprocess.run(["bash", "-c", words], check=True, stdout=subprocess.PIPE, text=True).stdout


def python_with_clients():
    """An interpreter that has confluent-kafka."""
    return bash("need_venv >&2 && echo $VENV").split()[-1] + "/bin/python"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Node:
    """One process. `prefix` is a command that runs it somewhere else, e.g. in a network namespace."""

    def __init__(self, id, dir, host, prefix=()):
        self.id, self.dir, self.prefix, self.process = id, dir, list(prefix), None
        ports = (9092, 9093) if prefix else (free_port(), free_port())
        self.address, self.controller = (f"{host}:{port}" for port in ports)
        self.properties = os.path.join(dir, "server.properties")
        self.data = os.path.join(dir, "data")
        self.log = os.path.join(dir, "broker.log")

    def start(self, command):
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(self.prefix + command, stdout=log, stderr=log)

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def ready(self, seconds=60):
        """Seconds until it answered."""
        begin = time.monotonic()
        while time.monotonic() - begin < seconds:
            if not self.alive():
                break
            try:
                if wire.metadata(self.address)[0]:
                    return time.monotonic() - begin
            except OSError:
                time.sleep(0.01)
        raise RuntimeError(f"node {self.id} did not get ready: {self.log} ends\n{self.last_lines()}")

    def last_lines(self, count=12):
        return "".join(open(self.log, errors="replace").readlines()[-count:])

    def send(self, number):
        self.process.send_signal(number)

    def stop(self, number=signal.SIGTERM, seconds=60):
        """Ends it and waits for its end; seconds that took."""
        if not self.alive():
            return 0
        begin = time.monotonic()
        self.send(number)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise RuntimeError(f"node {self.id} did not stop on signal {number} within {seconds} s") from None
        return time.monotonic() - begin

    def kill(self):
        self.stop(signal.SIGKILL)


class Cluster:
    def __init__(self, kind, nodes, properties=(), heap="-Xmx768M"):
        self.kind, self.nodes, self.heap = kind, {node.id: node for node in nodes}, heap
        voters = ",".join(f"{n.id}@{n.controller}" for n in nodes)
        for n in nodes:
            lines = ["process.roles=broker,controller", f"node.id={n.id}", f"controller.quorum.voters={voters}",
                     f"listeners=PLAINTEXT://{n.address},CONTROLLER://{n.controller}", "inter.broker.listener.name=PLAINTEXT",
                     "controller.listener.names=CONTROLLER", "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
                     f"log.dirs={n.data}", *properties]
            if kind == "ottla":
                lines.append("ottla.http.listener=")
            with open(n.properties, "w") as f:
                f.write("\n".join(lines) + "\n")

    @property
    def bootstrap(self):
        return ",".join(n.address for n in self.nodes.values())

    def command(self, node):
        if self.kind == "ottla":
            return [OTTLA, node.properties]
        return ["java", self.heap, "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35",
                "-cp", KAFKA + "/libs/*", "kafka.Kafka", node.properties]

    def storage(self, *args):
        tool = [OTTLA, "storage"] if self.kind == "ottla" else ["java", "-cp", KAFKA + "/libs/*", "kafka.tools.StorageTool"]
        done = subprocess.run([*tool, *args], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"storage {args[0]}: {done.stderr or done.stdout}")
        return done.stdout.strip()

    def format(self, node):
        self.storage("format", "-t", self.cluster_id, "-c", node.properties)

    def start(self):
        self.cluster_id = self.storage("random-uuid")
        for n in self.nodes.values():
            self.format(n)
        for n in self.nodes.values():
            self.run(n)
        for n in self.nodes.values():
            n.ready()
        self.until("all brokers are registered", lambda: all(len(wire.metadata(n.address)[0]) == 3 for n in self.nodes.values()))

    def run(self, node):
        node.start(self.command(node))

    def alive(self):
        return [n for n in self.nodes.values() if n.alive()]

    def stop(self):
        for n in self.nodes.values():
            if n.alive():
                n.kill()

    def until(self, what, condition, seconds=60, every=0.02):
        """Waits for a condition in which no answer means no; seconds that took."""
        begin = time.monotonic()
        while True:
            try:
                if condition():
                    return time.monotonic() - begin
            except OSError:
                pass
            if time.monotonic() - begin > seconds:
                raise TimeoutError(f"{what}: not within {seconds:.3g} s")
            time.sleep(every)

    def ask(self, question):
        """The first answer of a node that gives one."""
        for n in self.alive():
            try:
                return question(n.address)
            except OSError:
                continue
        raise OSError("no node answers")

    def partitions(self, *topics):
        """{(topic, partition): Partition}, as the first node that answers sees it."""
        _, found = self.ask(lambda address: wire.metadata(address, topics))
        return {(t, p): state for t, parts in found.items() for p, state in parts.items()}

    def leader(self, topic, partition=0):
        return self.partitions(topic)[topic, partition].leader

    def controller(self):
        """The active controller's id."""
        def known():
            known.id = self.ask(wire.quorum_leader)
            return known.id > 0
        self.until("an active controller", known)
        return known.id

    def in_sync(self, *topics):
        """Whether every alive node sees all replicas of these topics in sync, with a leader."""
        for n in self.nodes.values():
            _, found = wire.metadata(n.address, topics)
            if len(found) != len(topics):
                return False
            for parts in found.values():
                if not parts or any(p.leader < 0 or len(p.isr) < len(p.replicas) for p in parts.values()):
                    return False
        return True
