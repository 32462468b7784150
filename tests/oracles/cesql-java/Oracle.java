import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.cloudevents.CloudEvent;
import io.cloudevents.core.builder.CloudEventBuilder;
import io.cloudevents.core.v1.CloudEventV1;
import io.cloudevents.sql.EvaluationException;
import io.cloudevents.sql.ParseException;
import io.cloudevents.sql.Parser;
import io.cloudevents.sql.Result;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.Map;

/**
 * Answers for the CloudEvents Java SDK, one line of JSON for each line of JSON it reads.
 *
 * <p>{@code {"expression": TEXT, "event": EVENT}} is answered with {@code {"value": VALUE, "error": KIND}}; the kind is one of the
 * conformance tests' names, {@code "exception"}, or null.
 */
public final class Oracle {
    private static final ObjectMapper JSON = new ObjectMapper();

    public static void main(String[] arguments) throws IOException {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        PrintStream answers = new PrintStream(System.out, false, StandardCharsets.UTF_8);
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            JsonNode question = JSON.readTree(line);
            ObjectNode answer = JSON.createObjectNode().putNull("value").putNull("error");
            evaluate(question.get("expression").asText(), event(question.get("event")), answer);
            answers.println(JSON.writeValueAsString(answer));
        }
        answers.flush();
    }

    private static void evaluate(String expression, CloudEvent event, ObjectNode answer) {
        try {
            Result result = Parser.parseDefault(expression).evaluate(event);
            answer.putPOJO("value", result.value());
            if (result.isFailed()) {
                answer.put("error", name(result.causes().iterator().next().getKind()));
            }
        } catch (ParseException refused) {
            answer.put("error", "parse");
        } catch (EvaluationException failed) {
            answer.put("error", name(failed.getKind()));
        } catch (RuntimeException | StackOverflowError failed) {
            answer.put("error", "exception");
        }
    }

    private static String name(EvaluationException.ErrorKind kind) {
        return switch (kind) {
            case CAST -> "cast";
            case MISSING_ATTRIBUTE -> "missingAttribute";
            case MISSING_FUNCTION -> "missingFunction";
            case FUNCTION_EVALUATION -> "functionEvaluation";
            case MATH -> "math";
            case GENERIC -> "generic";
        };
    }

    private static CloudEvent event(JsonNode event) {
        CloudEventBuilder builder = CloudEventBuilder.v1();
        for (Map.Entry<String, JsonNode> attribute : event.properties()) {
            String name = attribute.getKey();
            JsonNode value = attribute.getValue();
            switch (name) {
                case CloudEventV1.SPECVERSION -> { }
                case CloudEventV1.ID -> builder.withId(value.asText());
                case CloudEventV1.SOURCE -> builder.withSource(URI.create(value.asText()));
                case CloudEventV1.TYPE -> builder.withType(value.asText());
                case CloudEventV1.SUBJECT -> builder.withSubject(value.asText());
                default -> {
                    if (value.isBoolean()) {
                        builder.withExtension(name, value.asBoolean());
                    } else if (value.isInt()) {
                        builder.withExtension(name, value.asInt());
                    } else {
                        builder.withExtension(name, value.asText());
                    }
                }
            }
        }
        return builder.build();
    }
}
