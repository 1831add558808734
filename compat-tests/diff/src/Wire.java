// One connection to a broker: builds request frames of any API and version from JSON, reads answers back into JSON.

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.*;
import java.io.*;
import java.net.*;
import java.nio.ByteBuffer;
import java.util.*;
import org.apache.kafka.common.message.*;
import org.apache.kafka.common.protocol.*;

final class Wire implements Closeable {
    /** What came back for one request. */
    record Answer(JsonNode json) {}

    record Pending(ApiKeys api, short version, int correlationId) {}

    private final Socket socket;
    private final DataInputStream in;
    private final OutputStream out;
    final Deque<Pending> pending = new ArrayDeque<>();
    private int nextCorrelationId = 1;
    boolean closed;

    Wire(String host, int port) throws IOException {
        socket = new Socket(host, port);
        socket.setTcpNoDelay(true);
        in = new DataInputStream(new BufferedInputStream(socket.getInputStream()));
        out = socket.getOutputStream();
    }

    static final Map<String, ApiKeys> APIS = new HashMap<>();

    static {
        for (ApiKeys k : ApiKeys.values()) APIS.put(k.name, k);
    }

    static ApiKeys api(String name) {
        ApiKeys k = APIS.get(name);
        if (k == null) throw new IllegalArgumentException("no such API: " + name);
        return k;
    }

    private static Class<?> converter(ApiMessage message) throws ReflectiveOperationException {
        return Class.forName(message.getClass().getName() + "JsonConverter");
    }

    static byte[] bytes(Message message, short version) {
        ObjectSerializationCache cache = new ObjectSerializationCache();
        int size = message.size(cache, version);
        ByteBuffer buf = ByteBuffer.allocate(size);
        message.write(new ByteBufferAccessor(buf), cache, version);
        return buf.array();
    }

    static ApiMessage fromJson(ApiKeys api, short version, JsonNode body) throws ReflectiveOperationException {
        ApiMessage shape = api.messageType.newRequest();
        try {
            return (ApiMessage) converter(shape).getMethod("read", JsonNode.class, short.class).invoke(null, body, version);
        } catch (java.lang.reflect.InvocationTargetException e) {
            throw new IllegalArgumentException(api.name + " v" + version + ": " + e.getCause(), e.getCause());
        }
    }

    /** Header and body, without the size. `headerKey` and `headerVersion` are what the header says. */
    byte[] request(ApiKeys api, short version, short headerKey, short headerVersion, JsonNode body, JsonNode clientId)
            throws ReflectiveOperationException {
        int correlationId = nextCorrelationId++;
        RequestHeaderData header = new RequestHeaderData()
            .setRequestApiKey(headerKey).setRequestApiVersion(headerVersion).setCorrelationId(correlationId)
            .setClientId(clientId == null ? "diff" : clientId.isNull() ? null : clientId.asText());
        byte[] h = bytes(header, api.requestHeaderVersion(version));
        byte[] b = bytes(fromJson(api, version, body), version);
        pending.add(new Pending(api, version, correlationId));
        byte[] all = Arrays.copyOf(h, h.length + b.length);
        System.arraycopy(b, 0, all, h.length, b.length);
        return all;
    }

    void send(byte[] frame) {
        try {
            out.write(frame);
            out.flush();
        } catch (IOException e) {
            closed = true;
        }
    }

    void send(int size, byte[] frame) {
        send(ByteBuffer.allocate(4 + frame.length).putInt(size).put(frame).array());
    }

    void finishWriting() {
        try {
            socket.shutdownOutput();
        } catch (IOException e) {
            closed = true;
        }
    }

    /** The next frame: its bytes, or null with `closed` set, or null when nothing came in time. */
    byte[] frame(int timeoutMs) {
        if (closed) return null;
        try {
            socket.setSoTimeout(timeoutMs);
            in.mark(4);
            int size = in.readInt();
            if (size < 0 || size > 200_000_000) throw new IOException("answer of size " + size);
            byte[] b = new byte[size];
            in.readFully(b);
            return b;
        } catch (SocketTimeoutException e) {
            return null;
        } catch (IOException e) {
            closed = true;
            return null;
        }
    }

    /** Decodes `frame` as the answer to `p`. */
    static JsonNode decode(byte[] frame, Pending p) {
        ByteBuffer buf = ByteBuffer.wrap(frame);
        ObjectNode wrong = JsonNodeFactory.instance.objectNode();
        try {
            int correlationId = buf.getInt(0);
            if (correlationId != p.correlationId) {
                return wrong.put("wrongCorrelationId", correlationId - p.correlationId);
            }
            short version = p.version;
            if (p.api == ApiKeys.API_VERSIONS && frame.length > 6 && buf.getShort(4) == 35) version = 0;
            ByteBufferAccessor acc = new ByteBufferAccessor(buf);
            new ResponseHeaderData().read(acc, p.api.responseHeaderVersion(version));
            ApiMessage response = p.api.messageType.newResponse();
            response.read(acc, version);
            JsonNode json = (JsonNode) converter(response)
                .getMethod("write", response.getClass(), short.class, boolean.class).invoke(null, response, version, true);
            if (buf.hasRemaining()) return wrong.put("leftOver", buf.remaining()).set("answer", json);
            return json;
        } catch (ReflectiveOperationException | RuntimeException e) {
            return wrong.put("undecodable", HexFormat.of().formatHex(frame)).put("why", String.valueOf(e));
        }
    }

    JsonNode receive(int timeoutMs) {
        byte[] f = frame(timeoutMs);
        if (f == null) return TextNode.valueOf(closed ? "CLOSED" : "NO ANSWER");
        Pending p = pending.poll();
        if (p == null) return JsonNodeFactory.instance.objectNode().put("unexpected", HexFormat.of().formatHex(f));
        return decode(f, p);
    }

    @Override
    public void close() {
        try {
            socket.close();
        } catch (IOException e) {
            // closing is all that was wanted
        }
    }
}
