// Runs the transcripts of cases/ with Apache Kafka's own tools, all in this one JVM, and compares what the tools print with what
// stands below each command; `record` writes that anew. ../README.md explains the format.
//
//   Tools check|record FILE...
//
// Properties: `nodes` is ID=PORT:CONTROLLER_PORT:PID:DIR for each node, `start` the command that starts one when the name of its
// properties file is added, `pids` a file for the ids of the processes that were started here.

import java.io.*;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.util.*;
import java.util.regex.*;
import java.util.stream.Stream;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.utils.Exit;

public final class Tools {
    private static final int PATIENCE_MS = 40_000;
    /** Of several nodes, each hears of a change in its own time: as long may what only looks differ from the transcript. */
    private static final int PROPAGATION_MS = 5_000;
    private static final Set<String> LOOKS = Set.of("--describe", "describe", "--list", "list-endpoints", "get-offsets");
    private static final Map<String, String> MAINS = Map.ofEntries(
        Map.entry("broker-api-versions", "org.apache.kafka.tools.BrokerApiVersionsCommand"),
        Map.entry("cluster", "org.apache.kafka.tools.ClusterTool"),
        Map.entry("configs", "kafka.admin.ConfigCommand"),
        Map.entry("console-consumer", "org.apache.kafka.tools.consumer.ConsoleConsumer"),
        Map.entry("console-producer", "org.apache.kafka.tools.ConsoleProducer"),
        Map.entry("consumer-groups", "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"),
        Map.entry("delete-records", "org.apache.kafka.tools.DeleteRecordsCommand"),
        Map.entry("features", "org.apache.kafka.tools.FeatureCommand"),
        Map.entry("get-offsets", "org.apache.kafka.tools.GetOffsetShell"),
        Map.entry("leader-election", "org.apache.kafka.tools.LeaderElectionCommand"),
        Map.entry("log-dirs", "org.apache.kafka.tools.LogDirsCommand"),
        Map.entry("metadata-quorum", "org.apache.kafka.tools.MetadataQuorumCommand"),
        Map.entry("reassign-partitions", "org.apache.kafka.tools.reassign.ReassignPartitionsCommand"),
        Map.entry("topics", "org.apache.kafka.tools.TopicCommand"));

    record Node(String port, String controllerPort, String dir) {}

    private static final Map<String, Node> NODES = new TreeMap<>();
    private static final Map<String, ProcessHandle> RUNNING = new HashMap<>();
    private static final ByteArrayOutputStream OUTPUT = new ByteArrayOutputStream();
    /** What the tool wanted to end with, and how much it had written then. */
    private static Integer status;
    private static int written;
    private static PrintStream terminal;
    private static Path scratch;
    private static int passed, failed;

    /** Ends the tool, not the JVM; tools that catch everything may call this twice. */
    private static void end(int wanted) {
        if (status == null) {
            System.out.flush();
            status = wanted;
            written = OUTPUT.size();
        }
        throw new IllegalStateException("ended");
    }

    public static void main(String[] args) throws Exception {
        for (String node : System.getProperty("nodes").trim().split(" +")) {
            String[] idAndRest = node.split("=", 2);
            String[] p = idAndRest[1].split(":", 4);
            NODES.put(idAndRest[0], new Node(p[0], p[1], p[3]));
            RUNNING.put(idAndRest[0], ProcessHandle.of(Long.parseLong(p[2])).orElseThrow());
        }
        scratch = Files.createTempDirectory("tools");
        terminal = System.out;
        // Before any tool is loaded: Scala keeps the stream that it finds first.
        PrintStream captured = new PrintStream(OUTPUT, true, StandardCharsets.UTF_8);
        System.setOut(captured);
        System.setErr(captured);
        Exit.setExitProcedure((wanted, message) -> end(wanted));
        Exit.setHaltProcedure((wanted, message) -> end(wanted));
        for (int i = 1; i < args.length; i++) transcript(Path.of(args[i]), args[0].equals("record"));
        terminal.printf("%d passed, %d failed%n", passed, failed);
        terminal.flush();
        Runtime.getRuntime().halt(failed == 0 ? 0 : 1);
    }

    private static void transcript(Path file, boolean record) throws Exception {
        String area = file.getFileName().toString().replace(".txt", "");
        List<String> lines = Files.readAllLines(file);
        List<String> written = new ArrayList<>();
        for (int i = 0; i < lines.size();) {
            String line = lines.get(i++);
            written.add(line);
            if (line.startsWith("! ")) control(line.substring(2));
            if (!line.startsWith("> ")) continue;
            List<String> expected = new ArrayList<>();
            while (i < lines.size() && lines.get(i).startsWith("  ")) expected.add(lines.get(i++).substring(2));
            Command command = new Command(words(line.substring(2)));
            List<String> got = command.run(record ? null : expected);
            for (String l : got) written.add("  " + l);
            if (record) continue;
            if (got.equals(expected)) {
                passed++;
                terminal.println("ok    " + area + ": " + line.substring(2));
            } else {
                failed++;
                terminal.println("FAIL  " + area + ": " + line.substring(2));
                for (String l : expected) if (!got.contains(l)) terminal.println("      | Kafka: " + l);
                for (String l : got) if (!expected.contains(l)) terminal.println("      | here:  " + l);
                if (new HashSet<>(got).equals(new HashSet<>(expected))) terminal.println("      | the same lines in another order");
            }
            terminal.flush();
        }
        if (record) {
            Files.write(file, written);
            terminal.println("recorded " + area);
        }
    }

    /** `kill ID`, `start ID`: of a node; `reassign TOPIC-PARTITION REPLICAS`; `file NAME TEXT`: for --...-file $DIR/NAME. */
    private static void control(String line) throws Exception {
        String[] words = line.split(" ", 3);
        switch (words[0]) {
            case "kill" -> {
                RUNNING.get(words[1]).destroyForcibly();
                RUNNING.get(words[1]).onExit().join();
            }
            case "start" -> {
                Path dir = Path.of(NODES.get(words[1]).dir);
                List<String> command = new ArrayList<>(List.of(System.getProperty("start").split(" ")));
                command.add(dir.resolve("server.properties").toString());
                Process process = new ProcessBuilder(command).redirectErrorStream(true)
                    .redirectOutput(ProcessBuilder.Redirect.appendTo(dir.resolve("broker.log").toFile())).start();
                RUNNING.put(words[1], process.toHandle());
                Files.writeString(Path.of(System.getProperty("pids")), process.pid() + "\n", StandardOpenOption.CREATE, StandardOpenOption.APPEND);
            }
            // What kafka-reassign-partitions refuses to begin, because it wants the broker to be there.
            case "reassign" -> {
                int dash = words[1].lastIndexOf('-');
                TopicPartition partition = new TopicPartition(words[1].substring(0, dash), Integer.parseInt(words[1].substring(dash + 1)));
                List<Integer> replicas = Stream.of(words[2].split(",")).map(Integer::valueOf).toList();
                try (Admin admin = Admin.create(Map.of("bootstrap.servers", "127.0.0.1:" + NODES.get("1").port))) {
                    admin.alterPartitionReassignments(Map.of(partition, Optional.of(new NewPartitionReassignment(replicas)))).all().get();
                }
            }
            case "file" -> Files.writeString(scratch.resolve(words[1]), words[2].replace("|", "\n"));
            default -> throw new IllegalArgumentException(line);
        }
    }

    /** Words of a line; single quotes keep spaces together. */
    private static List<String> words(String line) {
        List<String> out = new ArrayList<>();
        Matcher m = Pattern.compile("(?:[^ ']|'[^']*')+").matcher(line);
        while (m.find()) out.add(m.group().replace("'", ""));
        return out;
    }

    /** One line `> [OPTION...] TOOL ARGS...`. */
    private static final class Command {
        private String node = "1";
        private boolean sorted, eventually, atController;
        private String stdin = "";
        private final List<Pattern> masks = new ArrayList<>();
        private Pattern until;
        private final String tool;
        private final List<String> args;

        Command(List<String> words) {
            int i = 0;
            for (; !MAINS.containsKey(words.get(i)); i++) {
                String w = words.get(i);
                if (w.matches("@\\d")) node = w.substring(1);
                else if (w.equals("@controller")) atController = true;
                else if (w.equals("sorted")) sorted = true;
                else if (w.equals("eventually")) eventually = true;
                else if (w.startsWith("until=")) until = Pattern.compile(w.substring(6), Pattern.MULTILINE);
                else if (w.startsWith("mask=")) masks.add(Pattern.compile(w.substring(5)));
                else if (w.startsWith("stdin=")) stdin = w.substring(6).replace("|", "\n") + "\n";
                else throw new IllegalArgumentException("no tool and no option: " + w);
            }
            tool = words.get(i);
            args = new ArrayList<>();
            for (String w : words.subList(i + 1, words.size())) args.add(w.replace("$DIR", scratch.toString()));
            Node n = NODES.get(node);
            // Where there are sub-commands, the address stands before them.
            int at = tool.equals("features") || tool.equals("metadata-quorum") ? 0 : args.size();
            if (atController) args.addAll(at, List.of("--bootstrap-controller", "127.0.0.1:" + n.controllerPort));
            else args.addAll(at, List.of("--bootstrap-server", "127.0.0.1:" + n.port));
        }

        /** Runs it, again and again until it prints what `until` or, with `eventually` or if it only looks, the transcript wants. */
        List<String> run(List<String> expected) throws Exception {
            long begin = System.currentTimeMillis();
            boolean looks = LOOKS.contains(tool) || args.stream().anyMatch(LOOKS::contains);
            if (eventually && expected == null) Thread.sleep(15_000); // recorded once all has settled
            while (true) {
                List<String> got = once();
                long waited = System.currentTimeMillis() - begin;
                boolean asWanted = expected == null || got.equals(expected);
                boolean done = until == null || until.matcher(String.join("\n", got)).find();
                if (!done || eventually && !asWanted ? waited > PATIENCE_MS : asWanted || !looks || waited > PROPAGATION_MS) return got;
                Thread.sleep(100);
            }
        }

        private List<String> once() throws Exception {
            OUTPUT.reset();
            System.setIn(new ByteArrayInputStream(stdin.getBytes(StandardCharsets.UTF_8)));
            status = null;
            try {
                Class.forName(MAINS.get(tool)).getMethod("main", String[].class).invoke(null, (Object) args.toArray(String[]::new));
            } catch (java.lang.reflect.InvocationTargetException e) {
                if (status == null) System.out.println("thrown: " + e.getCause());
            }
            System.out.flush();
            byte[] output = status == null ? OUTPUT.toByteArray() : Arrays.copyOf(OUTPUT.toByteArray(), written);
            List<String> lines = new ArrayList<>();
            for (String line : normal(new String(output, StandardCharsets.UTF_8)).split("\n")) {
                if (!line.isBlank() && !line.startsWith(" at ") && !line.matches(" \\.\\.\\. \\d+ more")) lines.add(line.strip());
            }
            if (sorted) Collections.sort(lines);
            if (status != null && status != 0) lines.add("(status " + status + ")");
            return lines;
        }

        /** The order of an ISR says when each came back. */
        private static String inOrder(String ids) {
            return String.join(",", new TreeSet<>(List.of(ids.split(","))));
        }

        private String normal(String text) {
            for (Map.Entry<String, Node> e : NODES.entrySet()) {
                Node n = e.getValue();
                text = text.replace("127.0.0.1:" + n.port, "node-" + e.getKey()).replace("127.0.0.1:" + n.controllerPort, "controller-" + e.getKey())
                    .replace(n.dir, "<dir-" + e.getKey() + ">").replaceAll("\\b" + n.port + "\\b", "<port-" + e.getKey() + ">")
                    .replaceAll("\\b" + n.controllerPort + "\\b", "<controller-port-" + e.getKey() + ">");
            }
            text = text.replace(scratch.toString(), "$DIR");
            text = Pattern.compile("((?:Isr|Elr): )([0-9,]+)").matcher(text).replaceAll(m -> m.group(1) + inOrder(m.group(2)));
            for (Pattern mask : masks) text = mask.matcher(text).replaceAll("<masked>");
            return text.replaceAll("(?<![-_A-Za-z0-9.])(?=[^ ]*[A-Z])(?=[^ ]*[a-z])[-_A-Za-z0-9]{22}(?![-_A-Za-z0-9.])", "<id>")
                .replaceAll("\\b1\\d{12}\\b", "<time>").replaceAll("[ \\t]+", " ")
                .replaceAll("(LeaderId|LeaderEpoch|HighWatermark|MaxFollowerLag|MaxFollowerLagTimeMs): ?-?\\d+", "$1: <n>")
                .replaceAll("Epoch: \\d+", "Epoch: <n>")
                // kafka-metadata-quorum --replication: any node may lead
                .replaceAll("(?m)^\\d+ <id> \\d+ \\d+ <time> (<time>|-1) ", "<node> <id> <n> <n> <time> <time> ")
                .replaceAll("(Could not (up|down)grade \\S+ to \\d+\\.) .*", "$1 <text>")
                // Texts are each broker's own.
                .replaceAll("(Exception|ApiError)(: |\\(error=[A-Z_]+, message=).*", "$1: <text>")
                .replaceAll("(Error while executing [a-z ]+command ?:).*", "$1 <text>")
                .replaceAll("(?m)^\\[[^]]*\\] (WARN|ERROR|INFO) .*$", "");
        }
    }
}
