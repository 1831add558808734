// The client side of the suite: fills a broker, tells everything that clients can see of it, keeps a producer running over
// restarts, and shows files with kafka-dump-log. Each command is one JVM.
//
//   populate BOOTSTRAP ROUND BROKER   topics, records of every codec, groups, a deleted topic; transactions if BROKER is kafka
//   state BOOTSTRAP            prints all of it, one line a fact, the same for the same data
//   load BOOTSTRAP STOP        an idempotent producer that writes 0, 1, 2 ... until the file STOP exists, and a group that commits how
//                              many are acknowledged; prints how many were written, and the last commit. STOP.acked says how many
//                              are acknowledged
//   verify BOOTSTRAP N COMMIT  whether topic "load" holds 0 to N-1, each once and in order, all of one producer that never had to
//                              begin again, and the commit
//   stream BOOTSTRAP, stream-transactional BOOTSTRAP, settle DATA retention|cleaner   the byte comparison, see Stream.java
//   dump LIST                  kafka-dump-log for each line of arguments in the file LIST

import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.*;

public final class Disk {
    static final String[] CODECS = {"none", "gzip", "snappy", "lz4", "zstd"};
    /** Of the first records: the same for all commands of a run, and young enough that no producer id expires. */
    static final long TIME = Long.getLong("time");

    public static void main(String[] args) throws Exception {
        switch (args[0]) {
            case "populate" -> populate(args[1], Integer.parseInt(args[2]), args[3].equals("kafka"));
            case "state" -> state(args[1]);
            case "load" -> load(args[1], Path.of(args[2]));
            case "verify" -> verify(args[1], Integer.parseInt(args[2]), Long.parseLong(args[3]));
            case "dump" -> dump(Path.of(args[1]));
            case "stream" -> Stream.run(args[1]);
            case "stream-transactional" -> Stream.runTransactional(args[1]);
            case "settle" -> Stream.settle(Path.of(args[1]), args[2]);
            default -> throw new IllegalArgumentException(args[0]);
        }
        // Clients that a case left open on purpose must not hold the process up.
        System.out.flush();
        Runtime.getRuntime().halt(0);
    }

    static Admin admin(String bootstrap) {
        return Admin.create(Map.of("bootstrap.servers", bootstrap, "request.timeout.ms", "10000", "default.api.timeout.ms", "20000"));
    }

    static KafkaProducer<byte[], byte[]> producer(String bootstrap, Map<String, Object> extra) {
        Map<String, Object> config = new HashMap<>(Map.of("bootstrap.servers", bootstrap, "linger.ms", "5", "max.block.ms", "30000"));
        config.putAll(extra);
        return new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer());
    }

    static KafkaConsumer<byte[], byte[]> consumer(String bootstrap, Map<String, Object> extra) {
        Map<String, Object> config = new HashMap<>(Map.of("bootstrap.servers", bootstrap, "auto.offset.reset", "earliest",
            "enable.auto.commit", "false", "request.timeout.ms", "10000", "default.api.timeout.ms", "20000"));
        config.putAll(extra);
        return new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    static NewTopic topic(String name, int partitions, String... configs) {
        Map<String, String> map = new HashMap<>();
        for (int i = 0; i < configs.length; i += 2) map.put(configs[i], configs[i + 1]);
        return new NewTopic(name, partitions, (short) 1).configs(map);
    }

    // ---- populate --------------------------------------------------------------------------------------------------

    static void populate(String bootstrap, int round, boolean transactions) throws Exception {
        try (Admin admin = admin(bootstrap)) {
            List<NewTopic> topics = new ArrayList<>();
            if (round == 1) {
                for (String codec : CODECS) topics.add(topic("codec-" + codec, 2, "internal.segment.bytes", "150000", "index.interval.bytes", "1024"));
                topics.add(topic("compacted", 1, "cleanup.policy", "compact", "min.cleanable.dirty.ratio", "0.9"));
                topics.add(topic("configured", 3, "retention.ms", "123456789", "max.message.bytes", "54321", "cleanup.policy", "compact,delete"));
                topics.add(topic("transactions", 2));
                topics.add(topic("deleted-before", 1));
                topics.add(topic("load", 3));
            }
            topics.add(topic("deleted-" + round, 2));
            admin.createTopics(topics).all().get();
            fill(bootstrap, "deleted-" + round, "none", round, 20, 100, Map.of());
            for (String codec : CODECS) fill(bootstrap, "codec-" + codec, codec, round, 900, 2000, Map.of());
            fill(bootstrap, "compacted", "lz4", round, 500, 50, Map.of("enable.idempotence", "false", "acks", "1"));
            admin.deleteTopics(List.of(round == 1 ? "deleted-before" : "deleted-" + (round - 1))).all().get();
            ConfigResource configured = new ConfigResource(ConfigResource.Type.TOPIC, "configured");
            admin.incrementalAlterConfigs(Map.of(configured, List.of(
                new AlterConfigOp(new ConfigEntry("retention.bytes", String.valueOf(1_000_000 + round)), AlterConfigOp.OpType.SET)))).all().get();
            admin.incrementalAlterConfigs(Map.of(new ConfigResource(ConfigResource.Type.BROKER, ""), List.of(
                new AlterConfigOp(new ConfigEntry("message.max.bytes", String.valueOf(2_000_000 + round)), AlterConfigOp.OpType.SET)))).all().get();
            if (round > 1) admin.createPartitions(Map.of("configured", NewPartitions.increaseTo(2 + round))).all().get();
            groups(bootstrap, admin, round);
        }
        // Ottla keeps what transactions left, and serves none yet.
        if (transactions) transactions(bootstrap, round);
    }

    static void fill(String bootstrap, String topic, String codec, int round, int count, int size, Map<String, Object> extra) throws Exception {
        Random random = new Random(topic.hashCode() * 31L + round);
        Map<String, Object> config = new HashMap<>(Map.of("compression.type", codec));
        config.putAll(extra);
        try (KafkaProducer<byte[], byte[]> producer = producer(bootstrap, config)) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (int i = 0; i < count; i++) {
                byte[] value = new byte[random.nextInt(size)];
                random.nextBytes(value);
                byte[] key = ("key-" + random.nextInt(200)).getBytes();
                boolean tombstone = topic.equals("compacted") && i % 50 == 7;
                ProducerRecord<byte[], byte[]> record =
                    new ProducerRecord<>(topic, null, TIME + round * 1_000_000L + i * 7L - (i % 5) * 20L, key, tombstone ? null : value);
                if (i % 10 == 0) record.headers().add("header", ("h" + i).getBytes()).add("empty", null);
                sent.add(producer.send(record));
            }
            for (Future<RecordMetadata> one : sent) one.get();
        }
    }

    static void groups(String bootstrap, Admin admin, int round) throws Exception {
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(bootstrap, Map.of("group.id", "readers", "max.poll.records", "50"))) {
            consumer.subscribe(List.of("codec-none", "codec-zstd"));
            for (int seen = 0; seen < 200; ) seen += consumer.poll(Duration.ofMillis(200)).count();
            consumer.commitSync();
        }
        TopicPartition tp = new TopicPartition("codec-lz4", 1);
        admin.alterConsumerGroupOffsets("by-admin-" + round, Map.of(tp, new OffsetAndMetadata(17 + round, Optional.of(0), "note " + round))).all().get();
        if (round > 1) admin.deleteConsumerGroups(List.of("by-admin-" + (round - 1))).all().get();
    }

    static void transactions(String bootstrap, int round) throws Exception {
        Map<String, Object> config = Map.of("transactional.id", "writer-" + round, "transaction.timeout.ms", "900000");
        // Never closed: closing aborts.
        KafkaProducer<byte[], byte[]> producer = producer(bootstrap, config);
        producer.initTransactions();
        for (int t = 0; t < 6; t++) {
            producer.beginTransaction();
            for (int i = 0; i < 20; i++) {
                producer.send(new ProducerRecord<>("transactions", i % 2, TIME + t * 100 + i, ("t" + t).getBytes(), ("r" + round + " " + i).getBytes()));
            }
            producer.flush();
            if (t == 2 || t == 3) {
                producer.abortTransaction();
            } else if (t == 4) {
                producer.sendOffsetsToTransaction(
                    Map.of(new TopicPartition("codec-gzip", 0), new OffsetAndMetadata(40 + round, "in a transaction")),
                    new ConsumerGroupMetadata("transactional-" + round));
                producer.commitTransaction();
            } else if (t < 4) {
                producer.commitTransaction();
            }
            // The last one stays open on purpose.
        }
    }

    // ---- state -----------------------------------------------------------------------------------------------------

    static void state(String bootstrap) throws Exception {
        TreeSet<String> lines = new TreeSet<>();
        try (Admin admin = admin(bootstrap)) {
            Set<String> names = admin.listTopics(new ListTopicsOptions().listInternal(true)).names().get();
            Map<String, TopicDescription> topics = admin.describeTopics(names).allTopicNames().get();
            Map<TopicPartition, String> digests = new HashMap<>();
            List<TopicPartition> partitions = new ArrayList<>();
            for (TopicDescription topic : topics.values()) {
                lines.add("topic " + topic.name() + " " + topic.topicId() + " partitions " + topic.partitions().size());
                for (TopicPartitionInfo p : topic.partitions()) {
                    if (!topic.isInternal() && !topic.name().equals("load")) partitions.add(new TopicPartition(topic.name(), p.partition()));
                }
            }
            configs(admin, names, lines);
            offsets(admin, partitions, lines);
            producers(admin, partitions, lines);
            for (IsolationLevel level : IsolationLevel.values()) {
                Map<String, Object> config = Map.of("isolation.level", level.toString().toLowerCase(Locale.ROOT), "fetch.max.wait.ms", "50");
                try (KafkaConsumer<byte[], byte[]> consumer = consumer(bootstrap, config)) {
                    for (TopicPartition tp : partitions) lines.add("records " + tp + " " + level + " " + records(consumer, tp));
                }
            }
            for (GroupListing group : admin.listGroups().all().get()) {
                if (group.groupId().equals(LOAD_GROUP)) continue;
                Map<TopicPartition, OffsetAndMetadata> committed =
                    new TreeMap<>(Comparator.comparing(TopicPartition::toString));
                committed.putAll(admin.listConsumerGroupOffsets(group.groupId()).partitionsToOffsetAndMetadata().get());
                lines.add("group " + group.groupId() + " " + group.protocol() + " " + committed);
            }
        }
        lines.forEach(System.out::println);
    }

    static void configs(Admin admin, Set<String> topics, TreeSet<String> lines) throws Exception {
        List<ConfigResource> resources = new ArrayList<>();
        for (String topic : topics) resources.add(new ConfigResource(ConfigResource.Type.TOPIC, topic));
        resources.add(new ConfigResource(ConfigResource.Type.BROKER, ""));
        admin.describeConfigs(resources).all().get().forEach((resource, config) -> {
            for (ConfigEntry entry : config.entries()) {
                if (entry.source() == ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG
                    || entry.source() == ConfigEntry.ConfigSource.DYNAMIC_DEFAULT_BROKER_CONFIG) {
                    lines.add("config " + resource.type() + " " + resource.name() + " " + entry.name() + "=" + entry.value() + " " + entry.source());
                }
            }
        });
    }

    static void offsets(Admin admin, List<TopicPartition> partitions, TreeSet<String> lines) throws Exception {
        Map<String, OffsetSpec> specs = Map.of("earliest", OffsetSpec.earliest(), "latest", OffsetSpec.latest(),
            "max-timestamp", OffsetSpec.maxTimestamp(), "by-time", OffsetSpec.forTimestamp(TIME + 1_003_000));
        for (var spec : specs.entrySet()) {
            Map<TopicPartition, OffsetSpec> request = new HashMap<>();
            for (TopicPartition tp : partitions) request.put(tp, spec.getValue());
            for (IsolationLevel level : IsolationLevel.values()) {
                admin.listOffsets(request, new ListOffsetsOptions(level)).all().get().forEach((tp, found) ->
                    lines.add("offset " + tp + " " + spec.getKey() + " " + level + " " + found.offset() + " at " + found.timestamp()));
            }
        }
    }

    static void producers(Admin admin, List<TopicPartition> partitions, TreeSet<String> lines) throws Exception {
        admin.describeProducers(partitions).all().get().forEach((tp, found) -> {
            for (ProducerState p : found.activeProducers()) {
                lines.add("producer " + tp + " " + p.producerId() + " epoch " + p.producerEpoch() + " sequence " + p.lastSequence()
                    + " time " + p.lastTimestamp() + " coordinator " + p.coordinatorEpoch() + " open " + p.currentTransactionStartOffset());
            }
        });
    }

    static String records(KafkaConsumer<byte[], byte[]> consumer, TopicPartition tp) throws Exception {
        MessageDigest digest = MessageDigest.getInstance("SHA-256");
        long count = 0;
        consumer.assign(List.of(tp));
        long end = consumer.endOffsets(List.of(tp)).get(tp);
        consumer.seekToBeginning(List.of(tp));
        while (consumer.position(tp) < end) {
            for (ConsumerRecord<byte[], byte[]> r : consumer.poll(Duration.ofMillis(500))) {
                count++;
                digest.update((r.offset() + " " + r.timestamp() + " " + r.timestampType() + " " + text(r.key()) + " " + text(r.value())).getBytes());
                r.headers().forEach(h -> digest.update((h.key() + "=" + text(h.value())).getBytes()));
            }
        }
        return count + " " + HexFormat.of().formatHex(digest.digest(), 0, 8);
    }

    static String text(byte[] bytes) {
        return bytes == null ? "null" : new String(bytes, StandardCharsets.ISO_8859_1);
    }

    // ---- load ------------------------------------------------------------------------------------------------------

    static final String LOAD_GROUP = "under-load";

    static void load(String bootstrap, Path stop) throws Exception {
        Map<String, Object> config = Map.of("delivery.timeout.ms", "120000", "request.timeout.ms", "5000", "max.block.ms", "120000",
            "reconnect.backoff.max.ms", "200", "retry.backoff.max.ms", "200", "compression.type", "lz4");
        int next = 0;
        Path progress = Path.of(stop + ".acked");
        java.util.concurrent.atomic.AtomicInteger acked = new java.util.concurrent.atomic.AtomicInteger();
        List<Exception> failed = Collections.synchronizedList(new ArrayList<>());
        CompletableFuture<Long> committed = CompletableFuture.supplyAsync(() -> commit(bootstrap, stop, acked));
        try (KafkaProducer<byte[], byte[]> producer = producer(bootstrap, config)) {
            while (!Files.exists(stop) && failed.isEmpty()) {
                for (int i = 0; i < 5; i++, next++) {
                    producer.send(new ProducerRecord<>("load", next % 3, null, String.valueOf(next).getBytes()), (m, e) -> {
                        if (e != null) failed.add(e);
                        else acked.incrementAndGet();
                    });
                }
                // A pace, not a wait for something: about a thousand records a second.
                Thread.sleep(5);
                if (next % 100 == 0) Files.writeString(progress, acked + "\n");
            }
        }
        if (!failed.isEmpty()) throw failed.get(0);
        System.out.println(next + " " + committed.get());
    }

    static long commit(String bootstrap, Path stop, java.util.concurrent.atomic.AtomicInteger acked) {
        long committed = -1;
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", bootstrap, "default.api.timeout.ms", "120000", "request.timeout.ms", "5000"))) {
            while (!Files.exists(stop)) {
                long now = acked.get();
                admin.alterConsumerGroupOffsets(LOAD_GROUP, Map.of(new TopicPartition("load", 0), new OffsetAndMetadata(now))).all().get();
                committed = now;
                Thread.sleep(50);
            }
        } catch (InterruptedException | ExecutionException e) {
            throw new IllegalStateException(e);
        }
        return committed;
    }

    static void verify(String bootstrap, int n, long committed) throws Exception {
        try (Admin admin = admin(bootstrap)) {
            TopicPartition first = new TopicPartition("load", 0);
            var offsets = admin.listConsumerGroupOffsets(LOAD_GROUP).partitionsToOffsetAndMetadata().get();
            if (offsets.get(first).offset() != committed) wrong("committed " + committed + ", now " + offsets);
            for (int p = 0; p < 3; p++) {
                TopicPartition tp = new TopicPartition("load", p);
                var producers = admin.describeProducers(List.of(tp)).partitionResult(tp).get().activeProducers();
                int last = (n - p + 2) / 3 - 1;
                if (producers.size() != 1 || producers.get(0).producerEpoch() != 0 || producers.get(0).lastSequence() != last) {
                    wrong(tp + " of " + (last + 1) + " records: " + producers);
                }
            }
        }
        for (int p = 0; p < 3; p++) {
            TopicPartition tp = new TopicPartition("load", p);
            int expected = p;
            try (KafkaConsumer<byte[], byte[]> consumer = consumer(bootstrap, Map.of("fetch.max.wait.ms", "50"))) {
                consumer.assign(List.of(tp));
                long end = consumer.endOffsets(List.of(tp)).get(tp);
                consumer.seekToBeginning(List.of(tp));
                while (consumer.position(tp) < end) {
                    for (ConsumerRecord<byte[], byte[]> r : consumer.poll(Duration.ofMillis(500))) {
                        if (Integer.parseInt(text(r.value())) != expected) {
                            wrong(tp + " offset " + r.offset() + ": " + text(r.value()) + " where " + expected + " belongs");
                        }
                        expected += 3;
                    }
                }
            }
            if (expected < n) wrong(tp + " ends before " + expected + " of " + n);
        }
    }

    static void wrong(String what) {
        System.out.println(what);
        System.out.flush();
        Runtime.getRuntime().halt(1);
    }

    // ---- dump ------------------------------------------------------------------------------------------------------

    static void dump(Path list) throws Exception {
        for (String line : Files.readAllLines(list)) {
            System.out.println("== " + line.substring(0, Math.min(line.length(), 60)));
            try {
                org.apache.kafka.tools.DumpLogSegments.main(line.trim().split(" +"));
            } catch (Exception e) {
                System.out.flush();
                System.err.println(e.getMessage());
            }
        }
    }
}
