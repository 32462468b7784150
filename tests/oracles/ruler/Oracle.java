import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import software.amazon.event.ruler.JsonRuleCompiler;
import software.amazon.event.ruler.Machine;

/**
 * Answers for event-ruler, one line of JSON for each line of JSON it reads.
 *
 * <p>{@code {"rules": {NAME: PATTERN}, "event": EVENT}} is answered with {@code {"matches": [NAME], "refused": {NAME: REASON}}}.
 * A line that has {@code "events": [EVENT]} and {@code "rounds": N} instead of an event is answered with the time that matching
 * took: {@code {"nanos": PER_EVENT, "matches": COUNT}}. Patterns and events are strings of JSON, so that numbers and repeated
 * keys arrive as they were written.
 */
public final class Oracle {
    private static final ObjectMapper JSON = new ObjectMapper();

    public static void main(String[] arguments) throws IOException {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        PrintStream answers = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            JsonNode question = JSON.readTree(line);
            ObjectNode answer = JSON.createObjectNode();
            Machine machine = machine(question.get("rules"), answer.putObject("refused"));
            if (question.has("events")) {
                time(machine, question, answer);
            } else {
                match(machine, question.get("event").asText(), answer);
            }
            answers.println(JSON.writeValueAsString(answer));
            answers.flush();
        }
    }

    /** The checker is the judge of what is refused: adding a rule falls back on an older grammar without {@code $or}. */
    private static Machine machine(JsonNode rules, ObjectNode refused) {
        Machine machine = new Machine();
        for (Map.Entry<String, JsonNode> rule : rules.properties()) {
            String pattern = rule.getValue().asText();
            String reason = JsonRuleCompiler.check(pattern);
            if (reason == null) {
                try {
                    machine.addRule(rule.getKey(), pattern);
                } catch (Exception | AssertionError e) {
                    reason = String.valueOf(e);
                }
            }
            if (reason != null) {
                refused.put(rule.getKey(), reason);
            }
        }
        return machine;
    }

    private static void match(Machine machine, String event, ObjectNode answer) {
        ArrayNode matches = answer.putArray("matches");
        try {
            machine.rulesForJSONEvent(event).forEach(matches::add);
        } catch (Exception e) {
            answer.put("error", String.valueOf(e));
        }
    }

    /** Runs the rounds twice and times the second run, when the compiler has seen the code. */
    private static void time(Machine machine, JsonNode question, ObjectNode answer) throws IOException {
        List<String> events = new ArrayList<>();
        question.get("events").forEach(event -> events.add(event.asText()));
        int rounds = question.get("rounds").asInt();
        long count = 0;
        long nanos = 0;
        for (int run = 0; run < 2; run++) {
            count = 0;
            long start = System.nanoTime();
            for (int round = 0; round < rounds; round++) {
                for (String event : events) {
                    try {
                        count += machine.rulesForJSONEvent(event).size();
                    } catch (Exception e) {
                        throw new IOException(event, e);
                    }
                }
            }
            nanos = System.nanoTime() - start;
        }
        answer.put("nanos", (double) nanos / rounds / events.size());
        answer.put("matches", count / rounds);
    }
}
