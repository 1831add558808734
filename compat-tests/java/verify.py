"""verify.py TOTAL PRODUCER.json CONSUMER.json...: every acknowledged record read exactly once, in order a partition.

Reads what kafka-verifiable-producer and kafka-verifiable-consumer --verbose print, one JSON object a line.
"""
import collections
import json
import sys


def events(path, name):
    with open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if event.get("name") == name:
                yield event


def main():
    total, producer, consumers = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    acked = {(e["partition"], e["offset"]): e["value"] for e in events(producer, "producer_send_success")}
    read = collections.Counter()
    shares = []
    disorder = 0
    for path in consumers:
        last = {}
        shares.append(0)
        for e in events(path, "record_data"):
            key = (e["partition"], e["offset"])
            read[key] += 1
            shares[-1] += 1
            disorder += last.get(key[0], -1) >= key[1]
            last[key[0]] = key[1]
            if acked.get(key, e["value"]) != e["value"]:
                sys.exit(f"wrong value at {key}")
    lost = [k for k in acked if k not in read]
    twice = [k for k, n in read.items() if n > 1]
    print(f"{len(acked)} acknowledged, read by member {shares}, lost {len(lost)} {lost[:5]}, "
          f"twice {len(twice)} {twice[:5]}, out of order {disorder}")
    if len(acked) != total or lost or twice or disorder or not all(shares):
        sys.exit(1)


main()
