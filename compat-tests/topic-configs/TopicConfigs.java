// One case a topic config: seen not to have its effect, changed with IncrementalAlterConfigs while the broker runs, seen to
// have it. Cases run side by side, each with a topic of its own.
//   TopicConfigs BOOTSTRAP DATA-DIRECTORY [CONFIG...]      one `ok` or `FAIL` line each

import java.io.File;
import java.nio.file.*;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.record.internal.*;
import org.apache.kafka.common.serialization.*;

public class TopicConfigs {
    interface Body { void run(Topic topic) throws Exception; }

    static final Map<String, Body> CASES = new LinkedHashMap<>();
    static final String SMALL = "internal.segment.bytes";
    static final long HOUR = 3_600_000, NOW = System.currentTimeMillis();
    static String bootstrap;
    static Path data;
    static Admin admin;
    /// A batch for each record.
    static KafkaProducer<byte[], byte[]> producer;

    static {
        CASES.put("cleanup.policy", t -> {
            t.create(SMALL, "10000", "min.cleanable.dirty.ratio", "0.01").sendKeys(100);
            t.stays("all records", () -> t.count() == 100);
            t.change("compact").soon("fewer records", () -> t.count() < 100);
        });
        CASES.put("compression.gzip.level", t -> level(t, "gzip", "1", "9"));
        // Level 9 is the fast compressor; all others are the slow one's.
        CASES.put("compression.lz4.level", t -> level(t, "lz4", "9", "17"));
        CASES.put("compression.zstd.level", t -> level(t, "zstd", "1", "19"));
        CASES.put("compression.type", t -> {
            t.create().send(1, 500).is("not compressed", t.last().compressionType() == CompressionType.NONE);
            t.change("gzip").soon("gzip", () -> t.send(1, 500).last().compressionType() == CompressionType.GZIP);
            t.change("uncompressed").soon("none", () -> t.send(1, 500).last().compressionType() == CompressionType.NONE);
        });
        CASES.put("delete.retention.ms", t -> {
            t.create(SMALL, "10000", "cleanup.policy", "compact", "min.cleanable.dirty.ratio", "0.01");
            t.sendOne("kept", new byte[10], NOW).sendOne("kept", null, NOW).sendKeys(60);
            t.soon("a clean log", () -> t.count() < 62);
            t.change("0").sendOne("gone", new byte[10], NOW).sendOne("gone", null, NOW);
            t.soon("no tombstone", () -> { t.sendKeys(20); return !t.keys().contains("gone"); });
            // Its time was set when it was cleaned (KIP-534).
            t.is("the earlier tombstone", t.keys().contains("kept"));
        });
        CASES.put("file.delete.delay.ms", t -> {
            t.create(SMALL, "10000").send(100, 1000).deleteUntil(30);
            t.soon("deleted files", () -> t.files(".log.deleted").size() >= 2);
            t.stays("deleted files", () -> t.files(".log.deleted").size() >= 2);
            int waiting = t.files(".log.deleted").size(), left = t.files(".log").size();
            t.change("100").deleteUntil(90).soon("fewer segments", () -> t.files(".log").size() < left - 2);
            t.soon("no more deleted files", () -> t.files(".log.deleted").size() == waiting);
        });
        CASES.put("flush.messages", t -> {
            t.create().send(10, 100).stays("nothing synced", () -> t.recoveryPoint() <= 0);
            t.change("1").soon("all synced", () -> { t.send(1, 100); return t.recoveryPoint() > 10; });
        });
        CASES.put("flush.ms", t -> {
            t.create().send(10, 100).stays("nothing synced", () -> t.recoveryPoint() <= 0);
            t.change("100").soon("all synced", () -> t.recoveryPoint() == 10);
        });
        CASES.put("index.interval.bytes", t -> {
            t.create(SMALL, "50000").send(60, 1000);
            long before = t.files(".index").get(0).length();
            t.change("100").send(150, 1000);
            t.is("more entries", before > 0 && t.files(".index").get(2).length() > 2 * before);
        });
        CASES.put("max.compaction.lag.ms", t -> {
            t.create(SMALL, "10000", "cleanup.policy", "compact", "min.cleanable.dirty.ratio", "1").sendKeys(100);
            t.stays("all records", () -> t.count() == 100);
            t.change("500").soon("fewer records", () -> t.count() < 100);
        });
        CASES.put("max.message.bytes", t -> {
            t.create().send(1, 5000).change("1000").soon("refused", () -> !t.takes(5000, NOW));
            t.change("10000").soon("taken", () -> t.takes(5000, NOW));
        });
        CASES.put("message.timestamp.after.max.ms", t -> {
            t.create().is("refused", !t.takes(10, NOW + 2 * HOUR)).change("10000000").soon("taken", () -> t.takes(10, NOW + 2 * HOUR));
        });
        CASES.put("message.timestamp.before.max.ms", t -> {
            t.create().is("taken", t.takes(10, NOW - 2 * HOUR)).change("3600000").soon("refused", () -> !t.takes(10, NOW - 2 * HOUR));
        });
        CASES.put("message.timestamp.type", t -> {
            t.create().sendOne(null, new byte[1], NOW - HOUR).is("the client's time", t.last().maxTimestamp() == NOW - HOUR);
            t.change("LogAppendTime").soon("the broker's time", () -> t.sendOne(null, new byte[1], NOW - HOUR).last().maxTimestamp() >= NOW);
        });
        CASES.put("min.cleanable.dirty.ratio", t -> {
            t.create(SMALL, "10000", "cleanup.policy", "compact", "min.cleanable.dirty.ratio", "1").sendKeys(100);
            t.stays("all records", () -> t.count() == 100);
            t.change("0.01").soon("fewer records", () -> t.count() < 100);
        });
        CASES.put("min.compaction.lag.ms", t -> {
            t.create(SMALL, "10000", "cleanup.policy", "compact", "min.cleanable.dirty.ratio", "0.01", "min.compaction.lag.ms", "100000000");
            t.sendKeys(100).stays("all records", () -> t.count() == 100);
            t.change("0").soon("fewer records", () -> t.count() < 100);
        });
        CASES.put("preallocate", t -> {
            t.create(SMALL, "50000").send(60, 1000).is("only what was written", t.files(".log").get(1).length() < 20_000);
            t.change("true").send(60, 1000).is("allocated", t.files(".log").get(2).length() == 50_000);
            t.is("the others cut", t.files(".log").get(1).length() < 50_000);
        });
        CASES.put("retention.bytes", t -> {
            t.create(SMALL, "10000").send(100, 1000).stays("all", () -> t.earliest() == 0);
            t.change("30000").soon("a later start", () -> t.earliest() > 0).is("that much left", t.earliest() <= 71);
        });
        CASES.put("retention.ms", t -> {
            t.create().sendOne(null, new byte[1], NOW - HOUR).stays("all", () -> t.earliest() == 0);
            t.change("60000").soon("nothing left", () -> t.earliest() == 1);
        });
        CASES.put("segment.bytes", t -> {
            t.create("segment.bytes", "10000000").send(4, 600_000).is("one segment", t.files(".log").size() == 1);
            t.change("1048576").send(4, 600_000).is("a segment for each", t.files(".log").size() == 5);
        });
        CASES.put("segment.index.bytes", t -> {
            t.create(SMALL, "20000", "index.interval.bytes", "0").send(100, 1000);
            int before = t.files(".log").size();
            t.change("50").send(100, 1000).is("smaller segments, " + before, t.files(".log").size() > 3 * before);
        });
        CASES.put("segment.jitter.ms", t -> {
            t.create("segment.ms", "10000000", "retention.ms", "-1").sendEvery(60, 5_000_000, 0).is("20 segments", t.files(".log").size() == 20);
            // Every segment is between none and all of segment.ms younger than it may be: 1.5 records each, not 3.
            t.change("10000000").sendEvery(60, 5_000_000, 60).is("about 40 more", t.files(".log").size() > 42);
        });
        CASES.put("segment.ms", t -> {
            t.create("retention.ms", "-1").sendEvery(3, 2000, 0).is("one segment", t.files(".log").size() == 1);
            t.change("1000").sendEvery(3, 2000, 3).is("one for each", t.files(".log").size() == 4);
        });
    }

    static void level(Topic t, String codec, String low, String high) throws Exception {
        t.create("compression.type", codec, "compression." + codec + ".level", low);
        byte[] text = text(200_000);
        int before = t.sendOne(null, text, NOW).last().sizeInBytes();
        t.is("compressed", before < text.length * 9 / 10);
        t.change(high).soon("smaller than " + before, () -> t.sendOne(null, text, NOW).last().sizeInBytes() < before);
    }

    /// Words of few letters: levels differ on it.
    static byte[] text(int size) {
        Random random = new Random(1);
        String[] words = new String[2000];
        for (int i = 0; i < words.length; i++) words[i] = Integer.toString(random.nextInt(1 << 28), 26);
        StringBuilder text = new StringBuilder();
        while (text.length() < size) text.append(words[(int) Math.abs(random.nextGaussian() * 500) % words.length]).append(' ');
        return text.toString().getBytes();
    }

    /// The topic of one case.
    static class Topic {
        final String config, name;
        final TopicPartition partition;

        Topic(String config) {
            this.config = config;
            this.name = "changes-" + config;
            this.partition = new TopicPartition(name, 0);
        }

        Topic create(String... configs) throws Exception {
            Map<String, String> map = new HashMap<>();
            for (int i = 0; i < configs.length; i += 2) map.put(configs[i], configs[i + 1]);
            admin.createTopics(List.of(new NewTopic(name, 1, (short) 1).configs(map))).all().get();
            return this;
        }

        Topic change(String value) throws Exception {
            admin.incrementalAlterConfigs(Map.of(new ConfigResource(ConfigResource.Type.TOPIC, name),
                List.of(new AlterConfigOp(new ConfigEntry(config, value), AlterConfigOp.OpType.SET)))).all().get();
            // A broker follows the metadata log: what is in effect is described.
            soon("described", () -> admin.describeConfigs(List.of(new ConfigResource(ConfigResource.Type.TOPIC, name))).all().get()
                .values().iterator().next().get(config).value().equals(value));
            return this;
        }

        Topic sendOne(String key, byte[] value, long timestamp) throws Exception {
            producer.send(new ProducerRecord<>(name, 0, timestamp, key == null ? null : key.getBytes(), value)).get();
            return this;
        }
        Topic send(int count, int size) throws Exception {
            for (int i = 0; i < count; i++) sendOne(null, new byte[size], NOW);
            return this;
        }
        /// Records of 1000 bytes with ten keys, over and over.
        Topic sendKeys(int count) throws Exception {
            for (int i = 0; i < count; i++) sendOne("key-" + i % 10, new byte[1000], NOW);
            return this;
        }
        /// Records whose timestamps are that far apart, long ago.
        Topic sendEvery(int count, long ms, int from) throws Exception {
            for (int i = from; i < from + count; i++) sendOne(null, new byte[1], NOW - 100 * 24 * HOUR + i * ms);
            return this;
        }
        boolean takes(int size, long timestamp) throws Exception {
            try {
                sendOne(null, new byte[size], timestamp);
                return true;
            } catch (ExecutionException e) {
                if (e.getCause() instanceof org.apache.kafka.common.errors.RecordTooLargeException
                    || e.getCause() instanceof org.apache.kafka.common.errors.InvalidTimestampException) return false;
                throw e;
            }
        }
        Topic deleteUntil(long offset) throws Exception {
            admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(offset))).all().get();
            return this;
        }

        long earliest() throws Exception {
            return admin.listOffsets(Map.of(partition, OffsetSpec.earliest())).all().get().get(partition).offset();
        }
        List<ConsumerRecord<byte[], byte[]>> read() {
            Map<String, Object> config = Map.of("bootstrap.servers", bootstrap, "auto.offset.reset", "earliest", "fetch.max.wait.ms", "20");
            List<ConsumerRecord<byte[], byte[]>> all = new ArrayList<>();
            try (var consumer = new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
                consumer.assign(List.of(partition));
                long end = consumer.endOffsets(List.of(partition)).get(partition);
                while (consumer.position(partition) < end) consumer.poll(Duration.ofMillis(100)).forEach(all::add);
            }
            return all;
        }
        int count() { return read().size(); }
        Set<String> keys() {
            Set<String> keys = new HashSet<>();
            for (var r : read()) keys.add(new String(r.key()));
            return keys;
        }
        List<File> files(String suffix) {
            File[] found = data.resolve(name + "-0").toFile().listFiles((dir, file) -> file.endsWith(suffix));
            Arrays.sort(found);
            return List.of(found);
        }
        /// The last batch on disk.
        RecordBatch last() throws Exception {
            List<File> logs = files(".log");
            RecordBatch last = null;
            try (FileRecords records = FileRecords.open(logs.get(logs.size() - 1), false)) {
                // Read while the file is open.
                for (var batch : records.batches()) { batch.checksum(); last = copy(batch); }
            }
            return last;
        }
        static RecordBatch copy(FileLogInputStream.FileChannelRecordBatch batch) {
            java.nio.ByteBuffer bytes = java.nio.ByteBuffer.allocate(batch.sizeInBytes());
            batch.writeTo(bytes);
            bytes.flip();
            return MemoryRecords.readableRecords(bytes).batches().iterator().next();
        }
        long recoveryPoint() throws Exception {
            for (String line : Files.readAllLines(data.resolve("recovery-point-offset-checkpoint"))) {
                if (line.startsWith(name + " 0 ")) return Long.parseLong(line.substring(name.length() + 3));
            }
            return -1;
        }

        Topic is(String what, boolean there) {
            if (!there) throw new AssertionError("not there: " + what + "; " + summary());
            return this;
        }
        String summary() {
            StringBuilder text = new StringBuilder();
            for (File file : files("")) text.append(file.getName().replaceAll("^0+(?=\\d)", "")).append(' ').append(file.length()).append(", ");
            return text.toString();
        }
        Topic soon(String what, Callable<Boolean> there) throws Exception {
            Exception last = null;
            for (long until = System.nanoTime() + 20_000_000_000L; System.nanoTime() < until; Thread.sleep(50)) {
                try {
                    if (there.call()) return this;
                } catch (org.apache.kafka.common.KafkaException | NoSuchFileException e) {
                    last = e; // a file that goes away under the eyes, and the like
                }
            }
            throw new AssertionError("not within 20 s: " + what + (last == null ? "" : ", " + last) + "; " + summary());
        }
        /// Over a second, in which retention, cleaner and flusher ran several times.
        Topic stays(String what, Callable<Boolean> there) throws Exception {
            for (int i = 0; i < 4; i++, Thread.sleep(250)) is(what, there.call());
            return this;
        }
    }

    public static void main(String[] args) throws Exception {
        bootstrap = args[0];
        data = Path.of(args[1]);
        List<String> only = List.of(args).subList(2, args.length);
        admin = Admin.create(Map.of("bootstrap.servers", bootstrap));
        producer = new KafkaProducer<>(Map.of("bootstrap.servers", bootstrap, "batch.size", "0", "linger.ms", "0"),
            new ByteArraySerializer(), new ByteArraySerializer());
        ExecutorService pool = Executors.newFixedThreadPool(6);
        for (var one : CASES.entrySet()) {
            if (!only.isEmpty() && !only.contains(one.getKey())) continue;
            pool.submit(() -> {
                String line = "ok    " + one.getKey();
                try {
                    one.getValue().run(new Topic(one.getKey()));
                } catch (Throwable e) {
                    line = "FAIL  " + one.getKey() + ": " + e.getMessage();
                }
                System.out.println(line);
            });
        }
        pool.shutdown();
        pool.awaitTermination(5, TimeUnit.MINUTES);
        System.exit(0);
    }
}
