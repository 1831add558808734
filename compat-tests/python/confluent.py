"""confluent-kafka (librdkafka underneath) against $BOOTSTRAP."""
import threading
import time

from confluent_kafka import (Consumer, KafkaError, KafkaException, OFFSET_BEGINNING, Producer, TIMESTAMP_CREATE_TIME,
                             TopicPartition, ConsumerGroupState)
from confluent_kafka.admin import (AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic,
                                   OffsetSpec, ResourceType)
from cases import BOOTSTRAP, REPLICATION, case, equal, eventually, main, unique

admin = AdminClient({"bootstrap.servers": BOOTSTRAP})


def done(futures, seconds=20):
    return {key: future.result(seconds) for key, future in futures.items()}


def refused(futures):
    (future,) = futures.values()
    try:
        future.result(20)
    except KafkaException as error:
        return error.args[0].code()
    return None


def described(name, partitions):
    """The topic, None while the broker that was asked does not know it so: of several, each hears of it in its own time."""
    found = admin.list_topics(name).topics[name]
    return found if len(found.partitions) == partitions else None


def topic(partitions=1, **config):
    name = unique("confluent")
    done(admin.create_topics([NewTopic(name, partitions, REPLICATION, config=config)]))
    eventually(lambda: described(name, partitions))
    return name


def produce(name, records, **config):
    """Sends (key, value, headers, timestamp, partition) tuples; returns the messages as reported back."""
    reports = []
    producer = Producer({"bootstrap.servers": BOOTSTRAP, **config})

    def on_delivery(error, message):
        reports.append((error, message))

    for key, value, headers, timestamp, partition in records:
        producer.produce(name, value, key=key, partition=partition, on_delivery=on_delivery, timestamp=timestamp,
                         headers=headers or [])
        producer.poll(0)
    equal(producer.flush(20), 0, "left in the queue")
    equal([error for error, _ in reports if error], [], "delivery errors")
    return [message for _, message in reports]


def consumer(group, **config):
    return Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": group, "auto.offset.reset": "earliest",
                     "enable.auto.commit": False, "session.timeout.ms": 6000, **config})


def read(client, count, seconds=20):
    messages = []
    end = time.monotonic() + seconds
    while len(messages) < count and time.monotonic() < end:
        for message in client.consume(count - len(messages), 0.5):
            assert not message.error(), message.error()
            messages.append(message)
    equal(len(messages), count, "messages")
    return messages


def values(n, prefix="v"):
    return [(None, f"{prefix}{i}".encode(), None, 0, 0) for i in range(n)]


@case("create, list, describe and delete a topic")
def create_delete():
    name = topic(3, **{"retention.ms": "100000"})
    found = eventually(lambda: described(name, 3)).partitions
    equal(sorted(found), [0, 1, 2])
    equal(found[0].leader, found[0].replicas[0])
    done(admin.delete_topics([name]))
    eventually(lambda: name not in admin.list_topics().topics)


@case("create topic: errors")
def create_errors():
    name = topic()
    equal(refused(admin.create_topics([NewTopic(name, 1, 1)])), KafkaError.TOPIC_ALREADY_EXISTS)
    equal(refused(admin.create_topics([NewTopic(unique("rf"), 1, 5)])), KafkaError.INVALID_REPLICATION_FACTOR)
    equal(refused(admin.create_topics([NewTopic("a b", 1, 1)])), KafkaError.TOPIC_EXCEPTION)
    equal(refused(admin.create_topics([NewTopic(unique("c"), 1, 1, config={"x": "y"})])), KafkaError.INVALID_CONFIG)
    equal(refused(admin.delete_topics([unique("none")])), KafkaError.UNKNOWN_TOPIC_OR_PART)
    done(admin.create_topics([NewTopic(unique("dry"), 1, 1)], validate_only=True))


@case("create partitions")
def create_partitions():
    name = topic(1)
    done(admin.create_partitions([NewPartitions(name, 4)]))
    eventually(lambda: described(name, 4))
    equal(refused(admin.create_partitions([NewPartitions(name, 2)])), KafkaError.INVALID_PARTITIONS)


@case("configs: describe and alter")
def configs():
    name = topic()
    resource = ConfigResource(ResourceType.TOPIC, name)

    def value():
        try:
            return done(admin.describe_configs([resource]))[resource]["retention.ms"].value
        except KafkaException as error:
            return error.args[0].name()

    entry = ConfigEntry("retention.ms", "54321", incremental_operation=AlterConfigOpType.SET)
    done(admin.incremental_alter_configs([ConfigResource(ResourceType.TOPIC, name, incremental_configs=[entry])]))
    eventually(lambda: value() == "54321")
    brokers = admin.list_topics().brokers
    equal(len(brokers), REPLICATION)
    broker = min(brokers)
    resource = ConfigResource(ResourceType.BROKER, str(broker))
    equal(done(admin.describe_configs([resource]))[resource]["num.partitions"].value, "3")


def codec_case(codec):
    @case(f"produce and consume: {codec}")
    def produce_codec():
        name = topic()
        sent = [(f"k{i}".encode(), f"value {i} ".encode() * 50, [("h", f"{i}".encode())], 0, 0) for i in range(1000)]
        produce(name, sent, **{"compression.type": codec, "linger.ms": 20})
        client = consumer(unique("g"))
        client.subscribe([name])
        got = read(client, 1000)
        equal([(m.key(), m.value(), m.headers()) for m in got], [(k, v, h) for k, v, h, _, _ in sent])
        equal([m.offset() for m in got], list(range(1000)))
        client.close()


for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
    codec_case(codec)


@case("idempotent producer")
def idempotent():
    name = topic()
    reports = produce(name, values(5000), **{"enable.idempotence": True, "linger.ms": 1})
    equal([m.offset() for m in reports], list(range(5000)))


@case("acks 0 and 1")
def acks():
    name = topic()
    produce(name, values(10), acks=1)
    produce(name, values(10), acks=0)
    eventually(lambda: Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": "x"}).get_watermark_offsets(
        TopicPartition(name, 0), 5) == (0, 20))


@case("null keys, null values, headers, timestamps")
def shapes():
    name = topic()
    stamp = int(time.time() * 1000) - 60000
    produce(name, [(None, None, None, stamp, 0), (b"", b"", [("a", None), ("a", b"\x00\xff")], stamp + 5, 0)])
    client = consumer(unique("g"))
    client.assign([TopicPartition(name, 0, OFFSET_BEGINNING)])
    first, second = read(client, 2)
    equal((first.key(), first.value(), first.headers()), (None, None, None))
    equal((second.key(), second.value(), second.headers()), (b"", b"", [("a", None), ("a", b"\x00\xff")]))
    equal((first.timestamp(), second.timestamp()), ((TIMESTAMP_CREATE_TIME, stamp), (TIMESTAMP_CREATE_TIME, stamp + 5)))
    client.close()


@case("offsets by timestamp and watermarks")
def offsets_for_times():
    name = topic()
    base = int(time.time() * 1000) - 100000
    produce(name, [(None, b"x", None, base + i * 1000, 0) for i in range(10)])
    client = consumer(unique("g"))
    (found,) = client.offsets_for_times([TopicPartition(name, 0, base + 4500)], 10)
    equal(found.offset, 5)
    (beyond,) = client.offsets_for_times([TopicPartition(name, 0, base + 10_000_000)], 10)
    equal(beyond.offset, -1)
    equal(client.get_watermark_offsets(TopicPartition(name, 0), 10), (0, 10))
    part = TopicPartition(name, 0)
    equal(done(admin.list_offsets({part: OffsetSpec.latest()}))[part].offset, 10)
    equal(done(admin.list_offsets({part: OffsetSpec.earliest()}))[part].offset, 0)
    equal(done(admin.list_offsets({part: OffsetSpec.max_timestamp()}))[part].offset, 9)
    client.close()


@case("delete records")
def delete_records():
    name = topic()
    produce(name, values(20))
    part = TopicPartition(name, 0, 7)
    equal(list(done(admin.delete_records([part])).values())[0].low_watermark, 7)
    client = consumer(unique("g"))
    client.assign([TopicPartition(name, 0, OFFSET_BEGINNING)])
    equal(read(client, 13)[0].offset(), 7)
    client.close()


def read_to_end(name):
    client = consumer(unique("g"))
    _, end = client.get_watermark_offsets(TopicPartition(name, 0), 10)
    client.assign([TopicPartition(name, 0, OFFSET_BEGINNING)])
    messages = []
    while not messages or messages[-1].offset() < end - 1:
        messages += read(client, 1)
    client.close()
    return messages


@case("a topic that is compacted keeps the last record of each key at its offset")
def compaction():
    name = topic(**{"segment.bytes": str(1 << 20), "min.cleanable.dirty.ratio": "0.01"})
    records = [(b"key-%d" % (i % 50), None if i % 500 == 7 else b"%d-" % i + b"x" * 1000, None, 0, 0) for i in range(4000)]
    sent = produce(name, records)
    before = [(m.offset(), m.key(), m.value()) for m in read_to_end(name)]
    equal(before, [(m.offset(), record[0], record[1]) for m, record in zip(sent, records)], "before")
    policy = ConfigEntry("cleanup.policy", "compact", incremental_operation=AlterConfigOpType.SET)
    done(admin.incremental_alter_configs([ConfigResource(ResourceType.TOPIC, name, incremental_configs=[policy])]))
    eventually(lambda: len(read_to_end(name)) < 1500, 30)
    after = [(m.offset(), m.key(), m.value()) for m in read_to_end(name)]
    equal([record for record in before if record in set(after)], after, "what is left, in its order")
    equal({key: value for _, key, value in after}, {key: value for _, key, value in before}, "the last of each key")


@case("group: commit, leave, resume at the committed offset")
def committed():
    name, group = topic(), unique("g")
    produce(name, values(10))
    client = consumer(group)
    client.subscribe([name])
    read(client, 10)
    client.commit(offsets=[TopicPartition(name, 0, 4, "note")], asynchronous=False)
    client.close()
    client = consumer(group)
    equal(client.committed([TopicPartition(name, 0)], 10)[0].offset, 4)
    client.subscribe([name])
    equal(read(client, 6)[0].offset(), 4)
    client.close()


def rebalance_case(strategy):
    @case(f"group: two members share four partitions, {strategy}")
    def rebalance():
        name, group = topic(4), unique("g")
        clients = [consumer(group, **{"partition.assignment.strategy": strategy}) for _ in range(2)]
        stop = threading.Event()
        seen, shares, lock = [], {}, threading.Lock()

        def work(client):
            while not stop.is_set():
                message = client.poll(0.1)
                shares[client] = len(client.assignment())
                if message is not None and not message.error():
                    with lock:
                        seen.append((message.partition(), message.offset()))

        threads = []
        for client in clients:
            client.subscribe([name])
            threads.append(threading.Thread(target=work, args=(client,)))
            threads[-1].start()
            eventually(lambda: shares.get(client), 25, "partitions for another member")
        try:
            eventually(lambda: sorted(shares.values()) == [2, 2], 25, "two partitions each")
            produce(name, [(None, b"x", None, 0, i % 4) for i in range(400)])
            eventually(lambda: len(seen) >= 400, 15, "400 messages")
            equal(sorted(seen), sorted((p, o) for p in range(4) for o in range(100)))
            state = done(admin.describe_consumer_groups([group]))[group]
            equal(state.state, ConsumerGroupState.STABLE)
            equal(len(state.members), 2)
            equal(refused(admin.delete_consumer_groups([group])), KafkaError.NON_EMPTY_GROUP)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        clients[0].close()
        last = clients[1]
        eventually(lambda: (last.poll(0.1), len(last.assignment()))[1] == 4, 25, "all partitions at the last one")
        last.close()


for strategy in ("range", "roundrobin", "cooperative-sticky"):
    rebalance_case(strategy)


@case("group: static member comes back without a rebalance")
def static_member():
    name, group = topic(2), unique("g")
    produce(name, values(1))
    assignments = []
    for _ in range(2):
        client = consumer(group, **{"group.instance.id": "one"})
        client.subscribe([name], on_assign=lambda _, parts: assignments.append(len(parts)))
        read(client, 1)
        client.close()
    equal(assignments, [2, 2])
    members = done(admin.describe_consumer_groups([group]))[group].members
    equal([m.group_instance_id for m in members], ["one"])


@case("group: list, offsets, alter offsets, delete")
def group_admin():
    name, group = topic(), unique("g")
    produce(name, values(5))
    client = consumer(group)
    client.subscribe([name])
    read(client, 5)
    client.commit(asynchronous=False)
    client.close()
    listed = admin.list_consumer_groups().result(10)
    assert group in [g.group_id for g in listed.valid], "not listed"
    from confluent_kafka import ConsumerGroupTopicPartitions
    asked = ConsumerGroupTopicPartitions(group, [TopicPartition(name, 0)])
    equal(done(admin.list_consumer_group_offsets([asked]))[group].topic_partitions[0].offset, 5)
    change = ConsumerGroupTopicPartitions(group, [TopicPartition(name, 0, 2)])
    done(admin.alter_consumer_group_offsets([change]))
    equal(done(admin.list_consumer_group_offsets([asked]))[group].topic_partitions[0].offset, 2)
    done(admin.delete_consumer_groups([group]))
    equal(refused(admin.delete_consumer_groups([group])), KafkaError.GROUP_ID_NOT_FOUND)


@case("automatic topic creation")
def auto_create():
    name = unique("auto")
    produce(name, [(None, b"x", None, 0, -1)])
    eventually(lambda: described(name, 3))


@case("produce: too large, unknown partition")
def produce_errors():
    name = topic(1, **{"max.message.bytes": "1000"})
    errors = []
    producer = Producer({"bootstrap.servers": BOOTSTRAP, "message.timeout.ms": 8000})
    producer.produce(name, b"x" * 5000, on_delivery=lambda error, _: errors.append(error.code()))
    producer.produce(name, b"x", partition=7, on_delivery=lambda error, _: errors.append(error.code()))
    producer.flush(15)
    equal(sorted(errors), sorted([KafkaError.MSG_SIZE_TOO_LARGE, KafkaError._UNKNOWN_PARTITION]))


@case("consume: offset out of range is reset or reported")
def out_of_range():
    name = topic()
    produce(name, values(3))
    client = consumer(unique("g"))
    client.assign([TopicPartition(name, 0, 99)])
    equal(read(client, 3)[0].offset(), 0)
    client.close()
    client = consumer(unique("g"), **{"auto.offset.reset": "error"})
    client.assign([TopicPartition(name, 0, 99)])
    error = eventually(lambda: (m := client.poll(1)) and m.error())
    equal(error.code(), KafkaError._AUTO_OFFSET_RESET)
    client.close()


@case("cluster description")
def cluster():
    described = admin.describe_cluster().result(10)
    equal(len(described.nodes), REPLICATION)
    equal(len(described.cluster_id), 22)
    equal(described.controller.id in [node.id for node in described.nodes], True)


main()
