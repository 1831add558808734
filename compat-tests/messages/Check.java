// Reads samples of our own message definitions (name, version, hex) with Apache Kafka's generated classes, writes
// them again and compares the bytes.
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.apache.kafka.common.protocol.ByteBufferAccessor;
import org.apache.kafka.common.protocol.MessageUtil;
import org.apache.kafka.common.protocol.Message;
import org.apache.kafka.common.protocol.Readable;

public class Check {
    static final List<String> PACKAGES = List.of(
        "org.apache.kafka.common.message.", "org.apache.kafka.common.metadata.",
        "org.apache.kafka.coordinator.group.generated.", "org.apache.kafka.coordinator.transaction.generated.");

    static Class<?> find(String name) {
        for (String prefix : PACKAGES)
            for (String suffix : List.of("Data", ""))
                try {
                    return Class.forName(prefix + name + suffix);
                } catch (ClassNotFoundException e) {
                    // Not in this package.
                }
        throw new IllegalArgumentException("Kafka has no message " + name);
    }

    public static void main(String[] args) throws Exception {
        Map<String, Integer> checked = new TreeMap<>();
        int failed = 0;
        for (String line : Files.readAllLines(Path.of(args[0]))) {
            String[] parts = line.split(" ", -1);
            short version = Short.parseShort(parts[1]);
            String problem = check(parts[0], version, parts[2]);
            checked.merge(parts[0] + " v" + version, 1, Integer::sum);
            if (problem != null && failed++ < 20)
                System.out.println("FAIL " + parts[0] + " v" + version + ": " + problem + "\n  ours   " + parts[2]);
        }
        int total = checked.values().stream().mapToInt(Integer::intValue).sum();
        System.out.println((total - failed) + " passed, " + failed + " failed, of " + checked.size() + " message versions");
        System.exit(failed == 0 && total > 0 ? 0 : 1);
    }

    static String check(String name, short version, String hex) {
        try {
            ByteBuffer bytes = ByteBuffer.wrap(HexFormat.of().parseHex(hex));
            Message message = (Message) find(name).getConstructor(Readable.class, short.class)
                .newInstance(new ByteBufferAccessor(bytes), version);
            if (bytes.hasRemaining())
                return bytes.remaining() + " bytes left";
            ByteBuffer again = MessageUtil.toByteBufferAccessor(message, version).buffer();
            byte[] written = new byte[again.remaining()];
            again.get(written);
            String theirs = HexFormat.of().formatHex(written);
            return theirs.equals(hex) ? null : "differs\n  theirs " + theirs;
        } catch (Exception e) {
            Throwable cause = e.getCause() == null ? e : e.getCause();
            return cause.toString();
        }
    }
}
