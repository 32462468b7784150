//! What the documents show is true: the samples of the README, and the description of the API.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::broker::{Broker, Running, keep, run, sluice};
use crate::eventually;
use crate::sink::{Sink, status};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The fenced blocks of the README in one language.
pub fn blocks(language: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join("README.md")).unwrap();
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// A section of the README by its heading.
pub fn section(heading: &str) -> String {
    let text = std::fs::read_to_string(root().join("README.md")).unwrap();
    let (_, rest) = text.split_once(&format!("\n{heading}\n")).unwrap();
    rest.split("\n## ").next().unwrap().to_owned()
}

/// Whether a text has these runs of words in this order, with anything before, after, and where `...` stands.
pub fn shows(text: &str, sample: &str) -> bool {
    let words: Vec<&str> = text.split_whitespace().collect();
    let sample: Vec<&str> = sample.split_whitespace().collect();
    let mut rest = &words[..];
    sample.split(|word| *word == "...").filter(|run| !run.is_empty()).all(|run| {
        let found = rest.windows(run.len()).position(|window| window == run);
        rest = found.map_or(&[], |at| &rest[at + run.len()..]);
        found.is_some()
    })
}

#[test]
fn a_sample_is_shown_word_by_word_with_gaps() {
    assert!(shows("x a b 17:03 a c", "a b ... a c"));
    assert!(!shows("a x b", "a b"));
}

#[test]
fn the_configurations_of_the_readme_are_right() {
    let samples = blocks("yaml");
    assert!(samples.len() >= 3, "{samples:?}");
    for yaml in samples {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("sample.yaml"), &yaml).unwrap();
        // What they name must be there.
        for name in ["ca.pem", "nats.creds"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let mut command = sluice();
        command.args(["check", "sample.yaml"]).current_dir(dir.path()).env("ORDERS_TOKEN", "secret");
        for name in [
            "AMQP_PASSWORD",
            "STRIPE_SECRET",
            "STRIPE_OLD_SECRET",
            "BILLING_SECRET",
            "BUILDS_TOKEN",
            "GITHUB_SECRET",
            "FORGE_SECRET",
        ] {
            command.env(name, "secret");
        }
        let told = run(command);
        assert_eq!(told.code, 0, "{told:?}\n{yaml}");
    }
}

#[test]
fn the_reference_of_the_readme_has_every_key_of_the_format() {
    fn keys(schema: &Value, found: &mut BTreeSet<String>) {
        match schema {
            Value::Object(members) => {
                // Kafka has a key called `properties`, which is no mapping with fixed keys.
                if let (Some(Value::Object(properties)), true) =
                    (members.get("properties"), members.contains_key("additionalProperties"))
                {
                    found.extend(properties.keys().cloned());
                }
                members.values().for_each(|value| keys(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| keys(value, found)),
            _ => {}
        }
    }
    let schema: Value =
        serde_json::from_slice(&std::fs::read(root().join("schemas/sluice.schema.json")).unwrap()).unwrap();
    let mut all = BTreeSet::new();
    keys(&schema, &mut all);
    let text = std::fs::read_to_string(root().join("README.md")).unwrap();
    let missing: Vec<_> = all.iter().filter(|key| !text.contains(&format!("{key}:"))).collect();
    assert_eq!(missing, Vec::<&String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_command_and_its_curl_print_the_event() {
    let quickstart = std::fs::read_to_string(root().join("config/examples/quickstart.yaml")).unwrap();
    let triggers = quickstart.split_once("\ntriggers:").unwrap().1;
    let broker = Broker::start(&format!("triggers:{triggers}")).await;
    let shell = blocks("sh");
    assert!(
        shell[0].contains("cargo run --release --locked -p sluice -- run config/examples/quickstart.yaml")
    );
    let curl = shell[1].replace("127.0.0.1:8080", &broker.public.to_string());
    let mut command = Command::new("sh");
    command.args(["-c", &curl]);
    let told = run(command);
    assert!(
        told.code == 0 && told.out.contains("202 Accepted") && told.out.contains("sluice-offset: 0"),
        "{told:?}"
    );
    let shown: Value = serde_json::from_str(&blocks("json")[0]).unwrap();
    let printed =
        eventually("the event", || async { serde_json::from_str::<Value>(&broker.printed()).ok() }).await;
    assert_eq!(printed, shown);
}

/// The tour runs as it is written, on ports of its own. A sample of output is compared until it is there.
#[tokio::test(flavor = "multi_thread")]
async fn the_tour_goes_as_it_says() {
    let mut sink = None;
    let mut sink_address = String::new();
    let mut broker: Option<Broker> = None;
    let tour = blocks("yaml").remove(0);
    let scratch = tempfile::tempdir().unwrap();
    std::fs::write(scratch.path().join("tour.yaml"), &tour).unwrap();
    let steps: Vec<String> = blocks("console")
        .iter()
        .flat_map(|block| block.split("$ ").skip(1).map(str::to_owned).collect::<Vec<_>>())
        .collect();
    assert!(steps.len() > 10, "{steps:?}");
    for step in steps {
        let (command, sample) = step.split_once('\n').unwrap();
        let words = command.replace("sluice ", &format!("{} ", env!("CARGO_BIN_EXE_sluice")));
        if command.starts_with("sluice sink") {
            let words = words.replace("127.0.0.1:9000", "127.0.0.1:0").replace(" &", "");
            let mut child = Command::new("sh");
            child.args(["-c", &format!("exec {words}")]).stdout(Stdio::piped()).stderr(Stdio::null());
            let mut child = Running(child.spawn().unwrap());
            let printed = keep(child.0.stdout.take().unwrap());
            sink_address = eventually("the sink's address", || async {
                let text = printed.lock().unwrap().clone();
                Some(text.split_once("http://")?.1.split_once(',')?.0.to_owned())
            })
            .await;
            sink = Some(child);
            continue;
        }
        if command == "sluice run tour.yaml &" {
            let triggers = tour.split_once("\ntriggers:").unwrap().1.replace("127.0.0.1:9000", &sink_address);
            broker = Some(Broker::start(&format!("triggers:{triggers}")).await);
            continue;
        }
        let sample = sample.replace("127.0.0.1:9000", &sink_address);
        let once = command.contains("publish") || command.contains("redrive") || command.contains("reload");
        let mut last = String::new();
        let words = words.replace("tour.yaml", if broker.is_some() { "sluice.yaml" } else { "tour.yaml" });
        let started = std::time::Instant::now();
        loop {
            let mut shell = Command::new("sh");
            shell.args(["-c", &words]).current_dir(scratch.path());
            if let Some(broker) = &broker {
                shell
                    .current_dir(broker.path())
                    .env("SLUICE_ADMIN", format!("http://{}", broker.operators))
                    .env("SLUICE_URL", format!("http://{}/events", broker.public));
            }
            let told = run(shell);
            assert!(told.code == 0 || last.is_empty(), "{command}: {told:?}");
            if shows(&told.out, &sample) {
                break;
            }
            assert!(
                !once && started.elapsed() < crate::PATIENCE,
                "{command} does not show\n{sample}\nbut\n{}",
                told.out
            );
            last = told.out;
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
    drop(sink);
}

/// Follows `$ref`.
fn resolved<'a>(api: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(path) => {
            api.pointer(path.trim_start_matches('#')).unwrap_or_else(|| panic!("{path} is not there"))
        }
        None => schema,
    }
}

/// Says where an answer has other members than its schema.
fn compare(api: &Value, schema: &Value, found: &Value, at: &str, faults: &mut Vec<String>) {
    if let Some(choices) = schema["anyOf"].as_array() {
        let faults_of = |choice| {
            let mut faults = Vec::new();
            compare(api, choice, found, at, &mut faults);
            faults
        };
        // None of them fits if each has faults, and then the first is what was meant.
        let fitting = choices.iter().map(faults_of).find(Vec::is_empty);
        faults.extend(fitting.unwrap_or_else(|| faults_of(&choices[0])));
        return;
    }
    // One of something and null.
    let schema = match schema["oneOf"].as_array() {
        Some(choices) => &choices[usize::from(found.is_null())],
        None => schema,
    };
    let schema = resolved(api, schema);
    if let (Some(properties), Some(members)) = (schema["properties"].as_object(), found.as_object()) {
        for (name, value) in members {
            match properties.get(name) {
                Some(schema) => compare(api, schema, value, &format!("{at}.{name}"), faults),
                None if schema["additionalProperties"] == true => {}
                None => faults.push(format!("{at}.{name} is not documented")),
            }
        }
        for name in schema["required"].as_array().into_iter().flatten() {
            if !members.contains_key(name.as_str().unwrap()) {
                faults.push(format!("{at}.{name} is missing"));
            }
        }
    }
    if let Some(types) = schema.get("type") {
        let kind = match found {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_u64() || number.is_i64() => "integer",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let fits = types == kind || types.as_array().is_some_and(|types| types.contains(&json!(kind)));
        if !fits {
            faults.push(format!("{at} is {kind}, documented as {types}"));
        }
    }
    for (index, item) in found.as_array().into_iter().flatten().enumerate() {
        if schema.get("items").is_some() {
            compare(api, &schema["items"], item, &format!("{at}[{index}]"), faults);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_answers_as_its_description_says() {
    let (bad, slow) = (Sink::answering(|_, _| status(422)).await, Sink::answering(|_, _| status(503)).await);
    let triggers = format!(
        "sources: {{ tick: {{ cron: {{ schedule: '@yearly' }} }} }}\ntriggers:\n  bad: {{ sink: \"{}\" }}\n  slow: {{ sink: \"{}\", delivery: {{ backoff_delay: 1h, backoff_max: 1h }} }}\n",
        bad.url, slow.url
    );
    let broker = Broker::start(&triggers).await;
    broker.publish_ids(&["1", "2"]).await;
    let dead = broker.dead_letters(2).await[0]["id"].as_str().unwrap().to_owned();
    broker.trigger_when("slow", |trigger| trigger["retrying"] == 2).await;
    broker.get_when(&format!("dead-letters/{dead}"), |shown| shown["attempts"][0].is_object()).await;

    let api = broker.get("openapi.json").await;
    let mut faults = Vec::new();
    let mut asked = BTreeSet::new();
    let one = json!({ "ids": [dead], "dry_run": true });
    for (method, path, real, body) in [
        ("get", "/status", "status", json!({})),
        ("get", "/config", "config", json!({})),
        ("post", "/config/reload", "config/reload", json!({})),
        ("get", "/triggers", "triggers", json!({})),
        ("get", "/triggers/{name}", "triggers/slow", json!({})),
        ("get", "/triggers/{name}/pending", "triggers/slow/pending", json!({})),
        ("post", "/triggers/{name}/pause", "triggers/slow/pause", json!({})),
        ("post", "/triggers/{name}/resume", "triggers/slow/resume", json!({})),
        ("post", "/triggers/{name}/retry", "triggers/slow/retry", json!({})),
        ("get", "/sources", "sources", json!({})),
        ("get", "/sources/{name}", "sources/tick", json!({})),
        ("post", "/sources/{name}/pause", "sources/tick/pause", json!({})),
        ("post", "/sources/{name}/resume", "sources/tick/resume", json!({})),
        ("get", "/events", "events", json!({})),
        ("get", "/events/by-id", "events/by-id?source=%2Ftest&id=1", json!({})),
        ("get", "/events/{offset}", "events/0", json!({})),
        ("get", "/events/{offset}", "events/0?raw", json!({})),
        ("get", "/dead-letters", "dead-letters", json!({})),
        ("get", "/dead-letters/{id}", &*format!("dead-letters/{dead}"), json!({})),
        ("post", "/dead-letters/redrive", "dead-letters/redrive", one.clone()),
        ("post", "/dead-letters/redrive", "dead-letters/redrive", json!({ "type": "none" })),
        ("post", "/dead-letters/purge", "dead-letters/purge", one),
        ("get", "/unmatched", "unmatched", json!({})),
        ("post", "/explain", "explain", json!({ "offset": "0" })),
        ("get", "/openapi.json", "openapi.json", json!({})),
        ("post", "/triggers/{name}/discard", "triggers/slow/discard", json!({})),
    ] {
        let answer = match method {
            "post" => broker.do_call(real, &body).await,
            _ => broker.get(real).await,
        };
        let described = &api["paths"][format!("/api/v1{path}")][method];
        let schema = &described["responses"]["200"]["content"]["application/json"]["schema"];
        assert!(schema.is_object(), "{method} {path} is not described");
        compare(&api, schema, &answer, &format!("{method} {path}"), &mut faults);
        asked.insert(format!("{method} /api/v1{path}"));
    }
    let ready = broker.ask("/readyz").await.json();
    let schema = &api["paths"]["/readyz"]["get"]["responses"]["200"]["content"]["application/json"]["schema"];
    compare(&api, schema, &ready, "readyz", &mut faults);
    let problem = broker.ask("/api/v1/triggers/nothing").await.json();
    compare(&api, &json!({ "$ref": "#/components/schemas/Problem" }), &problem, "problem", &mut faults);
    assert!(faults.is_empty(), "{faults:#?}");

    asked.extend(["get /healthz", "get /readyz", "get /metrics"].map(str::to_owned));
    assert_eq!(described_routes(&api), asked, "the routes that are described, and those that are asked here");
}

fn described_routes(api: &Value) -> BTreeSet<String> {
    api["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            item.as_object().unwrap().keys().map(move |method| format!("{method} {path}"))
        })
        .filter(|route| !route.starts_with("parameters"))
        .collect()
}

#[test]
fn the_description_has_the_routes_of_the_router() {
    let source = std::fs::read_to_string(root().join("broker/src/admin/mod.rs")).unwrap();
    let api: Value =
        serde_json::from_slice(&std::fs::read(root().join("broker/src/admin/openapi.json")).unwrap())
            .unwrap();
    let routes: BTreeSet<String> = source
        .lines()
        .filter_map(|line| line.trim().strip_prefix(".route(\"")?.split_once("\", "))
        .map(|(path, handler)| {
            let prefix = if ["/healthz", "/readyz", "/metrics"].contains(&path) { "" } else { "/api/v1" };
            format!("{} {prefix}{path}", handler.split('(').next().unwrap())
        })
        .collect();
    let described: BTreeSet<String> = api["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            item.as_object().unwrap().keys().map(move |method| format!("{method} {path}"))
        })
        .collect();
    assert_eq!(described, routes);
}
