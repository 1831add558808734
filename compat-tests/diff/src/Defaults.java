// Completes a request body: every field that the version has and the case leaves out gets the default of Kafka's schema,
// fields that the version does not have are dropped, misspelt ones are refused.

import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.databind.*;
import com.fasterxml.jackson.databind.node.*;
import java.io.*;
import java.util.*;

final class Defaults {
    private static final ObjectMapper MAPPER = new ObjectMapper().configure(JsonParser.Feature.ALLOW_COMMENTS, true);
    private static final Map<String, JsonNode> SCHEMAS = new HashMap<>();

    private static JsonNode schema(String name) {
        return SCHEMAS.computeIfAbsent(name, n -> {
            try (InputStream in = Defaults.class.getResourceAsStream("/common/message/" + n + ".json")) {
                return MAPPER.readTree(in);
            } catch (IOException e) {
                throw new UncheckedIOException(e);
            }
        });
    }

    static ObjectNode fill(String api, int version, JsonNode body) {
        JsonNode schema = schema(api + "Request");
        return struct(schema, schema.get("fields"), version, body, api + " v" + version);
    }

    private static ObjectNode struct(JsonNode schema, JsonNode fields, int version, JsonNode given, String where) {
        ObjectNode out = JsonNodeFactory.instance.objectNode();
        Set<String> known = new HashSet<>();
        for (JsonNode field : fields) {
            String name = field.get("name").asText();
            name = Character.toLowerCase(name.charAt(0)) + name.substring(1);
            known.add(name);
            if (!inRange(field.path("versions").asText(), version)) continue;
            JsonNode value = given == null ? null : given.get(name);
            boolean tagged = inRange(field.path("taggedVersions").asText("none"), version);
            if (value == null) {
                if (!tagged) out.set(name, defaultOf(schema, field, version, where));
            } else {
                out.set(name, complete(schema, field, version, value, where + "." + name));
            }
        }
        if (given != null) {
            given.fieldNames().forEachRemaining(n -> {
                if (!known.contains(n)) throw new IllegalArgumentException(where + " has no field " + n);
            });
        }
        return out;
    }

    private static JsonNode complete(JsonNode schema, JsonNode field, int version, JsonNode value, String where) {
        if (value.isNull()) return value;
        String type = field.get("type").asText();
        boolean array = type.startsWith("[]");
        JsonNode fields = structFields(schema, field, array ? type.substring(2) : type);
        if (fields == null) return value;
        if (!array) return struct(schema, fields, version, value, where);
        ArrayNode out = JsonNodeFactory.instance.arrayNode();
        for (JsonNode e : value) out.add(struct(schema, fields, version, e, where));
        return out;
    }

    private static JsonNode structFields(JsonNode schema, JsonNode field, String type) {
        if (field.has("fields")) return field.get("fields");
        for (JsonNode s : schema.path("commonStructs")) {
            if (s.get("name").asText().equals(type)) return s.get("fields");
        }
        return null;
    }

    private static JsonNode defaultOf(JsonNode schema, JsonNode field, int version, String where) {
        String type = field.get("type").asText();
        JsonNode given = field.get("default");
        JsonNodeFactory f = JsonNodeFactory.instance;
        if (given != null && given.asText().equals("null")) return f.nullNode();
        if (type.startsWith("[]")) return f.arrayNode();
        switch (type) {
            case "string": return f.textNode(given == null ? "" : given.asText());
            case "bytes": return f.binaryNode(new byte[0]);
            case "records": return f.nullNode();
            case "uuid": return f.textNode("AAAAAAAAAAAAAAAAAAAAAA");
            case "bool": return f.booleanNode(given != null && given.asBoolean());
            case "float64": return f.numberNode(given == null ? 0.0 : given.asDouble());
            default:
        }
        JsonNode fields = structFields(schema, field, type);
        if (fields != null) return struct(schema, fields, version, null, where);
        return f.numberNode(given == null ? 0L : Long.decode(given.asText()));
    }

    private static boolean inRange(String range, int version) {
        if (range.isEmpty() || range.equals("none")) return false;
        if (range.endsWith("+")) return version >= Integer.parseInt(range.substring(0, range.length() - 1));
        int dash = range.indexOf('-');
        if (dash < 0) return version == Integer.parseInt(range);
        return version >= Integer.parseInt(range.substring(0, dash)) && version <= Integer.parseInt(range.substring(dash + 1));
    }
}
