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
import java.util.Set;
import java.util.TreeSet;
import software.amazon.event.ruler.JsonRuleCompiler;
import software.amazon.event.ruler.Machine;
import software.amazon.event.ruler.Patterns;

/**
 * Answers for event-ruler, one line of JSON for each line of JSON it reads.
 *
 * <p>{@code {"rules": {NAME: PATTERN}, "event": EVENT}} is answered with {@code {"matches": [NAME], "branches": [NAME], "refused": {NAME:
 * REASON}}}. {@code branches} has the rules of which a combination of {@code $or} choices matches as a rule of its own, because a
 * machine drops combinations of a rule that it takes for earlier ones. A line that has {@code "events": [EVENT]} and {@code "rounds": N} instead of an event is answered with the time that matching
 * took: {@code {"nanos": PER_EVENT, "matches": COUNT}}. Patterns and events are strings of JSON, so that numbers and repeated
 * keys arrive as they were written.
 */
public final class Oracle {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final long WARM_NANOS = 2_000_000_000L;

    public static void main(String[] arguments) throws IOException {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        PrintStream answers = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            JsonNode question = JSON.readTree(line);
            ObjectNode answer = JSON.createObjectNode();
            Machine machine = new Machine();
            List<Machine> branches = new ArrayList<>();
            add(question.get("rules"), machine, branches, answer.putObject("refused"));
            if (question.has("events")) {
                time(machine, question, answer);
            } else {
                String event = question.get("event").asText();
                match(List.of(machine), event, answer.putArray("matches"));
                match(branches, event, answer.putArray("branches"));
            }
            answers.println(JSON.writeValueAsString(answer));
            answers.flush();
        }
    }

    /** The checker is the judge of what is refused: adding a rule falls back on an older grammar without {@code $or}. */
    private static void add(JsonNode rules, Machine machine, List<Machine> branches, ObjectNode refused) {
        for (Map.Entry<String, JsonNode> rule : rules.properties()) {
            String name = rule.getKey();
            String pattern = rule.getValue().asText();
            String reason = JsonRuleCompiler.check(pattern);
            if (reason == null) {
                try {
                    machine.addRule(name, pattern);
                    for (Map<String, List<Patterns>> branch : JsonRuleCompiler.compile(pattern)) {
                        Machine alone = new Machine();
                        alone.addPatternRule(name, branch);
                        branches.add(alone);
                    }
                } catch (Exception | AssertionError e) {
                    reason = String.valueOf(e);
                }
            }
            if (reason != null) {
                refused.put(name, reason);
            }
        }
    }

    /** What is no object is refused by the machine and matches nothing. */
    private static void match(List<Machine> machines, String event, ArrayNode matches) {
        Set<String> names = new TreeSet<>();
        for (Machine machine : machines) {
            try {
                names.addAll(machine.rulesForJSONEvent(event));
            } catch (Exception e) {
                continue;
            }
        }
        names.forEach(matches::add);
    }

    /** Matches for a while before it takes the time, so that the compiler has seen the code. */
    private static void time(Machine machine, JsonNode question, ObjectNode answer) throws IOException {
        List<String> events = new ArrayList<>();
        question.get("events").forEach(event -> events.add(event.asText()));
        int rounds = question.get("rounds").asInt();
        long warm = System.nanoTime() + WARM_NANOS;
        long count = 0;
        while (System.nanoTime() < warm) {
            count = matches(machine, events);
        }
        long start = System.nanoTime();
        for (int round = 0; round < rounds; round++) {
            count = matches(machine, events);
        }
        answer.put("nanos", (double) (System.nanoTime() - start) / rounds / events.size());
        answer.put("matches", count);
    }

    private static long matches(Machine machine, List<String> events) throws IOException {
        long count = 0;
        for (String event : events) {
            try {
                count += machine.rulesForJSONEvent(event).size();
            } catch (Exception e) {
                throw new IOException(event, e);
            }
        }
        return count;
    }
}
