// Runs one case, a list of steps, against one broker and returns the normalised answers.

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.*;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.*;
import org.apache.kafka.clients.consumer.ConsumerPartitionAssignor.*;
import org.apache.kafka.clients.consumer.internals.ConsumerProtocol;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.protocol.ApiKeys;

final class Case {
    private static final JsonNodeFactory F = JsonNodeFactory.instance;
    private static final int TIMEOUT_MS = 8000;
    private static final int SILENCE_MS = 500;

    private final JsonNode script;
    private final String name;
    private final Nodes nodes;
    private final ArrayNode log = F.arrayNode();
    private final Map<String, Wire> wires = new HashMap<>();
    private Map<String, JsonNode> vars;
    private Normal normal;
    private boolean dead;

    Case(String name, JsonNode script, Nodes nodes) {
        this.name = name;
        this.script = script;
        this.nodes = nodes;
    }

    ArrayNode run() {
        try {
            if (script.isArray()) {
                pass(script, null);
            } else {
                Map.Entry<String, JsonNode> each = script.get("each").fields().next();
                for (JsonNode v : eachOf(each.getValue())) {
                    if (!dead) pass(script.get("steps"), Map.entry(each.getKey(), v));
                }
            }
        } catch (Exception e) {
            note("harness", F.textNode("stopped: " + e));
            if (Boolean.getBoolean("trace")) e.printStackTrace();
        } finally {
            wires.values().forEach(Wire::close);
        }
        return log;
    }

    private static List<JsonNode> eachOf(JsonNode spec) {
        List<JsonNode> out = new ArrayList<>();
        if (spec.isTextual()) {
            String[] p = spec.asText().split(":");
            for (short v : versions(Wire.api(p[0]), F.textNode(p[1]))) out.add(F.numberNode((int) v));
        } else {
            spec.forEach(out::add);
        }
        return out;
    }

    private void pass(JsonNode steps, Map.Entry<String, JsonNode> each) throws Exception {
        vars = new HashMap<>();
        normal = new Normal(nodes);
        wires.values().forEach(Wire::close);
        wires.clear();
        String t = name.replace("/", "-").replaceAll("[^a-zA-Z0-9]", "-");
        if (each != null) {
            vars.put(each.getKey(), each.getValue());
            t += "-" + each.getValue().asText().replaceAll("[^a-zA-Z0-9]", "-");
        }
        vars.put("t", F.textNode(t));
        if (nodes.several()) quorum();
        for (JsonNode step : steps) {
            if (!dead) step(step, each);
        }
    }

    private void note(String step, JsonNode answer) {
        try {
            // Through text, so that a short 0 and an int 0 are equal.
            log.addObject().put("step", step).set("answer", Diff.JSON.readTree(answer.toString()));
        } catch (IOException e) {
            throw new java.io.UncheckedIOException(e);
        }
    }

    private Wire wire(JsonNode step) throws IOException {
        String id = step.path("conn").asText("main");
        boolean controller = step.has("controller");
        int node = controller ? expand(step.get("controller")).asInt() : step.has("node") ? expand(step.get("node")).asInt() : 0;
        if (node != 0) id += (controller ? " controller " : " node ") + node;
        Wire w = wires.get(id);
        if (w == null || w.closed) {
            w = new Wire(nodes.host, controller ? nodes.controllerPort(node) : nodes.port(node));
            wires.put(id, w);
        }
        return w;
    }

    /** Sets $active, the leader of the quorum, and $inactive, another voter. */
    private void quorum() throws Exception {
        ObjectNode body = F.objectNode();
        body.putArray("topics").addObject().put("topicName", "__cluster_metadata").putArray("partitions").addObject().put("partitionIndex", 0);
        Wire w = wire(F.objectNode());
        transmit(w, F.objectNode(), ApiKeys.DESCRIBE_QUORUM, (short) 1, Defaults.fill("DescribeQuorum", 1, body));
        JsonNode leader = w.receive(TIMEOUT_MS).at("/topics/0/partitions/0/leaderId");
        vars.put("active", leader);
        vars.put("inactive", F.numberNode(nodes.otherThan(leader.asInt())));
    }

    private void step(JsonNode s, Map.Entry<String, JsonNode> each) throws Exception {
        if (each != null && s.has("when") && !when(s.get("when").asText(), each.getValue().asInt())) return;
        if (s.has("sleep")) Thread.sleep(s.get("sleep").asInt());
        else if (s.has("set")) expand(s.get("set")).fields().forEachRemaining(e -> vars.put(e.getKey(), e.getValue()));
        else if (s.has("topic")) topic(expand(s));
        else if (s.has("close")) {
            Wire w = wires.remove(s.get("close").asText());
            if (w != null) w.close();
        } else if (s.has("await")) await(s, each);
        else if (s.has("raw")) raw(expand(s));
        else request(s, each);
    }

    private static boolean when(String range, int v) {
        if (range.endsWith("+")) return v >= Integer.parseInt(range.substring(0, range.length() - 1));
        if (range.startsWith("-")) return v <= Integer.parseInt(range.substring(1));
        return v == Integer.parseInt(range);
    }

    static short[] versions(ApiKeys api, JsonNode spec) {
        short low = api.oldestVersion(), high = api.latestVersion(false), middle = (short) ((low + high) / 2);
        TreeSet<Short> out = new TreeSet<>();
        if (spec == null) out.add(high);
        else if (spec.isInt()) out.add((short) spec.asInt());
        else if (spec.isArray()) spec.forEach(v -> out.add((short) v.asInt()));
        else if (spec.asText().equals("all")) for (short v = low; v <= high; v++) out.add(v);
        else {
            for (char c : spec.asText().toCharArray()) out.add(c == 'l' ? low : c == 'm' ? middle : high);
        }
        short[] a = new short[out.size()];
        int i = 0;
        for (short v : out) a[i++] = v;
        return a;
    }

    // ---- requests ----------------------------------------------------------------------------------------------------

    private void request(JsonNode s, Map.Entry<String, JsonNode> each) throws Exception {
        String apiName;
        JsonNode body;
        JsonNode vspec = s.has("v") ? expand(s.get("v")) : null;
        if (s.has("produce")) {
            apiName = "Produce";
            if (vspec == null) vspec = F.numberNode(9);
            body = produceBody(s.get("produce"));
        } else if (s.has("fetch")) {
            apiName = "Fetch";
            if (vspec == null) vspec = F.numberNode(12);
            body = fetchBody(s.get("fetch"));
        } else {
            apiName = s.get("api").asText();
            body = s.path("body");
        }
        ApiKeys api = Wire.api(apiName);
        for (short v : versions(api, vspec)) {
            vars.put("version", F.numberNode((int) v));
            String label = apiName + " v" + v + (each != null ? " " + each.getKey() + "=" + each.getValue().asText() : "");
            JsonNode filled = Defaults.fill(apiName, v, expand(body.isMissingNode() ? F.objectNode() : body));
            if (s.has("until")) {
                until(s, api, v, filled, label);
                continue;
            }
            Wire w = wire(s);
            transmit(w, s, api, v, filled);
            if (s.path("async").asBoolean()) continue;
            record(w, s, label);
        }
    }

    private void transmit(Wire w, JsonNode s, ApiKeys api, short v, JsonNode body) throws Exception {
        JsonNode f = expand(s.path("frame"));
        byte[] b = w.request(api, v, (short) f.path("key").asInt(api.id), (short) f.path("version").asInt(v), body, s.get("clientId"));
        for (JsonNode p : f.path("patch")) {
            byte[] with = HexFormat.of().parseHex(p.get(1).asText());
            int at = p.get(0).asInt();
            System.arraycopy(with, 0, b, at < 0 ? b.length + at : at, with.length);
        }
        if (f.has("append")) b = Batches.join(b, HexFormat.of().parseHex(f.get("append").asText()));
        if (f.has("cut")) b = Arrays.copyOf(b, b.length - f.get("cut").asInt());
        w.send(f.has("size") ? f.get("size").asInt() : b.length, b);
    }

    private void record(Wire w, JsonNode s, String label) {
        boolean silent = s.path("noAnswer").asBoolean();
        JsonNode answer = w.receive(silent ? SILENCE_MS : s.path("timeout").asInt(s.has("any") ? 1000 : TIMEOUT_MS));
        if (silent) w.pending.clear();
        if (!silent && answer.asText().equals("NO ANSWER")) {
            // Later answers on this connection would be taken for this one.
            w.close();
            w.closed = true;
        }
        capture(s, answer);
        Set<String> mask = new HashSet<>();
        s.path("mask").forEach(m -> mask.add(m.asText()));
        if (s.path("quiet").asBoolean()) return;
        if (s.has("any")) {
            note(s.path("name").asText(label), F.textNode("any answer or none: " + s.get("any").asText()));
            return;
        }
        JsonNode shown = answer;
        if (s.has("pick")) {
            shown = F.objectNode();
            for (JsonNode p : s.get("pick")) ((ObjectNode) shown).set(p.asText(), answer.at(p.asText()));
        }
        note(s.path("name").asText(label), normal.of(drop(shown, expand(s.path("drop"))), s.path("ordered").asBoolean(), mask));
    }

    /** Takes list entries out of an answer: {"field": "regex"} drops every object whose field matches. */
    private static JsonNode drop(JsonNode n, JsonNode rules) {
        if (rules.isMissingNode()) return n;
        if (n.isObject()) {
            ObjectNode out = F.objectNode();
            n.fields().forEachRemaining(e -> out.set(e.getKey(), drop(e.getValue(), rules)));
            return out;
        }
        if (n.isArray()) {
            ArrayNode out = F.arrayNode();
            for (JsonNode e : n) {
                boolean gone = false;
                for (Iterator<Map.Entry<String, JsonNode>> it = rules.fields(); it.hasNext();) {
                    Map.Entry<String, JsonNode> r = it.next();
                    if (e.has(r.getKey()) && e.get(r.getKey()).asText().matches(r.getValue().asText())) gone = true;
                }
                if (!gone) out.add(drop(e, rules));
            }
            return out;
        }
        return n;
    }

    private void capture(JsonNode s, JsonNode answer) {
        s.path("capture").fields().forEachRemaining(e -> {
            JsonNode v = answer.at(e.getValue().asText());
            if (v.isMissingNode()) v = F.nullNode();
            vars.put(e.getKey(), v);
            if (v.isTextual() ? v.asText().length() > 8 : v.isIntegralNumber() && v.asLong() > 0) normal.name(v.asText(), e.getKey());
        });
    }

    private void until(JsonNode s, ApiKeys api, short v, JsonNode body, String label) throws Exception {
        long end = System.currentTimeMillis() + s.path("timeout").asInt(TIMEOUT_MS);
        while (true) {
            Wire w = wire(s);
            transmit(w, s, api, v, body);
            JsonNode answer = w.receive(TIMEOUT_MS);
            boolean done = true;
            for (Iterator<Map.Entry<String, JsonNode>> it = expand(s.get("until")).fields(); it.hasNext();) {
                Map.Entry<String, JsonNode> e = it.next();
                if (!answer.at(e.getKey()).asText().equals(e.getValue().asText())) done = false;
            }
            boolean late = System.currentTimeMillis() > end;
            if (done || late) {
                capture(s, answer);
                if (late) note(label, F.textNode("never as wanted: " + answer));
                else if (!s.path("quiet").asBoolean(true)) note(label, normal.of(drop(answer, expand(s.path("drop"))), false, Set.of()));
                return;
            }
            Thread.sleep(20);
        }
    }

    private void await(JsonNode s, Map.Entry<String, JsonNode> each) throws IOException {
        Wire w = wires.get(s.get("await").asText());
        if (w == null) throw new IOException("nothing to await on " + s.get("await"));
        Wire.Pending p = w.pending.peek();
        String label = p == null ? "await" : "await " + p.api().name + " v" + p.version();
        record(w, s, label + (each != null ? " " + each.getKey() + "=" + each.getValue().asText() : ""));
    }

    private void raw(JsonNode s) throws IOException {
        Wire w = wire(s);
        w.send(HexFormat.of().parseHex(s.get("raw").asText().replaceAll("\\s+", "")));
        if (s.path("finish").asBoolean()) w.finishWriting();
        if (s.path("async").asBoolean()) return;
        byte[] f = w.frame(s.path("noAnswer").asBoolean() ? SILENCE_MS : s.path("timeout").asInt(TIMEOUT_MS));
        JsonNode answer = f == null ? F.textNode(w.closed ? "CLOSED" : "NO ANSWER") : F.textNode("0x" + HexFormat.of().formatHex(f));
        note(s.path("name").asText("raw"), answer);
    }

    // ---- shorthands --------------------------------------------------------------------------------------------------

    /** {topic, partitions, configs}: created, and waited for until every partition has a leader. */
    private void topic(JsonNode s) throws Exception {
        Wire w = wire(s);
        ObjectNode t = F.objectNode().put("name", s.get("topic").asText()).put("numPartitions", s.path("partitions").asInt(1))
            .put("replicationFactor", 1);
        if (s.has("assignments")) {
            t.put("numPartitions", -1).put("replicationFactor", -1);
            ArrayNode all = t.putArray("assignments");
            for (JsonNode replicas : s.get("assignments")) all.addObject().put("partitionIndex", all.size() - 1).set("brokerIds", replicas);
        }
        ArrayNode configs = t.putArray("configs");
        s.path("configs").fields().forEachRemaining(e ->
            configs.addObject().put("name", e.getKey()).put("value", e.getValue().asText()));
        ObjectNode body = F.objectNode();
        body.putArray("topics").add(t);
        body.put("timeoutMs", 10000);
        transmit(w, F.objectNode(), ApiKeys.CREATE_TOPICS, (short) 7, Defaults.fill("CreateTopics", 7, body));
        JsonNode answer = w.receive(TIMEOUT_MS);
        if (answer.at("/topics/0/errorCode").asInt(-1) != 0) note("topic", F.textNode("not created: " + answer));
        ObjectNode m = F.objectNode();
        m.putArray("topics").addObject().put("name", s.get("topic").asText());
        m.put("allowAutoTopicCreation", false);
        long end = System.currentTimeMillis() + TIMEOUT_MS;
        if (s.has("assignments")) {
            for (int node : nodes.ids()) everywhere(s, m, node, end);
        }
        int partitions = s.has("assignments") ? s.get("assignments").size() : s.path("partitions").asInt(1);
        while (true) {
            Wire again = wire(s);
            transmit(again, F.objectNode(), ApiKeys.METADATA, (short) 12, Defaults.fill("Metadata", 12, m));
            JsonNode md = again.receive(TIMEOUT_MS).at("/topics/0");
            boolean ready = md.path("errorCode").asInt(-1) == 0 && md.path("partitions").size() == partitions;
            for (JsonNode p : md.path("partitions")) ready &= p.path("errorCode").asInt(-1) == 0;
            // The metadata cache hears of a topic a little before the log does.
            if (ready && (s.has("assignments") || led(again, s.get("topic"), partitions))) {
                JsonNode id = md.path("topicId");
                vars.put(s.path("id").asText("topicId"), id);
                normal.name(id.asText(), s.path("id").asText("topicId"));
                return;
            }
            if (System.currentTimeMillis() > end) {
                note("topic", F.textNode("never ready: " + md));
                dead = true;
                return;
            }
            Thread.sleep(20);
        }
    }

    /** Waits until a node has heard of a topic, and its followers are in sync where it leads. */
    private void everywhere(JsonNode s, ObjectNode metadata, int node, long end) throws Exception {
        ObjectNode step = F.objectNode().put("node", node);
        while (System.currentTimeMillis() < end) {
            Wire w = wire(step);
            transmit(w, step, ApiKeys.METADATA, (short) 12, Defaults.fill("Metadata", 12, metadata));
            boolean ready = w.receive(TIMEOUT_MS).at("/topics/0/errorCode").asInt(-1) == 0;
            for (int i = 0; i < s.get("assignments").size(); i++) {
                if (s.get("assignments").get(i).get(0).asInt() == node) ready &= leads(w, s.get("topic"), i);
            }
            if (ready) return;
            Thread.sleep(20);
        }
        note("topic", F.textNode("never ready at node " + node));
    }

    private boolean leads(Wire w, JsonNode topic, int partition) throws Exception {
        ObjectNode body = F.objectNode().put("replicaId", -1);
        ObjectNode t = body.putArray("topics").addObject();
        t.set("name", topic);
        t.putArray("partitions").addObject().put("partitionIndex", partition).put("timestamp", -2).put("currentLeaderEpoch", -1);
        transmit(w, F.objectNode(), ApiKeys.LIST_OFFSETS, (short) 7, Defaults.fill("ListOffsets", 7, body));
        return w.receive(TIMEOUT_MS).at("/topics/0/partitions/0/errorCode").asInt(-1) == 0;
    }

    /** Waits until the group coordinator has loaded all its partitions. */
    static void warm(Nodes nodes) throws Exception {
        ArrayNode script = F.arrayNode();
        ObjectNode find = script.addObject().put("api", "FindCoordinator").put("v", 4).put("timeout", 30000);
        find.putObject("body").put("keyType", 0).putArray("coordinatorKeys").add("warm");
        find.putObject("until").put("/coordinators/0/errorCode", 0);
        // With several nodes no single one knows all groups.
        ObjectNode describe = (nodes.several() ? F.arrayNode() : script).addObject().put("api", "DescribeGroups").put("v", 5).put("timeout", 30000);
        ArrayNode groups = describe.putObject("body").putArray("groups");
        ObjectNode until = describe.putObject("until");
        for (int i = 0; i < 400; i++) {
            groups.add("warm" + i);
            until.put("/groups/" + i + "/errorCode", 0);
        }
        for (JsonNode note : new Case("warm/up", script, nodes).run()) System.out.println("warming up: " + note);
    }

    private boolean led(Wire w, JsonNode topic, int partitions) throws Exception {
        ObjectNode body = F.objectNode().put("replicaId", -1);
        ObjectNode t = body.putArray("topics").addObject();
        t.set("name", topic);
        ArrayNode parts = t.putArray("partitions");
        for (int i = 0; i < partitions; i++) parts.addObject().put("partitionIndex", i).put("timestamp", -2).put("currentLeaderEpoch", -1);
        transmit(w, F.objectNode(), ApiKeys.LIST_OFFSETS, (short) 7, Defaults.fill("ListOffsets", 7, body));
        for (JsonNode p : w.receive(TIMEOUT_MS).at("/topics/0/partitions")) {
            if (p.path("errorCode").asInt(-1) != 0) return false;
        }
        return true;
    }

    private JsonNode produceBody(JsonNode p) {
        ObjectNode body = F.objectNode();
        body.set("transactionalId", p.path("transactionalId").isMissingNode() ? F.nullNode() : p.get("transactionalId"));
        body.set("acks", p.path("acks").isMissingNode() ? F.numberNode(-1) : p.get("acks"));
        body.put("timeoutMs", 5000);
        ObjectNode topic = body.putArray("topicData").addObject();
        topic.set("name", p.path("topic").isMissingNode() ? F.textNode("$t") : p.get("topic"));
        topic.set("topicId", p.path("topicId").isMissingNode() ? F.textNode("$topicId") : p.get("topicId"));
        ObjectNode part = topic.putArray("partitionData").addObject();
        part.set("index", p.path("partition").isMissingNode() ? F.numberNode(0) : p.get("partition"));
        part.set("records", p.has("rawRecords") ? p.get("rawRecords") : F.objectNode().set("$batch", p.path("batch")));
        return body;
    }

    private JsonNode fetchBody(JsonNode p) {
        ObjectNode body = F.objectNode();
        body.put("maxWaitMs", p.path("maxWaitMs").asInt(200)).put("minBytes", p.path("minBytes").asInt(1));
        body.put("maxBytes", p.path("maxBytes").asInt(10_000_000)).put("isolationLevel", p.path("isolationLevel").asInt(0));
        body.put("sessionId", 0).put("sessionEpoch", -1);
        ObjectNode topic = body.putArray("topics").addObject();
        topic.set("topic", p.path("topic").isMissingNode() ? F.textNode("$t") : p.get("topic"));
        topic.set("topicId", p.path("topicId").isMissingNode() ? F.textNode("$topicId") : p.get("topicId"));
        ObjectNode part = topic.putArray("partitions").addObject();
        part.set("partition", p.path("partition").isMissingNode() ? F.numberNode(0) : p.get("partition"));
        part.put("currentLeaderEpoch", p.path("currentLeaderEpoch").asInt(-1));
        part.set("fetchOffset", p.path("offset").isMissingNode() ? F.numberNode(0) : p.get("offset"));
        part.put("partitionMaxBytes", p.path("partitionMaxBytes").asInt(1_000_000));
        return body;
    }

    /** Puts variables in and works out the `$`-objects. */
    private JsonNode expand(JsonNode n) {
        if (n.isTextual()) return expandText(n.asText());
        if (n.isArray()) {
            ArrayNode out = F.arrayNode();
            for (JsonNode e : n) out.add(expand(e));
            return out;
        }
        if (!n.isObject()) return n;
        if (n.size() == 1 && n.fieldNames().next().startsWith("$")) {
            Map.Entry<String, JsonNode> e = n.fields().next();
            return special(e.getKey(), e.getKey().equals("$times") ? e.getValue() : expand(e.getValue()));
        }
        ObjectNode out = F.objectNode();
        n.fields().forEachRemaining(e -> out.set(e.getKey(), expand(e.getValue())));
        return out;
    }

    private JsonNode expandText(String s) {
        if (s.startsWith("$") && vars.containsKey(s.substring(1))) return vars.get(s.substring(1));
        int at = s.indexOf("${");
        if (at < 0) return F.textNode(s);
        StringBuilder out = new StringBuilder();
        int from = 0;
        for (; at >= 0; at = s.indexOf("${", from)) {
            int end = s.indexOf('}', at);
            String v = s.substring(at + 2, end);
            if (!vars.containsKey(v)) throw new IllegalArgumentException("no variable " + v);
            out.append(s, from, at).append(vars.get(v).asText());
            from = end + 1;
        }
        return F.textNode(out.append(s.substring(from)).toString());
    }

    private JsonNode special(String kind, JsonNode v) {
        switch (kind) {
            case "$batch": return F.binaryNode(Batches.build(v));
            case "$hex": return F.binaryNode(HexFormat.of().parseHex(v.asText().replaceAll("\\s+", "")));
            case "$text": return F.binaryNode(Batches.bytes(v));
            case "$now": return F.numberNode(System.currentTimeMillis() + v.asLong());
            case "$string": return F.textNode(v.get(0).asText().repeat(v.get(1).asInt()));
            case "$before": return F.textNode(v.get(0).asText().split(v.get(1).asText(), 2)[0]);
            case "$after": return F.textNode(v.get(0).asText().split(v.get(1).asText(), 2)[1]);
            case "$otherThan": return F.numberNode(nodes.otherThan(v.asInt()));
            case "$plus": return F.numberNode(v.get(0).asLong() + v.get(1).asLong());
            case "$times": {
                ArrayNode out = F.arrayNode();
                for (int i = 0; i < v.get(0).asInt(); i++) {
                    vars.put("i", F.numberNode(i));
                    out.add(expand(v.get(1)));
                }
                return out;
            }
            case "$subscription": {
                List<String> topics = new ArrayList<>();
                v.forEach(t -> topics.add(t.asText()));
                return F.binaryNode(array(ConsumerProtocol.serializeSubscription(new Subscription(topics))));
            }
            case "$assignment": {
                List<TopicPartition> parts = new ArrayList<>();
                v.forEach(p -> parts.add(new TopicPartition(p.get(0).asText(), p.get(1).asInt())));
                return F.binaryNode(array(ConsumerProtocol.serializeAssignment(new Assignment(parts))));
            }
            default: throw new IllegalArgumentException("unknown " + kind);
        }
    }

    private static byte[] array(ByteBuffer b) {
        byte[] a = new byte[b.remaining()];
        b.get(a);
        return a;
    }
}
