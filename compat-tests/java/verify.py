"""verify.py PRODUCER.json CONSUMER.json...: every acknowledged record is read, and not again once its offset is committed.

Reads what kafka-verifiable-producer and kafka-verifiable-consumer --verbose print, one JSON object a line. A record that
was read but whose commit was refused (a rebalance was going on) may come again, at the next owner: that is the contract.
"""
import collections
import json
import sys


def events(path):
    with open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                yield event.get("name"), event


def consume(path, acked, read, committed):
    """Counts what one consumer read and committed; returns (records, records out of order)."""
    last, pending, count, disorder = {}, collections.defaultdict(list), 0, 0
    for name, event in events(path):
        if name == "record_data":
            part, offset = event["partition"], event["offset"]
            if acked.get((part, offset), event["value"]) != event["value"]:
                sys.exit(f"wrong value at {part}/{offset}")
            disorder += last.get(part, -1) >= offset
            last[part] = offset
            read[part, offset] += 1
            pending[part].append(offset)
            count += 1
        elif name == "offsets_committed" and event["success"]:
            for done in event["offsets"]:
                part = done["partition"]
                committed.update((part, offset) for offset in pending[part] if offset < done["offset"])
                pending[part] = [offset for offset in pending[part] if offset >= done["offset"]]
        elif name == "partitions_revoked":
            # what comes back after a rebalance starts at the committed offset, which may be lower
            for part in (p["partition"] for p in event["partitions"]):
                last.pop(part, None)
                pending.pop(part, None)
    return count, disorder


def main():
    producer, consumers = sys.argv[1], sys.argv[2:]
    acked = {(e["partition"], e["offset"]): e["value"] for name, e in events(producer) if name == "producer_send_success"}
    read, committed = collections.Counter(), collections.Counter()
    results = [consume(path, acked, read, committed) for path in consumers]
    lost = [at for at in acked if at not in read]
    twice = [at for at, n in committed.items() if n > 1]
    again = sum(n - 1 for n in read.values() if n > 1)
    print(f"{len(acked)} acknowledged, read and out of order by member {results}, lost {len(lost)} {lost[:5]}, "
          f"committed twice {len(twice)} {twice[:5]}, read again without a commit {again}")
    if not acked or lost or twice or any(disorder or not count for count, disorder in results):
        sys.exit(1)


main()
