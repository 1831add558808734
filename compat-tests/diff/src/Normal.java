// Takes out of an answer what no two brokers agree on: ids, times, message texts, ports and directories.
// Everything else stays as it came.

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.*;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.*;

final class Normal {
    static final long NOW_MS = 24 * 3600_000L;
    private static final Set<String> IDS = Set.of("topicId", "memberId", "producerId", "sessionId", "clusterId",
        "incarnationId", "leader", "voterDirectoryId", "replicaDirectoryId", "brokerEpoch", "currentTxnStartOffset");
    private static final Set<String> TEXTS = Set.of("errorMessage", "batchIndexErrorMessage", "statusMessage");
    private static final Set<String> SIZES = Set.of("totalBytes", "usableBytes");

    private final Map<String, String> names = new HashMap<>();
    private final Map<String, Integer> counts = new HashMap<>();
    private final Nodes nodes;

    Normal(Nodes nodes) {
        this.nodes = nodes;
    }

    /** A captured value is shown by the name of its variable. */
    void name(String value, String name) {
        names.put(value, "<" + name + ">");
    }

    JsonNode of(JsonNode answer, boolean ordered, Set<String> mask) {
        JsonNode plain = plain("", answer, mask);
        if (!ordered) plain = sorted(plain);
        JsonNode named = named("", plain);
        // Once more: entries that differ in their ids only have an order now.
        return ordered ? named : sorted(named);
    }

    private JsonNode plain(String field, JsonNode n, Set<String> mask) {
        JsonNodeFactory f = JsonNodeFactory.instance;
        if (mask.contains(field)) return f.textNode("<masked>");
        if (n.isObject()) {
            ObjectNode out = f.objectNode();
            n.fields().forEachRemaining(e -> out.set(e.getKey(), plain(e.getKey(), e.getValue(), mask)));
            return out;
        }
        if (n.isArray()) {
            ArrayNode out = f.arrayNode();
            for (JsonNode e : n) out.add(plain(field, e, mask));
            return out;
        }
        if (n.isBinary()) {
            try {
                byte[] b = n.binaryValue();
                if (field.equals("records")) return plain("", Batches.describe(b), mask);
                return f.textNode("0x" + HexFormat.of().formatHex(b));
            } catch (IOException e) {
                throw new UncheckedIOException(e);
            }
        }
        if (TEXTS.contains(field) && n.isTextual()) return f.textNode(n.asText().isEmpty() ? "" : "<text>");
        if (SIZES.contains(field)) return f.textNode(n.asLong() > 0 ? "<bytes>" : n.asText());
        if (field.equals("port") && nodes.nameOfPort(n.asInt()) != null) return f.textNode(nodes.nameOfPort(n.asInt()));
        if (field.equals("logDir")) return f.textNode("<dir>");
        if (n.isTextual()) return f.textNode(nodes.hideAddresses(n.asText()));
        if (n.isIntegralNumber() && Math.abs(System.currentTimeMillis() - n.asLong()) < NOW_MS) return f.textNode("<now>");
        return n;
    }

    private static boolean isId(String field, JsonNode n) {
        if (!IDS.contains(field)) return false;
        if (n.isTextual()) return !n.asText().isEmpty() && !n.asText().startsWith("AAAAAAAAAAAAAAAAAAAAA") && !n.asText().startsWith("<");
        return !field.equals("leader") && n.isIntegralNumber() && n.asLong() > (field.equals("producerId") ? -1 : 0);
    }

    private static String masked(String field, JsonNode n) {
        if (n.isObject()) {
            StringBuilder s = new StringBuilder("{");
            n.fields().forEachRemaining(e -> s.append(e.getKey()).append(':').append(masked(e.getKey(), e.getValue())).append(','));
            return s.append('}').toString();
        }
        if (n.isArray()) {
            StringBuilder s = new StringBuilder("[");
            for (JsonNode e : n) s.append(masked(field, e)).append(',');
            return s.append(']').toString();
        }
        return isId(field, n) ? "<id>" : n.toString();
    }

    private static JsonNode sorted(JsonNode n) {
        JsonNodeFactory f = JsonNodeFactory.instance;
        if (n.isObject()) {
            ObjectNode out = f.objectNode();
            n.fields().forEachRemaining(e -> out.set(e.getKey(), sorted(e.getValue())));
            return out;
        }
        if (n.isArray()) {
            List<JsonNode> all = new ArrayList<>();
            for (JsonNode e : n) all.add(sorted(e));
            boolean numbers = all.stream().allMatch(JsonNode::isNumber);
            if (numbers) all.sort(Comparator.comparingLong(JsonNode::asLong));
            else all.sort(Comparator.comparing(e -> masked("", e)));
            return f.arrayNode().addAll(all);
        }
        return n;
    }

    private JsonNode named(String field, JsonNode n) {
        JsonNodeFactory f = JsonNodeFactory.instance;
        if (n.isObject()) {
            ObjectNode out = f.objectNode();
            n.fields().forEachRemaining(e -> out.set(e.getKey(), named(e.getKey(), e.getValue())));
            return out;
        }
        if (n.isArray()) {
            ArrayNode out = f.arrayNode();
            for (JsonNode e : n) out.add(named(field, e));
            return out;
        }
        if (isId(field, n)) {
            return f.textNode(names.computeIfAbsent(n.asText(),
                v -> "<" + field + "#" + counts.merge(field, 1, Integer::sum) + ">"));
        }
        return n;
    }
}
