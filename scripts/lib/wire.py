"""The few Kafka requests that scripts ask brokers themselves, so that no client library's cache stands in between. Standard
library only."""

import socket
import struct
from collections import namedtuple

Partition = namedtuple("Partition", "leader replicas isr")
LIST_OFFSETS, METADATA, FIND_COORDINATOR, CREATE_TOPICS, ELECT_LEADERS, DESCRIBE_QUORUM = 2, 3, 10, 19, 43, 55
ELECTION_NOT_NEEDED = 84


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, size):
        self.at += size
        if self.at > len(self.data):
            raise OSError("a short answer")
        return self.data[self.at - size:self.at]

    def int(self, size):
        return int.from_bytes(self.take(size), "big", signed=True)

    def string(self):
        size = self.int(2)
        return None if size < 0 else self.take(size).decode()

    def array(self, item):
        return [item() for _ in range(self.int(4))]

    def varint(self):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value


def string(text):
    return struct.pack(">h", len(text)) + text.encode()


def call(address, key, version, body, timeout=2, flexible=False):
    """One request on a connection of its own. OSError when there is no answer."""
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout) as sock:
        sock.settimeout(timeout)
        frame = struct.pack(">hhi", key, version, 7) + string("scripts") + (b"\0" if flexible else b"") + body
        sock.sendall(struct.pack(">i", len(frame)) + frame)
        stream = sock.makefile("rb")
        size = stream.read(4)
        answer = stream.read(struct.unpack(">i", size)[0]) if len(size) == 4 else b""
    reader = Reader(answer)
    if reader.int(4) != 7:
        raise OSError("an answer to something else")
    if flexible:
        reader.varint()
    return reader


def metadata(address, topics=(), timeout=2):
    """What one broker believes: (ids of brokers, {topic: {partition: Partition}}). Without topics the brokers only."""
    body = struct.pack(">i", len(topics)) + b"".join(map(string, topics))
    r = call(address, METADATA, 1, body, timeout)
    brokers = r.array(lambda: (r.int(4), r.string(), r.int(4), r.string())[0])
    r.int(4)

    def partition():
        _, index, leader = r.int(2), r.int(4), r.int(4)
        return index, Partition(leader, r.array(lambda: r.int(4)), r.array(lambda: r.int(4)))

    def topic():
        _, name, _ = r.int(2), r.string(), r.int(1)
        return name, dict(r.array(partition))

    return brokers, dict(r.array(topic))


def quorum_leader(address, timeout=2):
    """The active controller's node id, -1 when this broker does not know."""
    body = b"\2" + b"\x13__cluster_metadata" + b"\2" + struct.pack(">i", 0) + b"\0\0\0"
    r = call(address, DESCRIBE_QUORUM, 0, body, timeout, flexible=True)
    if r.int(2) != 0 or r.varint() != 2:
        return -1
    r.take(r.varint() - 1)
    if r.varint() != 2:
        return -1
    r.int(4)
    return r.int(4) if r.int(2) == 0 else -1


def coordinator(address, group, timeout=2):
    """The node that coordinates a group, -1 when nobody does yet."""
    r = call(address, FIND_COORDINATOR, 0, string(group), timeout)
    return r.int(4) if r.int(2) == 0 else -1


def latest_offset(address, topic, partition, timeout=2):
    """What a consumer is told of the end of a partition: (error code, offset)."""
    body = struct.pack(">ibi", -1, 0, 1) + string(topic) + struct.pack(">iiiq", 1, partition, -1, -1)
    r = call(address, LIST_OFFSETS, 5, body, timeout)
    r.int(4)
    ((_, ((_, code, _, offset, _),)),) = r.array(
        lambda: (r.string(), r.array(lambda: (r.int(4), r.int(2), r.int(8), r.int(8), r.int(4)))))
    return code, offset


def create_topic(address, name, partitions, replicas, configs=(), timeout=30):
    """Creates a topic. OSError when the answer is not yes."""
    body = struct.pack(">i", 1) + string(name) + struct.pack(">ihi", partitions, replicas, 0)
    body += struct.pack(">i", len(configs)) + b"".join(string(k) + string(v) for k, v in configs)
    r = call(address, CREATE_TOPICS, 2, body + struct.pack(">ib", timeout * 1000, 0), timeout)
    r.int(4)
    (code,) = r.array(lambda: (r.string(), r.int(2), r.string())[1])
    if code != 0:
        raise OSError(f"creating {name}: error {code}")


def elect_preferred(address, topic, partitions, timeout=10):
    """Has the preferred replica of each partition lead. OSError when one does not then."""
    body = struct.pack(">i", 1) + string(topic) + struct.pack(f">i{len(partitions)}i", len(partitions), *partitions)
    r = call(address, ELECT_LEADERS, 0, body + struct.pack(">i", timeout * 1000), timeout)
    r.int(4)
    ((_, answers),) = r.array(lambda: (r.string(), r.array(lambda: (r.int(4), r.int(2), r.string()))))
    failed = [answer for answer in answers if answer[1] not in (0, ELECTION_NOT_NEEDED)]
    if failed:
        raise OSError(f"electing leaders of {topic}: {failed}")
