// Where the brokers are: `HOST:PORT` for one, or `HOST:PORT:CONTROLLER_PORT,...` for the nodes 1, 2, 3 of a cluster.

import java.util.*;

final class Nodes {
    final String host;
    private final List<Integer> ports = new ArrayList<>();
    private final List<Integer> controllerPorts = new ArrayList<>();

    Nodes(String text) {
        String[] all = text.split(",");
        host = all[0].split(":")[0];
        for (String node : all) {
            String[] p = node.split(":");
            ports.add(Integer.parseInt(p[1]));
            if (p.length > 2) controllerPorts.add(Integer.parseInt(p[2]));
        }
    }

    int size() {
        return ports.size();
    }

    boolean several() {
        return size() > 1;
    }

    List<Integer> ids() {
        List<Integer> ids = new ArrayList<>();
        for (int i = 1; i <= size(); i++) ids.add(i);
        return ids;
    }

    /** Of a node; 0 stands for any. */
    int port(int id) {
        return ports.get(Math.max(id, 1) - 1);
    }

    int controllerPort(int id) {
        return controllerPorts.get(id - 1);
    }

    int otherThan(int id) {
        return id % size() + 1;
    }

    /** Null if it is none of theirs. */
    String nameOfPort(int port) {
        if (ports.contains(port)) return several() ? "<port-" + (ports.indexOf(port) + 1) + ">" : "<port>";
        if (controllerPorts.contains(port)) return "<controller-port-" + (controllerPorts.indexOf(port) + 1) + ">";
        return null;
    }

    String hideAddresses(String text) {
        for (int port : ports) text = text.replace(host + ":" + port, several() ? "<address-" + (ports.indexOf(port) + 1) + ">" : "<address>");
        return text;
    }
}
