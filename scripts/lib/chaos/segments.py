"""Logs on disk, batch by batch: what faults damage and the end of a run compares."""

import os
import struct

HEAD = struct.Struct(">qi")


def batches(path):
    """(position, base offset, size) of every batch of a segment file."""
    at, end = 0, os.path.getsize(path)
    with open(path, "rb") as f:
        while at + HEAD.size <= end:
            f.seek(at)
            base, length = HEAD.unpack(f.read(HEAD.size))
            yield at, base, HEAD.size + length
            at += HEAD.size + length


def files(directory):
    return [os.path.join(directory, name) for name in sorted(os.listdir(directory)) if name.endswith(".log")]


def synced_bytes(path, recovery_point):
    """How much of a segment lies below an offset."""
    return next((at for at, base, _ in batches(path) if base >= recovery_point), os.path.getsize(path))


def recovery_point(data, topic, partition):
    """The offset up to which a log was synced, by the checkpoint."""
    checkpoint = os.path.join(data, "recovery-point-offset-checkpoint")
    lines = open(checkpoint).read().splitlines()[2:] if os.path.exists(checkpoint) else []
    offsets = {(t, int(p)): int(offset) for t, p, offset in map(str.split, lines)}
    return offsets.get((topic, partition), 0)


def contents(directory):
    """{base offset: bytes of the batch} of a whole log."""
    found = {}
    for path in files(directory):
        data = open(path, "rb").read()
        found.update((base, data[at:at + size]) for at, base, size in batches(path))
    return found


def difference(directories):
    """Where replicas differ, as text; None when all that they have in common is the same, byte for byte, up to one end."""
    logs = [contents(directory) for directory in directories]
    if len({max(log, default=-1) for log in logs}) > 1:
        return f"the last batches are at {[max(log, default=-1) for log in logs]}"
    start = max(min(log, default=0) for log in logs)
    for offset in sorted({offset for log in logs for offset in log if offset >= start}):
        if len({log.get(offset) for log in logs}) > 1:
            return f"the batches at offset {offset} differ"
    return None
