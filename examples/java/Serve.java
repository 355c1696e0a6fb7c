// A model in Java behind the Open Inference Protocol, with nothing but the JDK: which species of iris is nearest?

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Executors;

public final class Serve {
    static final String NAME = System.getenv().getOrDefault("INSTAR_MODEL", "iris");
    static final String PATH = "/v2/models/" + NAME;
    static final List<String> SPECIES = List.of("setosa", "versicolor", "virginica");
    static final double[][] MIDDLES = {
        {5.006, 3.428, 1.462, 0.246}, {5.936, 2.770, 4.260, 1.326}, {6.588, 2.974, 5.552, 2.026}};

    /** What the caller did wrong. */
    static final class Refused extends RuntimeException {
        Refused(String message) {
            super(message);
        }
    }

    public static void main(String[] arguments) throws IOException {
        int port = Integer.parseInt(System.getenv().getOrDefault("INSTAR_PORT", "8080"));
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 64);
        server.createContext("/", Serve::answer);
        server.setExecutor(Executors.newFixedThreadPool(4));
        server.start();
    }

    static void answer(HttpExchange exchange) throws IOException {
        String body = new String(exchange.getRequestBody().readAllBytes(), StandardCharsets.UTF_8);
        String path = exchange.getRequestURI().getPath();
        int status = 200;
        Map<String, Object> said;
        try {
            if (path.equals("/v2/health/live") || path.equals("/v2/health/ready") || path.equals(PATH + "/ready")) {
                said = Map.of("ready", true);
            } else if (path.equals(PATH)) {
                said = metadata();
            } else if (path.equals(PATH + "/infer")) {
                said = infer(new Json(body).read());
            } else {
                status = 404;
                said = Map.of("error", "there is nothing at " + path);
            }
        } catch (Refused refused) {
            status = 400;
            said = Map.of("error", refused.getMessage());
        } catch (RuntimeException fault) {
            status = 500;
            said = Map.of("error", fault.toString());
        }
        byte[] bytes = Json.write(said).getBytes(StandardCharsets.UTF_8);
        exchange.getResponseHeaders().set("Content-Type", "application/json");
        // The JDK's server writes head and body apart: without -Dsun.net.httpserver.nodelay=true a caller waits 40 ms for it.
        exchange.sendResponseHeaders(status, bytes.length);
        exchange.getResponseBody().write(bytes);
        exchange.close();
    }

    static Map<String, Object> metadata() {
        return Map.of(
            "name", NAME, "platform", "java", "inputs", List.of(tensor("x", "FP64", List.of(-1, 4))),
            "outputs", List.of(tensor("species", "BYTES", List.of(-1)), tensor("distance", "FP64", List.of(-1, 3))));
    }

    static Map<String, Object> tensor(String name, String datatype, List<Integer> shape) {
        return Map.of("name", name, "datatype", datatype, "shape", shape);
    }

    static Map<String, Object> infer(Object asked) {
        List<Double> values = values(asked);
        int rows = values.size() / 4;
        List<Object> species = new ArrayList<>();
        List<Object> distances = new ArrayList<>();
        for (int row = 0; row < rows; row++) {
            int nearest = 0;
            double least = Double.MAX_VALUE;
            for (int at = 0; at < MIDDLES.length; at++) {
                double sum = 0;
                for (int column = 0; column < 4; column++) {
                    double difference = values.get(row * 4 + column) - MIDDLES[at][column];
                    sum += difference * difference;
                }
                double distance = Math.sqrt(sum);
                distances.add(distance);
                if (distance < least) {
                    least = distance;
                    nearest = at;
                }
            }
            species.add(SPECIES.get(nearest));
        }
        Map<String, Object> said = new LinkedHashMap<>();
        said.put("model_name", NAME);
        if (((Map<?, ?>) asked).get("id") instanceof String id) {
            said.put("id", id);
        }
        said.put("outputs", List.of(
            output("species", "BYTES", List.of(rows), species), output("distance", "FP64", List.of(rows, 3), distances)));
        return said;
    }

    static Map<String, Object> output(String name, String datatype, List<Integer> shape, List<Object> data) {
        return Map.of("name", name, "datatype", datatype, "shape", shape, "data", data);
    }

    static List<Double> values(Object asked) {
        if (!(asked instanceof Map<?, ?> map) || !(map.get("inputs") instanceof List<?> inputs) || inputs.size() != 1) {
            throw new Refused("the body has not one input");
        }
        if (!(inputs.get(0) instanceof Map<?, ?> input) || !"x".equals(input.get("name"))) {
            throw new Refused("the input is not called x");
        }
        List<Double> values = new ArrayList<>();
        flatten(input.get("data"), values);
        if (values.isEmpty() || values.size() % 4 != 0) {
            throw new Refused("the data are not rows of four numbers");
        }
        return values;
    }

    static void flatten(Object data, List<Double> values) {
        if (data instanceof List<?> list) {
            list.forEach(one -> flatten(one, values));
        } else if (data instanceof Double number) {
            values.add(number);
        } else {
            throw new Refused("the data are no numbers");
        }
    }

    /** As much of JSON as the protocol needs, read and written. */
    static final class Json {
        private final String text;
        private int at;

        Json(String text) {
            this.text = text;
        }

        Object read() {
            Object value = value(0);
            if (peek() != 0) {
                throw new Refused("the body goes on after its end");
            }
            return value;
        }

        private Object value(int depth) {
            if (depth > 32) {
                throw new Refused("the body is nested too deeply");
            }
            char first = peek();
            if (first == '{') {
                Map<String, Object> map = new LinkedHashMap<>();
                for (at++; peek() != '}'; comma('}')) {
                    String key = string();
                    expect(':');
                    map.put(key, value(depth + 1));
                }
                at++;
                return map;
            }
            if (first == '[') {
                List<Object> list = new ArrayList<>();
                for (at++; peek() != ']'; comma(']')) {
                    list.add(value(depth + 1));
                }
                at++;
                return list;
            }
            return first == '"' ? string() : word();
        }

        private Object word() {
            int start = at;
            while (at < text.length() && "+-.0123456789aeflnrstuE".indexOf(text.charAt(at)) >= 0) {
                at++;
            }
            String word = text.substring(start, at);
            if (word.equals("null")) {
                return null;
            }
            if (word.equals("true") || word.equals("false")) {
                return word.equals("true");
            }
            try {
                return Double.valueOf(word);
            } catch (NumberFormatException fault) {
                throw new Refused("the body is no JSON at " + start);
            }
        }

        private String string() {
            expect('"');
            StringBuilder found = new StringBuilder();
            while (at < text.length() && text.charAt(at) != '"') {
                char one = text.charAt(at++);
                if (one == '\\' && at < text.length()) {
                    one = text.charAt(at++);
                    if (one == 'u' && at + 4 <= text.length()) {
                        int code = 0;
                        for (int end = at + 4; at < end; at++) {
                            code = code * 16 + Math.max(0, Character.digit(text.charAt(at), 16));
                        }
                        one = (char) code;
                    } else {
                        int place = "bfnrt".indexOf(one);
                        one = place < 0 ? one : "\b\f\n\r\t".charAt(place);
                    }
                }
                found.append(one);
            }
            expect('"');
            return found.toString();
        }

        private void comma(char end) {
            if (peek() != end) {
                expect(',');
            }
        }

        private void expect(char wanted) {
            if (peek() != wanted) {
                throw new Refused("the body is no JSON at " + at);
            }
            at++;
        }

        private char peek() {
            while (at < text.length() && Character.isWhitespace(text.charAt(at))) {
                at++;
            }
            return at < text.length() ? text.charAt(at) : 0;
        }

        static String write(Object value) {
            if (value instanceof Map<?, ?> map) {
                List<String> parts = new ArrayList<>();
                map.forEach((key, one) -> parts.add(write(key) + ":" + write(one)));
                return "{" + String.join(",", parts) + "}";
            }
            if (value instanceof List<?> list) {
                return "[" + String.join(",", list.stream().map(Json::write).toList()) + "]";
            }
            return value instanceof String string ? quoted(string) : String.valueOf(value);
        }

        private static String quoted(String string) {
            StringBuilder made = new StringBuilder("\"");
            for (char one : string.toCharArray()) {
                if (one == '"' || one == '\\') {
                    made.append('\\').append(one);
                } else if (one < ' ') {
                    made.append(String.format("\\u%04x", (int) one));
                } else {
                    made.append(one);
                }
            }
            return made.append('"').toString();
        }
    }
}
