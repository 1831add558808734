// Sends the request scripts of cases/ to a broker and compares the answers with those of Apache Kafka: with the golden
// files (check), or with a second broker (live). `record` writes the golden files. README.md explains the case format.

import com.fasterxml.jackson.core.json.JsonReadFeature;
import com.fasterxml.jackson.databind.*;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.node.*;
import java.io.IOException;
import java.nio.file.*;
import java.util.*;
import java.util.regex.Pattern;
import java.util.stream.Stream;

public final class Diff {
    static final ObjectMapper JSON = JsonMapper.builder()
        .enable(JsonReadFeature.ALLOW_JAVA_COMMENTS, JsonReadFeature.ALLOW_YAML_COMMENTS, JsonReadFeature.ALLOW_UNQUOTED_FIELD_NAMES,
            JsonReadFeature.ALLOW_TRAILING_COMMA, JsonReadFeature.ALLOW_SINGLE_QUOTES).build();

    private static Nodes target, other;
    private static Path dir;
    private static String suffix = "";
    private static int passed, failed, known, fixed;

    public static void main(String[] args) throws Exception {
        String mode = args[0];
        Pattern only = Pattern.compile(".*");
        for (int i = 1; i + 1 < args.length; i += 2) {
            switch (args[i]) {
                case "--broker" -> target = new Nodes(args[i + 1]);
                case "--kafka" -> other = new Nodes(args[i + 1]);
                case "--dir" -> dir = Path.of(args[i + 1]);
                case "--only" -> only = Pattern.compile(args[i + 1]);
                default -> throw new IllegalArgumentException(args[i]);
            }
        }
        if (target.several()) suffix = "-" + target.size();
        Map<String, String> notYet = notYet();
        List<Path> files;
        try (Stream<Path> s = Files.list(dir.resolve("cases" + suffix))) {
            files = s.filter(p -> p.toString().endsWith(".json")).sorted().toList();
        }
        Case.warm(target);
        if (mode.equals("live")) Case.warm(other);
        for (Path file : files) {
            String area = file.getFileName().toString().replace(".json", "");
            ObjectNode cases = (ObjectNode) JSON.readTree(file.toFile());
            Path goldenFile = dir.resolve("golden" + suffix).resolve(area + ".json");
            ObjectNode golden = Files.exists(goldenFile) ? (ObjectNode) JSON.readTree(goldenFile.toFile()) : JSON.createObjectNode();
            boolean changed = false;
            List<String> names = new ArrayList<>();
            cases.fieldNames().forEachRemaining(names::add);
            for (String name : names) {
                String full = area + "/" + name;
                if (!only.matcher(full).find()) continue;
                if (mode.equals("record")) {
                    golden.set(name, new Case(full, cases.get(name), target).run());
                    changed = true;
                    System.out.println("recorded " + full);
                    continue;
                }
                JsonNode expected = mode.equals("live") ? new Case(full, cases.get(name), other).run() : golden.get(name);
                judge(full, expected, new Case(full, cases.get(name), target).run(), notYet.get(full));
            }
            if (mode.equals("record")) golden.retain(names);
            if (changed) Files.writeString(goldenFile, render(golden));
        }
        if (mode.equals("record")) return;
        System.out.printf("%d passed, %d failed, %d known to differ, %d listed in not-yet but equal%n", passed, failed, known, fixed);
        System.exit(failed == 0 ? 0 : 1);
    }

    private static Map<String, String> notYet() throws IOException {
        Map<String, String> out = new HashMap<>();
        Path p = dir.resolve("not-yet");
        if (!Files.exists(p)) return out;
        for (String line : Files.readAllLines(p)) {
            if (line.isBlank() || line.startsWith("#")) continue;
            int colon = line.indexOf(':');
            if (colon < 0) throw new IOException("not-yet: a line is `area/case: reason`, got " + line);
            out.put(line.substring(0, colon).trim(), line.substring(colon + 1).trim());
        }
        return out;
    }

    /** One line a step, so that a change of a golden file reads well. */
    private static String render(ObjectNode golden) throws IOException {
        StringBuilder s = new StringBuilder("{\n");
        Iterator<Map.Entry<String, JsonNode>> it = golden.fields();
        while (it.hasNext()) {
            Map.Entry<String, JsonNode> e = it.next();
            s.append(JSON.writeValueAsString(e.getKey())).append(": [\n");
            for (int i = 0; i < e.getValue().size(); i++) {
                s.append("  ").append(JSON.writeValueAsString(e.getValue().get(i))).append(i + 1 < e.getValue().size() ? ",\n" : "\n");
            }
            s.append(it.hasNext() ? "],\n" : "]\n");
        }
        return s.append("}\n").toString();
    }

    private static void judge(String name, JsonNode expected, JsonNode got, String reason) {
        List<String> differences = new ArrayList<>();
        if (expected == null) differences.add("no golden answer: run.sh --record");
        else steps(expected, got, differences);
        if (differences.isEmpty()) {
            passed++;
            if (reason != null) {
                fixed++;
                System.out.println("EQUAL " + name + " (take it out of not-yet)");
            }
        } else if (reason != null) {
            known++;
            System.out.println("known " + name + ": " + reason + " [" + differences.get(0) + "]");
        } else {
            failed++;
            System.out.println("FAIL  " + name);
            int shown = 0;
            for (String d : differences) if (shown++ < 12) System.out.println("      " + d);
            if (shown > 12) System.out.println("      ... " + (shown - 12) + " more");
        }
        System.out.flush();
    }

    private static void steps(JsonNode expected, JsonNode got, List<String> out) {
        for (int i = 0; i < Math.max(expected.size(), got.size()); i++) {
            JsonNode e = expected.path(i), g = got.path(i);
            String label = (e.isMissingNode() ? g : e).path("step").asText();
            compare(i + " " + label + " ", e.path("answer"), g.path("answer"), out);
        }
    }

    private static void compare(String at, JsonNode e, JsonNode g, List<String> out) {
        if (e.equals(g)) return;
        if (e.isObject() && g.isObject()) {
            Set<String> names = new LinkedHashSet<>();
            e.fieldNames().forEachRemaining(names::add);
            g.fieldNames().forEachRemaining(names::add);
            for (String n : names) compare(at + "/" + n, e.path(n), g.path(n), out);
        } else if (e.isArray() && g.isArray() && e.size() == g.size()) {
            for (int i = 0; i < e.size(); i++) compare(at + "/" + i, e.get(i), g.get(i), out);
        } else if (e.isArray() && g.isArray() && e.size() > 3) {
            List<JsonNode> missing = new ArrayList<>(), extra = new ArrayList<>();
            for (JsonNode n : e) missing.add(n);
            for (JsonNode n : g) if (!missing.remove(n)) extra.add(n);
            out.add(at + ": " + e.size() + " against " + g.size() + "; only Kafka " + brief(missing) + ", only here " + brief(extra));
        } else {
            out.add(at + ": Kafka " + brief(e) + ", here " + brief(g));
        }
    }

    private static String brief(Object n) {
        String s = n instanceof JsonNode j && j.isMissingNode() ? "nothing" : n.toString();
        return s.length() > 300 ? s.substring(0, 300) + "..." : s;
    }
}
