// The record stream of the byte comparison: the same requests, batch for batch and byte for byte, to any broker. Batches,
// timestamps, producer ids and sequences are made here, so that nothing in the files may depend on the broker but what
// bytes.sh names.

import java.io.*;
import java.net.Socket;
import java.nio.ByteBuffer;
import java.nio.file.*;
import java.util.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.message.*;
import org.apache.kafka.common.protocol.*;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.record.internal.*;
import org.apache.kafka.common.utils.ByteBufferOutputStream;

final class Stream {
    static final long TIME = Disk.TIME;
    static final String[] SEGMENTED = {"segment.bytes", "1048576", "index.interval.bytes", "1024"};

    private final DataInputStream in;
    private final OutputStream out;
    private int correlationId;

    private Stream(String bootstrap) throws IOException {
        String[] at = bootstrap.split(":");
        Socket socket = new Socket(at[0], Integer.parseInt(at[1]));
        socket.setTcpNoDelay(true);
        in = new DataInputStream(new BufferedInputStream(socket.getInputStream()));
        out = socket.getOutputStream();
    }

    static void run(String bootstrap) throws Exception {
        try (Admin admin = Disk.admin(bootstrap)) {
            admin.createTopics(List.of(
                Disk.topic("plain", 2, SEGMENTED),
                Disk.topic("codecs", 1, SEGMENTED),
                Disk.topic("idempotent", 1, SEGMENTED),
                Disk.topic("index-full", 1, "segment.index.bytes", "96", "index.interval.bytes", "1024"),
                Disk.topic("by-time", 1, "segment.ms", "60000", "index.interval.bytes", "0"),
                Disk.topic("no-timestamps", 1, SEGMENTED),
                Disk.topic("preallocated", 1, "preallocate", "true", "segment.bytes", "1048576"),
                Disk.topic("deleted-records", 1, SEGMENTED),
                Disk.topic("retained-by-size", 1, "segment.bytes", "1048576", "file.delete.delay.ms", "100", "retention.ms", "-1"),
                Disk.topic("retained-by-time", 1, "segment.bytes", "1048576", "file.delete.delay.ms", "100", "retention.ms", "-1"),
                Disk.topic("compacted-gzip", 1, "segment.bytes", "1048576", "file.delete.delay.ms", "100", "retention.ms", "-1"),
                Disk.topic("compacted", 1, "segment.bytes", "1048576", "file.delete.delay.ms", "100", "retention.ms", "-1"),
                Disk.topic("transactional", 1, SEGMENTED))).all().get();
            Stream stream = new Stream(bootstrap);
            stream.plain("plain", 0, 1, 700, i -> TIME + i * 40L - (i % 7) * 100L);
            stream.plain("plain", 1, 2, 3, i -> TIME);
            stream.plain("no-timestamps", 0, 3, 120, i -> -1L);
            stream.plain("preallocated", 0, 4, 100, i -> TIME + i);
            stream.plain("deleted-records", 0, 5, 500, i -> TIME + i);
            stream.plain("retained-by-size", 0, 6, 900, i -> TIME + i);
            stream.plain("retained-by-time", 0, 7, 900, i -> TIME + i);
            stream.plain("index-full", 0, 8, 90, i -> TIME + i);
            stream.plain("by-time", 0, 9, 40, i -> TIME + i * 9000L - (i % 3) * 5000L);
            stream.codecs();
            stream.idempotent();
            stream.keyed("compacted", Compression.NONE);
            stream.keyed("compacted-gzip", Compression.gzip().build());
            admin.deleteRecords(Map.of(new TopicPartition("deleted-records", 0), RecordsToDelete.beforeOffset(1234))).all().get();
            // Only now: with the policy from the start, the cleaner could meet any part of the stream.
            for (String topic : new String[] {"compacted", "compacted-gzip"}) set(admin, topic, "cleanup.policy", "compact", "min.cleanable.dirty.ratio", "0.01");
            set(admin, "retained-by-size", "retention.bytes", "700000");
            set(admin, "retained-by-time", "retention.ms", "3600000");
        }
    }

    /** Transactions as their producers and coordinators would write them, to the topic that `run` made. */
    static void runTransactional(String bootstrap) throws Exception {
        new Stream(bootstrap).transactional();
    }

    static void set(Admin admin, String topic, String... configs) throws Exception {
        List<AlterConfigOp> ops = new ArrayList<>();
        for (int i = 0; i < configs.length; i += 2) ops.add(new AlterConfigOp(new ConfigEntry(configs[i], configs[i + 1]), AlterConfigOp.OpType.SET));
        admin.incrementalAlterConfigs(Map.of(new ConfigResource(ConfigResource.Type.TOPIC, topic), ops)).all().get();
    }

    /** Waits until retention (`what` is "retention") or the cleaner is through with what `run` left, by the traces on the disk. */
    static void settle(Path data, String what) throws Exception {
        long end = System.currentTimeMillis() + 30_000;
        while (true) {
            String open = what.equals("retention") ? unretained(data) : uncleaned(data);
            if (open == null) return;
            if (System.currentTimeMillis() > end) throw new IllegalStateException("after half a minute still: " + open);
            Thread.sleep(50);
        }
    }

    private static String unretained(Path data) throws IOException {
        for (String topic : new String[] {"retained-by-size-0", "retained-by-time-0"}) {
            if (files(data.resolve(topic), ".log") > (topic.contains("time") ? 1 : 2)) return topic;
            if (files(data.resolve(topic), ".deleted") > 0) return "deleted files of " + topic;
        }
        return null;
    }

    private static String uncleaned(Path data) throws IOException {
        Path cleaned = data.resolve("cleaner-offset-checkpoint");
        for (String topic : new String[] {"compacted", "compacted-gzip"}) {
            if (!Files.exists(cleaned) || Files.readAllLines(cleaned).stream().noneMatch(l -> l.startsWith(topic + " 0 "))) return topic;
            if (files(data.resolve(topic + "-0"), ".deleted") > 0) return "deleted files of " + topic;
        }
        return null;
    }

    private static long files(Path dir, String suffix) throws IOException {
        try (var list = Files.list(dir)) {
            return list.filter(f -> f.toString().endsWith(suffix)).count();
        }
    }

    interface Times { long at(int i); }

    /** `count` batches of random numbers of records of random sizes. */
    private void plain(String topic, int partition, int seed, int count, Times times) throws IOException {
        Random random = new Random(seed);
        for (int i = 0; i < count; i++) {
            List<SimpleRecord> records = new ArrayList<>();
            int n = 1 + random.nextInt(i % 10 == 0 ? 100 : 8);
            for (int r = 0; r < n; r++) {
                long time = times.at(i);
                records.add(record(random, time < 0 ? time : time + random.nextInt(30), random.nextInt(i % 4 == 0 ? 3000 : 900), "key-" + random.nextInt(50)));
            }
            produce(topic, partition, batch(records, Compression.NONE, -1, -1, -1, false));
        }
    }

    private void codecs() throws IOException {
        Random random = new Random(20);
        Compression[] all = {Compression.NONE, Compression.gzip().build(), Compression.snappy().build(), Compression.lz4().build(), Compression.zstd().build()};
        for (int i = 0; i < 150; i++) {
            List<SimpleRecord> records = new ArrayList<>();
            for (int r = 0; r < 10; r++) records.add(record(random, TIME + i, 1500, null));
            produce("codecs", 0, batch(records, all[i % all.length], -1, -1, -1, false));
        }
    }

    /** Three producers with sequences that wrap, repeated batches, and a new epoch. */
    private void idempotent() throws IOException {
        Random random = new Random(21);
        int[] sequence = {0, 0, Integer.MAX_VALUE - 40};
        short[] epoch = {0, 0, 3};
        for (int i = 0; i < 400; i++) {
            int p = i % 3;
            if (i == 200) {
                epoch[0] = 1;
                sequence[0] = 0;
            }
            List<SimpleRecord> records = new ArrayList<>();
            for (int r = 0; r < 5; r++) records.add(record(random, TIME + i, 1200, null));
            byte[] batch = batch(records, Compression.NONE, 1000 + p, epoch[p], sequence[p], false);
            produce("idempotent", 0, batch);
            if (i % 17 == 0) produce("idempotent", 0, batch);
            sequence[p] = DefaultRecordBatch.incrementSequence(sequence[p], 5);
        }
    }

    /** Few keys, many values, no tombstones: a tombstone's delete horizon would be the time of cleaning. */
    private void keyed(String topic, Compression everyThird) throws IOException {
        Random random = new Random(22);
        for (int i = 0; i < 300; i++) {
            List<SimpleRecord> records = new ArrayList<>();
            for (int r = 0; r < 10; r++) records.add(record(random, TIME + i * 10L + r, 1800, "key-" + random.nextInt(i < 150 ? 400 : 300)));
            Compression codec = i % 3 == 1 ? everyThird : Compression.NONE;
            long producer = i % 5 == 0 ? 3000 : -1;
            produce(topic, 0, batch(records, codec, producer, producer < 0 ? -1 : 0, producer < 0 ? -1 : i / 5 * 10, false));
        }
    }

    /** Two producers' transactions, interleaved, committed and aborted. */
    private void transactional() throws IOException {
        Random random = new Random(23);
        int[] sequence = {0, 0};
        for (int i = 0; i < 60; i++) {
            for (int p = 0; p < 2; p++) {
                List<SimpleRecord> records = new ArrayList<>();
                for (int r = 0; r < 10; r++) records.add(record(random, TIME + i, 2000, null));
                produce("transactional", 0, batch(records, Compression.NONE, 2000 + p, 0, sequence[p], true));
                sequence[p] += 10;
            }
            if (i % 2 == 0) marker(2000, i % 4 == 0);
            if (i % 3 == 0) marker(2001, i % 6 == 0);
        }
    }

    private static SimpleRecord record(Random random, long time, int sizeMax, String key) {
        byte[] value = new byte[random.nextInt(sizeMax + 1)];
        // Half of it compresses.
        for (int i = 0; i < value.length; i++) value[i] = (byte) (i % 2 == 0 ? 'x' : random.nextInt());
        var headers = random.nextInt(10) == 0 ? new RecordHeader[] {new RecordHeader("h", new byte[] {1})} : new RecordHeader[0];
        return new SimpleRecord(time, key == null ? null : key.getBytes(), value, headers);
    }

    private static byte[] batch(List<SimpleRecord> records, Compression codec, long producerId, int epoch, int sequence, boolean transactional) {
        MemoryRecordsBuilder builder = new MemoryRecordsBuilder(new ByteBufferOutputStream(4096), RecordBatch.MAGIC_VALUE_V2, codec,
            TimestampType.CREATE_TIME, 0, -1, producerId, (short) epoch, sequence, transactional, false, -1, Integer.MAX_VALUE);
        records.forEach(builder::append);
        ByteBuffer buffer = builder.build().buffer();
        byte[] bytes = new byte[buffer.remaining()];
        buffer.get(bytes);
        return bytes;
    }

    private void produce(String topic, int partition, byte[] batch) throws IOException {
        ProduceRequestData request = new ProduceRequestData().setAcks((short) -1).setTimeoutMs(30_000)
            .setTransactionalId(topic.equals("transactional") ? "stream" : null);
        request.topicData().add(new ProduceRequestData.TopicProduceData().setName(topic).setPartitionData(List.of(
            new ProduceRequestData.PartitionProduceData().setIndex(partition).setRecords(MemoryRecords.readableRecords(ByteBuffer.wrap(batch))))));
        Errors error;
        do {
            ProduceResponseData response = (ProduceResponseData) call(ApiKeys.PRODUCE, (short) 11, request);
            error = Errors.forCode(response.responses().iterator().next().partitionResponses().get(0).errorCode());
            // Topics were created a moment ago; nothing was appended then.
        } while (error == Errors.NOT_LEADER_OR_FOLLOWER || error == Errors.UNKNOWN_TOPIC_OR_PARTITION);
        if (error != Errors.NONE) throw new IOException(topic + ": " + error);
    }

    private void marker(long producerId, boolean commit) throws IOException {
        WriteTxnMarkersRequestData request = new WriteTxnMarkersRequestData().setMarkers(List.of(
            new WriteTxnMarkersRequestData.WritableTxnMarker().setProducerId(producerId).setProducerEpoch((short) 0).setCoordinatorEpoch(7)
                .setTransactionResult(commit).setTopics(List.of(new WriteTxnMarkersRequestData.WritableTxnMarkerTopic()
                    .setName("transactional").setPartitionIndexes(List.of(0))))));
        WriteTxnMarkersResponseData response = (WriteTxnMarkersResponseData) call(ApiKeys.WRITE_TXN_MARKERS, (short) 1, request);
        Errors error = Errors.forCode(response.markers().get(0).topics().get(0).partitions().get(0).errorCode());
        if (error != Errors.NONE) throw new IOException("marker: " + error);
    }

    private ApiMessage call(ApiKeys api, short version, ApiMessage request) throws IOException {
        RequestHeaderData header = new RequestHeaderData()
            .setRequestApiKey(api.id).setRequestApiVersion(version).setCorrelationId(++correlationId).setClientId("stream");
        byte[] head = bytes(header, api.requestHeaderVersion(version));
        byte[] body = bytes(request, version);
        out.write(ByteBuffer.allocate(4 + head.length + body.length).putInt(head.length + body.length).put(head).put(body).array());
        out.flush();
        byte[] answer = new byte[in.readInt()];
        in.readFully(answer);
        ByteBufferAccessor accessor = new ByteBufferAccessor(ByteBuffer.wrap(answer));
        new ResponseHeaderData().read(accessor, api.responseHeaderVersion(version));
        ApiMessage response = api.messageType.newResponse();
        response.read(accessor, version);
        return response;
    }

    private static byte[] bytes(Message message, short version) {
        ObjectSerializationCache cache = new ObjectSerializationCache();
        ByteBuffer buffer = ByteBuffer.allocate(message.size(cache, version));
        message.write(new ByteBufferAccessor(buffer), cache, version);
        return buffer.array();
    }
}
