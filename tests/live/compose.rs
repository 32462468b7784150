//! `tests/compose.yaml` says what `tests/services` does. It is never started here, for that takes Docker.

fn file(name: &str) -> String {
    let path = format!("{}/../tests/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

/// The rest of the line that begins so.
fn value<'a>(text: &'a str, start: &str) -> &'a str {
    let found = text.lines().find_map(|line| line.trim_start().strip_prefix(start));
    found.unwrap_or_else(|| panic!("no line begins with `{start}`")).trim()
}

#[test]
fn it_has_the_servers_of_the_tests() {
    let (services, compose) = (file("services"), file("compose.yaml"));
    let kafka = format!("apache/kafka:{}", value(&services, "kafka_version="));
    assert_eq!(value(&compose, "image: "), kafka);
    for (name, set) in compose.lines().filter_map(|line| line.trim().split_once(": ")) {
        let Some(name) = name.strip_prefix("KAFKA_") else { continue };
        // Addresses differ: these ports are fixed, those are free ones.
        if !name.contains("LISTENERS") && !name.contains("PROTOCOL_MAP") && !name.contains("VOTERS") {
            let property = format!("{}=", name.to_lowercase().replace('_', "."));
            assert_eq!(set, value(&services, &property), "{name}");
        }
    }
    let login = ["user", "pass"].map(|name| value(&services, &format!("default_{name} = ")));
    let login = format!("{{ RABBITMQ_DEFAULT_USER: {}, RABBITMQ_DEFAULT_PASS: {} }}", login[0], login[1]);
    assert!(compose.contains(&login), "{login}");
    let ports = compose.matches("ports: [\"").count();
    assert_eq!((ports, compose.matches("ports: [\"127.0.0.1:").count()), (3, 3), "none is for others");
}
