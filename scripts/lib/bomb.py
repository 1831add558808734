"""Batches of about a megabyte that inflate to a gigabyte, to topics whose broker has to look inside. Each must be refused, soon, and
with little memory: that of the whole process, C libraries included.   bomb.py HOST:PORT PID"""

import struct
import subprocess
import sys
import time
import zlib

import wire

GIB = 1 << 30
SECONDS_MAX = 5
GROWTH_KIB_MAX = 64 << 10
# Not refused for what they are before they are looked into.
LIMIT = ("max.message.bytes", str(2 << 20))
TOPICS = {"uncompressed": [LIMIT, ("compression.type", "uncompressed")], "compacted": [LIMIT, ("cleanup.policy", "compact")]}


def varint(value):
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def records(count):
    """A gigabyte of zeros in so many records without keys, a piece at a time."""
    size = GIB // count
    zeros = bytes(1 << 20)
    for delta in range(count):
        head = b"\0\0" + varint(delta) + varint(-1) + varint(size)
        yield varint(len(head) + size + 1) + head
        for _ in range(size >> 20):
            yield zeros
        yield b"\0"


def gzip(pieces):
    deflate = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join([deflate.compress(piece) for piece in pieces]) + deflate.flush()


def zstd(pieces):
    with subprocess.Popen(["zstd", "-q", "-c"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        # What comes out fits into the pipe.
        for piece in pieces:
            process.stdin.write(piece)
        return process.communicate()[0]


def crc32c(data):
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def batch(codec, count, payload):
    now = int(time.time() * 1000)
    checked = struct.pack(">hiqqqhii", codec, count - 1, now, now, -1, -1, -1, count) + payload
    rest = struct.pack(">ibI", -1, 2, crc32c(checked)) + checked
    return struct.pack(">qi", 0, len(rest)) + rest


def produce(address, topic, data):
    """The error code of the only partition."""
    body = struct.pack(">hhii", -1, -1, 30000, 1) + wire.string(topic) + struct.pack(">iii", 1, 0, len(data)) + data
    reader = wire.call(address, 0, 7, body, timeout=60)
    partition = lambda: (reader.int(4), reader.int(2), reader.take(24))[1]
    return reader.array(lambda: (reader.string(), reader.array(partition))[1])[0][0]


def most_kib(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))


def main():
    address, pid = sys.argv[1], sys.argv[2]
    for topic, configs in TOPICS.items():
        wire.create_topic(address, topic, 1, 1, configs)
    before = most_kib(pid)
    for name, codec, compress in [("gzip", 1, gzip), ("zstd", 4, zstd)]:
        for count in [1, 1024]:
            data = batch(codec, count, compress(records(count)))
            for topic in TOPICS:
                begun = time.monotonic()
                code = produce(address, topic, data)
                seconds = time.monotonic() - begun
                growth = most_kib(pid) - before
                refused = code != 0 and seconds < SECONDS_MAX and growth < GROWTH_KIB_MAX
                print(f"{'ok  ' if refused else 'FAIL'}  bomb: {len(data)} bytes of {name}, {count} records, {topic}: "
                      f"error {code} after {seconds:.2f} s, {growth >> 10} MiB more")
    for topic in TOPICS:
        end = wire.latest_offset(address, topic, 0)
        print(f"{'ok  ' if end == (0, 0) else 'FAIL'}  bomb: nothing was appended to {topic}: {end}")


main()
