"""kafka-python against $BOOTSTRAP; runs with the release of 2020 in Debian (2.0.2) and with today's."""
import sys
import threading
import time

import kafka
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka import errors
from kafka.admin import ConfigResource, ConfigResourceType, NewPartitions, NewTopic
from cases import BOOTSTRAP, REPLICATION, Skip, case, equal, eventually, main, unique

OLD = kafka.__version__.startswith("2.0.")
print(f"-- kafka-python {kafka.__version__}, Python {sys.version.split()[0]}")
if OLD:
    from kafka import OffsetAndMetadata as _OffsetAndMetadata

    def offset_and_metadata(offset, note):
        return _OffsetAndMetadata(offset, note)
else:
    from kafka import OffsetAndMetadata as _OffsetAndMetadata

    def offset_and_metadata(offset, note):
        return _OffsetAndMetadata(offset, note, -1)

# the released 2.0.2 guesses the version of a broker from ApiVersions; that guess is one of the things tested
admin = KafkaAdminClient(bootstrap_servers=BOOTSTRAP)


def topic(partitions=1, **config):
    name = unique("kafkapython")
    admin.create_topics([NewTopic(name, partitions, REPLICATION, topic_configs=config)])
    return name


def producer(**config):
    return KafkaProducer(bootstrap_servers=BOOTSTRAP, **config)


def consumer(*topics, **config):
    settings = dict(bootstrap_servers=BOOTSTRAP, auto_offset_reset="earliest", enable_auto_commit=False,
                    consumer_timeout_ms=15000)
    settings.update(config)
    return KafkaConsumer(*topics, **settings)


def send(name, items, **config):
    """items are keyword arguments of send(); returns the record metadata in order."""
    client = producer(**config)
    futures = [client.send(name, **item) for item in items]
    client.flush(20)
    answers = [future.get(20) for future in futures]
    client.close()
    return answers


def read(client, count):
    messages = []
    for message in client:
        messages.append(message)
        if len(messages) == count:
            break
    equal(len(messages), count, "messages")
    return messages


def refused(error, function, *args):
    try:
        answer = function(*args)
    except error:
        return
    raise AssertionError(f"{error.__name__} expected, got {answer!r}")


@case("create, list and delete a topic")
def create_delete():
    name = topic(3)
    client = consumer()
    eventually(lambda: name in admin.list_topics())
    eventually(lambda: client.partitions_for_topic(name) == {0, 1, 2})
    client.close()
    admin.delete_topics([name])
    eventually(lambda: name not in admin.list_topics())


@case("topic errors")
def topic_errors():
    name = topic()
    refused(errors.TopicAlreadyExistsError, admin.create_topics, [NewTopic(name, 1, 1)])
    refused(errors.InvalidReplicationFactorError, admin.create_topics, [NewTopic(unique("rf"), 1, 9)])
    refused(errors.InvalidTopicError, admin.create_topics, [NewTopic("a b", 1, 1)])
    refused(errors.UnknownTopicOrPartitionError, admin.delete_topics, [unique("none")])


@case("create partitions")
def create_partitions():
    name = topic()
    admin.create_partitions({name: NewPartitions(total_count=5)})
    eventually(lambda: len(consumer().partitions_for_topic(name) or ()) == 5)


@case("describe and alter configs")
def configs():
    name = topic(1, **{"retention.ms": "77777"})

    def shows(value):
        try:
            return value in repr(admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)]))
        except errors.UnknownTopicOrPartitionError:
            return False

    eventually(lambda: shows("77777"))
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs={"retention.ms": "88888"})])
    eventually(lambda: shows("88888"))


def codec_case(codec):
    @case(f"produce and consume: {codec}")
    def codec_round_trip():
        name = topic()
        items = [dict(key=b"k%d" % i, value=b"value %d " % i * 40, headers=[("h", b"%d" % i)]) for i in range(500)]
        metadata = send(name, items, compression_type=codec, linger_ms=20)
        equal(sorted(m.offset for m in metadata), list(range(500)))
        client = consumer(name)
        got = read(client, 500)
        equal([(m.key, m.value, list(m.headers)) for m in got], [(i["key"], i["value"], i["headers"]) for i in items])
        client.close()


CODECS = [None, "gzip"] if OLD else [None, "gzip", "snappy", "lz4", "zstd"]  # Debian's has no codec modules
for codec in CODECS:
    codec_case(codec)


@case("acks 0, 1, all")
def acks():
    name = topic()
    # "all" first: with 0 nobody says that a leader does not know the topic yet
    for level in ("all", 1, 0):
        send(name, [dict(value=b"x")], acks=level)
    client = consumer()
    part = TopicPartition(name, 0)
    eventually(lambda: client.end_offsets([part])[part] == 3)
    client.close()


@case("idempotent producer")
def idempotent():
    if OLD:
        raise Skip("2.0.2 has none")
    name = topic()
    metadata = send(name, [dict(value=b"%d" % i) for i in range(2000)], enable_idempotence=True)
    equal([m.offset for m in metadata], list(range(2000)))


@case("null keys and values, timestamps")
def shapes():
    name = topic()
    stamp = int(time.time() * 1000) - 50000
    send(name, [dict(key=b"k", value=None, timestamp_ms=stamp), dict(value=b"", timestamp_ms=stamp + 1)])
    client = consumer(name)
    first, second = read(client, 2)
    equal((first.key, first.value, first.timestamp), (b"k", None, stamp))
    equal((second.key, second.value, second.timestamp), (None, b"", stamp + 1))
    client.close()


@case("offsets by timestamp, begin and end")
def offsets():
    name = topic()
    base = int(time.time() * 1000) - 100000
    send(name, [dict(value=b"x", timestamp_ms=base + i * 1000) for i in range(10)], acks="all")
    client, part = consumer(), TopicPartition(name, 0)
    equal(client.offsets_for_times({part: base + 4500})[part].offset, 5)
    equal(client.offsets_for_times({part: base + 10_000_000})[part], None)
    equal((client.beginning_offsets([part]), client.end_offsets([part])), ({part: 0}, {part: 10}))
    client.close()


@case("seek and position")
def seek():
    name = topic()
    send(name, [dict(value=b"%d" % i) for i in range(10)])
    client, part = consumer(), TopicPartition(name, 0)
    client.assign([part])
    client.seek(part, 6)
    equal(read(client, 4)[0].value, b"6")
    equal(client.position(part), 10)
    client.close()


@case("group: commit and resume")
def committed():
    name, group, part = topic(), unique("g"), None
    send(name, [dict(value=b"%d" % i) for i in range(10)])
    part = TopicPartition(name, 0)
    client = consumer(name, group_id=group)
    read(client, 10)
    client.commit({part: offset_and_metadata(4, "note")})
    equal(client.committed(part), 4)
    client.close()
    client = consumer(name, group_id=group)
    equal(read(client, 6)[0].offset, 4)
    client.close()


@case("group: two members share four partitions")
def rebalance():
    name, group = topic(4), unique("g")
    stop, seen, shares = threading.Event(), [], {}

    def work(index):
        client = consumer(name, group_id=group, session_timeout_ms=6000, heartbeat_interval_ms=500)
        try:
            while not stop.is_set():
                for part, records in client.poll(timeout_ms=200).items():
                    seen.extend((part.partition, record.offset) for record in records)
                shares[index] = len(client.assignment())
        finally:
            client.close()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for i, thread in enumerate(threads):
        thread.start()
        eventually(lambda: shares.get(i), 30, "partitions for another member")
    try:
        eventually(lambda: sorted(shares.values()) == [2, 2], 30, "two partitions each")
        send(name, [dict(value=b"x", partition=i % 4) for i in range(200)])
        eventually(lambda: len(seen) >= 200, 15, "200 messages")
        equal(sorted(seen), sorted((p, o) for p in range(4) for o in range(50)))
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)


@case("group: list, describe, offsets, delete")
def group_admin():
    name, group = topic(), unique("g")
    send(name, [dict(value=b"x")])
    client = consumer(name, group_id=group)
    read(client, 1)
    client.commit()
    assert group in repr(admin.describe_consumer_groups([group]) if OLD else admin.describe_groups([group]))
    client.close()
    assert group in repr(admin.list_consumer_groups() if OLD else admin.list_groups())
    found = admin.list_consumer_group_offsets(group) if OLD else admin.list_group_offsets(group)
    assert "offset=1" in repr(found), found
    answer = admin.delete_consumer_groups([group]) if OLD else admin.delete_groups([group])
    eventually(lambda: group not in repr(admin.list_consumer_groups() if OLD else admin.list_groups()), 10, answer)


@case("produce: too large for the topic")
def too_large():
    name = topic(1, **{"max.message.bytes": "1000"})
    client = producer()
    try:
        client.send(name, b"x" * 5000).get(15)
    except errors.MessageSizeTooLargeError:
        return
    finally:
        client.close()
    raise AssertionError("accepted")


@case("automatic topic creation")
def auto_create():
    name = unique("auto")
    send(name, [dict(value=b"x")])
    client = consumer()
    eventually(lambda: client.partitions_for_topic(name) == {0, 1, 2})
    client.close()


main()
