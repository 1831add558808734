import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Properties;
import java.util.Random;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Writes records, tombstones and transactions to the topics that compaction is compared on. Arguments: bootstrap, seed. */
public class Generate {
    static final List<String> CODECS = List.of("none", "gzip", "snappy", "lz4", "zstd");
    static final int RECORDS = 24_000;
    static Random random;

    public static void main(String[] args) {
        random = new Random(Long.parseLong(args[1]));
        for (String codec : CODECS) {
            write(producer(args[0], codec, null), codec, RECORDS);
            write(producer(args[0], codec, null), codec, RECORDS / 4);
        }
        write(producer(args[0], "none", null), "stamped", RECORDS);
        transactions(args[0]);
    }

    static KafkaProducer<byte[], byte[]> producer(String bootstrap, String codec, String transactionalId) {
        Properties p = new Properties();
        p.put("bootstrap.servers", bootstrap);
        p.put("compression.type", codec);
        p.put("linger.ms", 5);
        p.put("batch.size", 8000);
        p.put("enable.idempotence", true);
        if (transactionalId != null) p.put("transactional.id", transactionalId);
        return new KafkaProducer<>(p, new ByteArraySerializer(), new ByteArraySerializer());
    }

    static void write(KafkaProducer<byte[], byte[]> producer, String topic, int count) {
        for (int i = 0; i < count; i++) send(producer, topic);
        producer.close();
    }

    static void send(KafkaProducer<byte[], byte[]> producer, String topic) {
        byte[] key = ("key-" + random.nextInt(1500)).getBytes(StandardCharsets.UTF_8);
        byte[] value = null;
        if (random.nextInt(10) > 0) {
            value = new byte[random.nextInt(200)];
            for (int i = 0; i < value.length; i++) value[i] = (byte) ('a' + random.nextInt(6));
        }
        ProducerRecord<byte[], byte[]> record = new ProducerRecord<>(topic, 0, key, value);
        if (random.nextInt(20) == 0) record.headers().add(new RecordHeader("h", value));
        producer.send(record);
    }

    static void transactions(String bootstrap) {
        KafkaProducer<byte[], byte[]> one = producer(bootstrap, "none", "one");
        KafkaProducer<byte[], byte[]> two = producer(bootstrap, "none", "two");
        one.initTransactions();
        two.initTransactions();
        for (int round = 0; round < 80; round++) {
            one.beginTransaction();
            two.beginTransaction();
            int count = random.nextInt(400);
            for (int i = 0; i < count; i++) send(random.nextBoolean() ? one : two, "transactions");
            end(one);
            end(two);
        }
        one.close();
        two.close();
    }

    static void end(KafkaProducer<byte[], byte[]> producer) {
        if (random.nextInt(3) == 0) producer.abortTransaction();
        else producer.commitTransaction();
    }
}
