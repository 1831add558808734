// Record batches for cases: built from a few lines of JSON, bent where a case wants a broken one, and told apart in answers.

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.*;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.*;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.*;
import org.apache.kafka.common.record.internal.*;
import org.apache.kafka.common.utils.*;

final class Batches {
    static final long BASE_TIMESTAMP = 1_700_000_000_000L;

    static byte[] bytes(JsonNode n) {
        return n == null || n.isNull() ? null : n.asText().getBytes(StandardCharsets.UTF_8);
    }

    /** `spec`: records, compression, timestampType, producerId/Epoch, baseSequence, transactional, magic, set{}, crc, append, cut. */
    static byte[] build(JsonNode spec) {
        byte magic = (byte) spec.path("magic").asInt(2);
        String codec = spec.path("compression").asText("none");
        TimestampType type = spec.path("logAppendTime").asBoolean() ? TimestampType.LOG_APPEND_TIME : TimestampType.CREATE_TIME;
        ByteBufferOutputStream out = new ByteBufferOutputStream(1024);
        boolean control = spec.path("control").asBoolean();
        MemoryRecordsBuilder b = new MemoryRecordsBuilder(out, magic, Compression.of(codec).build(), type,
            spec.path("baseOffset").asLong(0), BASE_TIMESTAMP, spec.path("producerId").asLong(-1),
            (short) spec.path("producerEpoch").asInt(-1), spec.path("baseSequence").asInt(-1),
            spec.path("transactional").asBoolean(), control, -1, Integer.MAX_VALUE);
        JsonNode records = spec.get("records");
        int i = 0;
        if (records != null && records.isInt()) {
            for (; i < records.asInt(); i++) {
                b.append(BASE_TIMESTAMP + i, ("k" + i).getBytes(), ("value-" + i).getBytes());
            }
        } else if (records != null) {
            for (JsonNode r : records) {
                List<Header> headers = new ArrayList<>();
                for (JsonNode h : r.path("headers")) headers.add(new RecordHeader(h.get(0).asText(), bytes(h.get(1))));
                long ts = r.has("timestamp") ? r.get("timestamp").asLong() : BASE_TIMESTAMP + i;
                b.appendWithOffset(r.has("offset") ? r.get("offset").asLong() : spec.path("baseOffset").asLong(0) + i, ts,
                    bytes(r.get("key")), bytes(r.get("value")), headers.toArray(new Header[0]));
                i++;
            }
        }
        ByteBuffer buf = b.build().buffer();
        byte[] a = new byte[buf.remaining()];
        buf.get(a);
        return bend(a, spec, magic);
    }

    private static byte[] bend(byte[] a, JsonNode spec, byte magic) {
        ByteBuffer p = ByteBuffer.wrap(a);
        JsonNode set = spec.path("set");
        set.fields().forEachRemaining(e -> {
            long v = e.getValue().asLong();
            switch (e.getKey()) {
                case "baseOffset" -> p.putLong(0, v);
                case "length" -> p.putInt(8, (int) v);
                case "partitionLeaderEpoch" -> p.putInt(12, (int) v);
                case "magic" -> p.put(16, (byte) v);
                case "attributes" -> p.putShort(21, (short) v);
                case "lastOffsetDelta" -> p.putInt(23, (int) v);
                case "baseTimestamp" -> p.putLong(27, v);
                case "maxTimestamp" -> p.putLong(35, v);
                case "producerId" -> p.putLong(43, v);
                case "producerEpoch" -> p.putShort(51, (short) v);
                case "baseSequence" -> p.putInt(53, (int) v);
                case "count" -> p.putInt(57, (int) v);
                default -> throw new IllegalArgumentException("batch field " + e.getKey());
            }
        });
        for (JsonNode at : spec.path("patch")) p.put(at.get(0).asInt(), (byte) at.get(1).asInt());
        if (magic >= 2 && a.length > 21) {
            if (spec.has("crc")) p.putInt(17, spec.get("crc").asInt());
            else p.putInt(17, (int) Crc32C.compute(a, 21, a.length - 21));
        }
        if (spec.has("cut")) a = Arrays.copyOf(a, a.length - spec.get("cut").asInt());
        if (spec.has("append")) a = join(a, HexFormat.of().parseHex(spec.get("append").asText()));
        if (spec.has("then")) a = join(a, build(spec.get("then")));
        return a;
    }

    static byte[] join(byte[] a, byte[] b) {
        byte[] all = Arrays.copyOf(a, a.length + b.length);
        System.arraycopy(b, 0, all, a.length, b.length);
        return all;
    }

    /** The records field of an answer as readable JSON. */
    static JsonNode describe(byte[] a) {
        JsonNodeFactory f = JsonNodeFactory.instance;
        ArrayNode out = f.arrayNode();
        try {
            MemoryRecords all = MemoryRecords.readableRecords(ByteBuffer.wrap(a));
            for (MutableRecordBatch batch : all.batches()) {
                ObjectNode o = out.addObject();
                o.put("baseOffset", batch.baseOffset()).put("lastOffset", batch.lastOffset());
                o.put("partitionLeaderEpoch", batch.partitionLeaderEpoch()).put("magic", (int) batch.magic());
                o.put("valid", batch.isValid()).put("size", batch.sizeInBytes());
                o.put("compression", batch.compressionType().name).put("timestampType", batch.timestampType().name);
                o.put("maxTimestamp", batch.maxTimestamp());
                o.put("producerId", batch.producerId()).put("producerEpoch", (int) batch.producerEpoch());
                o.put("baseSequence", batch.baseSequence());
                o.put("transactional", batch.isTransactional()).put("control", batch.isControlBatch());
                ArrayNode records = o.putArray("records");
                for (org.apache.kafka.common.record.internal.Record r : batch) {
                    StringBuilder s = new StringBuilder().append(r.offset()).append(' ');
                    long ts = r.timestamp();
                    s.append(Math.abs(System.currentTimeMillis() - ts) < Normal.NOW_MS ? "<now>" : ts).append(' ');
                    s.append(text(r.key())).append('=').append(text(r.value()));
                    for (Header h : r.headers()) s.append(' ').append(h.key()).append(':').append(text(h.value() == null ? null : ByteBuffer.wrap(h.value())));
                    records.add(s.toString());
                }
            }
        } catch (RuntimeException e) {
            out.add("unreadable: " + e.getClass().getSimpleName() + " " + a.length + " bytes");
        }
        return out;
    }

    private static String text(ByteBuffer b) {
        if (b == null) return "null";
        byte[] a = new byte[b.remaining()];
        b.duplicate().get(a);
        return a.length > 40 ? "<" + a.length + " bytes>" : new String(a, StandardCharsets.UTF_8);
    }
}
