"""The clients that run while brokers die: idempotent librdkafka producers with acks=all, a consumer group that commits, and a
reader that holds the topic against what was acknowledged.

Each producer numbers its records in each partition from 0, so whatever is lost, doubled or out of order shows as a number that
is not the next one; and each acknowledged record must stand at the offset that was acknowledged."""

import threading
import time
from collections import defaultdict, deque

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

GROUP = "chaos-group"
# How the producers differ. All have librdkafka's defaults otherwise.
PRODUCERS = [{}, {"linger.ms": 0, "max.in.flight.requests.per.connection": 1}, {"compression.type": "lz4", "linger.ms": 20}]
RECORDS_PER_SECOND = 240
# More than any fault lasts: a record that was not acknowledged by then is a finding.
GIVE_UP_MS = 120_000


class Gaps:
    """The longest time without an event of each kind; thread safe."""

    def __init__(self):
        self.lock, self.last, self.longest, self.since = threading.Lock(), {}, {}, 0

    def seen(self, kind):
        now = time.monotonic()
        with self.lock:
            gap = now - max(self.last.get(kind, now), self.since)
            if gap > self.longest.get(kind, 0):
                self.longest[kind] = gap
            self.last[kind] = now

    def restart(self):
        with self.lock:
            self.longest, self.since = {}, time.monotonic()

    def all_since(self, moment):
        """Whether every kind was seen after `moment`."""
        with self.lock:
            return all(last > moment for last in self.last.values())

    def worst(self):
        """Longest gap since `restart` in seconds, one that still lasts included, and what it was in."""
        now = time.monotonic()
        with self.lock:
            gaps = {k: max(self.longest.get(k, 0), now - max(last, self.since)) for k, last in self.last.items()}
        return max(((gap, kind) for kind, gap in gaps.items()), default=(0, None))


class Writer(threading.Thread):
    def __init__(self, load, number):
        super().__init__(daemon=True)
        self.load, self.number = load, number
        self.next = [0] * load.partitions
        self.acknowledged = [0] * load.partitions
        # By partition: (number, offset) of acknowledged records, oldest first, those that may yet be read again.
        self.offsets = [deque() for _ in range(load.partitions)]
        self.producer = Producer({"bootstrap.servers": load.bootstrap, "enable.idempotence": True, "acks": "all",
                                  "message.timeout.ms": GIVE_UP_MS, "client.id": f"chaos-{number}", "logger": load.logger,
                                  "error_cb": self.failed, **PRODUCERS[number % len(PRODUCERS)]})

    def failed(self, error):
        if error.fatal():
            self.load.problem(f"producer {self.number}: fatal: {error}")

    def delivered(self, error, message):
        partition = message.partition()
        number = int(message.value().split(b" ", 2)[1])
        if error is not None:
            self.load.problem(f"producer {self.number}, partition {partition}: record {number} was not delivered: {error}")
            return
        if number != self.acknowledged[partition]:
            self.load.problem(f"producer {self.number}, partition {partition}: {number} acknowledged after "
                              f"{self.acknowledged[partition]} records")
        # The offset first: whoever reads `acknowledged` finds it there.
        if message.offset() >= 0:
            self.offsets[partition].append((number, message.offset()))
        self.acknowledged[partition] = number + 1
        self.load.acks.seen((self.number, partition))

    def run(self):
        due, partition = time.monotonic(), 0
        while not self.load.stopping.is_set():
            due = max(due + 1 / RECORDS_PER_SECOND, time.monotonic() - 0.1)
            number = self.next[partition]
            value = b"%d %d %s" % (self.number, number, b"x" * (number % 90))
            try:
                self.producer.produce(self.load.topic, value, partition=partition, on_delivery=self.delivered)
                self.next[partition] += 1
                partition = (partition + 1) % self.load.partitions
            except BufferError:
                pass
            except KafkaException as error:
                self.load.problem(f"producer {self.number}: {error}")
                return
            self.producer.poll(0)
            while time.monotonic() < due:
                self.producer.poll(max(0, due - time.monotonic()))
        left = self.producer.flush(30)
        if left:
            self.load.problem(f"producer {self.number}: {left} records are not acknowledged 30 s after the last fault")


class Committer(threading.Thread):
    """One member of a group that reads along and commits; what was committed never goes back."""

    def __init__(self, load):
        super().__init__(daemon=True)
        self.load, self.committed = load, {}
        settings = {"bootstrap.servers": load.bootstrap, "group.id": GROUP, "enable.auto.commit": False,
                    "auto.offset.reset": "earliest", "logger": load.logger}
        # Two: the member's own `committed` waits for as long as it consumes.
        self.consumer, self.asker = Consumer(settings), Consumer(settings)

    def run(self):
        self.consumer.subscribe([self.load.topic])
        positions = {}
        while not self.load.stopping.is_set():
            for message in self.consumer.consume(500, 0.1):
                if message.error() is None:
                    positions[message.partition()] = message.offset() + 1
            if not positions:
                continue
            offsets = [TopicPartition(self.load.topic, p, offset) for p, offset in positions.items()]
            try:
                done = self.consumer.commit(offsets=offsets, asynchronous=False)
            except KafkaException as error:
                code = error.args[0].code()
                if code in (KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError._NO_OFFSET):
                    positions.clear()  # A rebalance: it begins where the group committed last.
                continue
            if all(t.error is None for t in done):
                self.committed.update((t.partition, t.offset) for t in done)
                self.load.commits.seen("commit")
        self.consumer.close()

    def check(self, seconds=20):
        wanted, found = dict(self.committed), {}
        end = time.monotonic() + seconds
        while wanted and not found:
            try:
                found = {t.partition: t for t in self.asker.committed([TopicPartition(self.load.topic, p) for p in wanted], 10)}
            except KafkaException as error:
                # The coordinator may have moved since this was asked last.
                if time.monotonic() > end:
                    self.load.problem(f"group: committed offsets cannot be read: {error}")
                    return
        for p, offset in wanted.items():
            if found[p].error is not None or found[p].offset < offset:
                self.load.problem(f"group, partition {p}: {offset} was committed, now {found[p].error or found[p].offset}")


class Checker:
    """Reads the topic behind the producers, the last two cycles again each time: what was read must not change either."""

    def __init__(self, load):
        self.load, self.read, self.found = load, 0, {}
        self.consumer = Consumer({"bootstrap.servers": load.bootstrap, "group.id": "chaos-checker", "enable.auto.commit": False,
                                  "auto.offset.reset": "error", "logger": load.logger, "fetch.wait.max.ms": 50})
        # By partition: (offset, next number of each producer) at the ends of the last checks.
        self.marks = [deque([(0, {})]) for _ in range(load.partitions)]

    def check(self, seconds=30):
        """Everything that is acknowledged by now is there, at its offset, once and in order."""
        wanted = [[w.acknowledged[p] for w in self.load.writers] for p in range(self.load.partitions)]
        self.found = {}
        state = [[offset, dict(numbers)] for offset, numbers in (marks[0] for marks in self.marks)]
        self.consumer.assign([TopicPartition(self.load.topic, p, s[0]) for p, s in enumerate(state)])
        left = {p for p in range(self.load.partitions) if self.behind(state[p], wanted[p])}
        end = time.monotonic() + seconds
        while left and time.monotonic() < end:
            for message in self.consumer.consume(2000, 0.2):
                if message.error() is None:
                    self.record(state[message.partition()], message)
                elif message.error().code() == KafkaError._AUTO_OFFSET_RESET:
                    self.load.problem(f"reader: {message.error()}")
                    return
            left = {p for p in left if self.behind(state[p], wanted[p])}
        for p in sorted(left):
            self.load.problem(f"partition {p}: read up to offset {state[p][0]}, numbers {sorted(state[p][1].items())}, but "
                              f"{wanted[p]} were acknowledged")
        self.check_offsets()
        for p, marks in enumerate(self.marks):
            marks.append((state[p][0], state[p][1]))
            if len(marks) > 2:
                marks.popleft()
            for writer in self.load.writers:
                first, known = marks[0][1].get(writer.number, 0), writer.offsets[p]
                while known and known[0][0] < first:
                    known.popleft()

    def check_offsets(self):
        for writer in self.load.writers:
            for p, known in enumerate(writer.offsets):
                for number, offset in list(known):
                    at = self.found.get((writer.number, p), {}).get(number, offset)
                    if at != offset:
                        self.load.problem(f"partition {p}: record {number} of producer {writer.number} was acknowledged at "
                                          f"offset {offset} and is at {at}")
                        break

    def behind(self, state, wanted):
        return any(state[1].get(i, 0) < n for i, n in enumerate(wanted))

    def record(self, state, message):
        producer, number = map(int, message.value().split(b" ", 2)[:2])
        partition, offset = message.partition(), message.offset()
        wanted = state[1].get(producer, 0)
        if number != wanted:
            self.load.problem(f"partition {partition}, offset {offset}: record {number} of producer {producer}, {wanted} was due")
        if offset != state[0]:
            self.load.problem(f"partition {partition}: offset {offset} where {state[0]} was due")
        state[0], state[1][producer] = offset + 1, number + 1
        self.read += 1
        self.found.setdefault((producer, partition), {})[number] = offset


class Load:
    def __init__(self, bootstrap, topic, partitions, logger):
        self.bootstrap, self.topic, self.partitions, self.logger = bootstrap, topic, partitions, logger
        self.problems, self.stopping, self.lock = [], threading.Event(), threading.Lock()
        self.acks, self.commits = Gaps(), Gaps()
        self.writers = [Writer(self, i) for i in range(len(PRODUCERS))]
        self.committer, self.checker = Committer(self), Checker(self)

    def problem(self, text):
        with self.lock:
            if len(self.problems) < 50:
                self.problems.append(text)

    def start(self):
        for thread in (*self.writers, self.committer):
            thread.start()

    def acknowledged(self):
        return sum(sum(w.acknowledged) for w in self.writers)

    def stop(self):
        self.stopping.set()
        for thread in (*self.writers, self.committer):
            thread.join(60)
