"""Two directories of one compacted partition, file by file: compare.py KAFKA OTTLA [recompressed]

Bytes are the same but where they cannot be:
- a delete horizon is the time of the cleaning plus delete.retention.ms: the base timestamp of such a batch, the deltas of its
  records to that, and the checksum over both differ; the timestamps themselves must not. Where a delta needs more bytes at
  one time than at the other, what follows lies elsewhere, and the indexes say so: kafka-dump-log judges those;
- with `recompressed`, what a codec makes of the records that stay is each library's own: the inflated records are the same,
  positions in the indexes are not. What was not rewritten is the same byte for byte."""

import gzip, os, struct, subprocess, sys

HEADER = struct.Struct(">qiibIhiqqqhii")
HORIZON, CODEC, APPEND_TIME = 0x40, 0x07, 0x08


def files(path):
    return {n: open(os.path.join(path, n), "rb").read() for n in os.listdir(path)
            if n[:20].isdigit() and not n.endswith(".deleted")}


def varint(data, at):
    shift = value = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at


def batches(data):
    at = 0
    while at < len(data):
        size = struct.unpack_from(">i", data, at + 8)[0] + 12
        yield data[at:at + size]
        at += size


def unsnap(block):
    """One raw snappy block: literals, and copies of what was before."""
    out, at = bytearray(), 0
    while block[at] & 0x80:
        at += 1
    at += 1
    while at < len(block):
        tag, kind = block[at] >> 2, block[at] & 3
        at += 1
        if kind == 0:
            if tag >= 60:
                size, tag = tag - 59, int.from_bytes(block[at:at + tag - 59], "little")
                at += size
            out += block[at:at + tag + 1]
            at += tag + 1
            continue
        if kind == 1:
            length, offset = (tag & 7) + 4, (tag >> 3) << 8 | block[at]
        else:
            length, offset = tag + 1, int.from_bytes(block[at:at + (2 if kind == 2 else 4)], "little")
        at += {1: 1, 2: 2, 3: 4}[kind]
        for _ in range(length):
            out.append(out[-offset])
    return bytes(out)


def inflate(codec, payload):
    if codec == 0 or not payload:
        return payload
    if codec == 1:
        return gzip.decompress(payload)
    if codec == 2:  # xerial blocks
        out, at = b"", 16
        while at < len(payload):
            size = struct.unpack_from(">i", payload, at)[0]
            out += unsnap(payload[at + 4:at + 4 + size])
            at += 4 + size
        return out
    tool = {3: ["lz4", "-dc"], 4: ["zstd", "-dc"]}[codec]
    return subprocess.run(tool, input=payload, stdout=subprocess.PIPE, check=True).stdout


def normal(batch, recompressed):
    """What must be the same of a batch."""
    base, size, epoch, magic, crc, attributes, delta, base_ts, max_ts, pid, pepoch, seq, count = HEADER.unpack_from(batch)
    is_original = not attributes & HORIZON and not recompressed
    if is_original:
        return batch
    data, at, records = inflate(attributes & CODEC, batch[61:]), 0, []
    for _ in range(count):
        length, at = varint(data, at)
        end, at = at + length, at + 1
        ts, at = varint(data, at)
        records.append((base_ts + ts, data[at:end]))
        at = end
    assert at == len(data)
    shown_base = None if attributes & HORIZON else base_ts
    return base, epoch, magic, attributes, delta, shown_base, max_ts, pid, pepoch, seq, count, records


def compare(kafka, ottla, recompressed):
    ours, theirs = files(ottla), files(kafka)
    if ours.keys() != theirs.keys():
        yield f"files: {sorted(theirs.keys() - ours.keys())} only of Kafka, {sorted(ours.keys() - theirs.keys())} only of Ottla"
    def sizes(content):
        return [len(batch) for batch in batches(content)]
    moved = {name[:20] for name in ours.keys() & theirs.keys()
             if name.endswith(".log") and sizes(ours[name]) != sizes(theirs[name])}
    for name in sorted(ours.keys() & theirs.keys()):
        if name.endswith("index") and not name.endswith("txnindex") and name[:20] in moved:
            continue
        if ours[name] == theirs[name] or recompressed and name.endswith("index") and not name.endswith("txnindex"):
            continue
        if not name.endswith(".log"):
            yield f"{name}: {len(theirs[name])} bytes of Kafka, {len(ours[name])} of Ottla, or other content"
            continue
        a, b = list(batches(theirs[name])), list(batches(ours[name]))
        if len(a) != len(b):
            yield f"{name}: {len(a)} batches of Kafka, {len(b)} of Ottla"
        for x, y in zip(a, b):
            if x != y and normal(x, recompressed) != normal(y, recompressed):
                yield f"{name}: batch at {HEADER.unpack_from(x)}\n  and {HEADER.unpack_from(y)}"
                break


found = list(compare(sys.argv[1], sys.argv[2], "recompressed" in sys.argv[3:]))
print("\n".join(found))
sys.exit(bool(found))
