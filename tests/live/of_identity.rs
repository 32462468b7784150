//! Who a source is: client certificates, and credentials of NATS.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};

use crate::rig::{DEADLINE, Stored, run};
use crate::services::Services;
use crate::stories::{Story, tell};
use crate::systems::System;

/// A key with a certificate by nobody.
fn stranger(dir: &Path) -> (PathBuf, PathBuf) {
    let (cert, key) = (dir.join("stranger.pem"), dir.join("stranger.key"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    openssl.args(["-days", "2", "-subj", "/CN=stranger", "-keyout"]).arg(&key).arg("-out").arg(&cert);
    assert!(openssl.stderr(Stdio::null()).status().unwrap().success());
    (cert, key)
}

/// The certificate that all servers know: it is one for clients, too.
fn known(services: &Services) -> (PathBuf, PathBuf) {
    let dir = Path::new(services.at("SLUICE_SERVICES"));
    (dir.join("server.pem"), dir.join("server.pkcs8"))
}

fn tls(services: &Services, identity: Option<&(PathBuf, PathBuf)>) -> String {
    let identity = identity
        .map_or(String::new(), |(cert, key)| format!(", cert: {}, key: {}", cert.display(), key.display()));
    format!("tls: {{ ca: {}{identity} }}", services.at("SLUICE_SERVICES_CA"))
}

/// With an identity that is known events flow; with another, or with none where one is needed, the source is down.
async fn check_identities(story: &Story, needs_one: bool, yaml: impl Fn(&str) -> String) {
    let dir = tempfile::tempdir().unwrap();
    let stranger = stranger(dir.path());
    let refused = [Some(&stranger), None];
    for identity in &refused[..if needs_one { 2 } else { 1 }] {
        story.store.lock().down.clear();
        let running = run(&story.store, &yaml(&tls(story.services, *identity)));
        story.store.until("it is down", |stored| !stored.down.is_empty()).await;
        running.stop().await;
        let down = story.store.lock().down[0].to_lowercase();
        let words = ["certificate", "tls", "ssl", "handshake", "closed", "disconnect", "reset", "eof"];
        assert!(words.iter().any(|word| down.contains(word)), "{down}");
    }
    assert!(!story.store.lock().is_up());
    let _running = run(&story.store, &yaml(&tls(story.services, Some(&known(story.services)))));
    story.store.until("it is up", Stored::is_up).await;
    story.send_numbered(0..3);
    story.until_all(3).await;
}

#[test]
fn kafka_knows_clients_by_their_certificates() {
    tell(System::Kafka, "kafka_knows_clients_by_their_certificates", async |story| {
        story.create().await;
        let (address, place) = (story.services.at("SLUICE_KAFKA_MUTUAL").to_owned(), story.place.clone());
        let yaml = |tls: &str| {
            format!("kafka: {{ brokers: [\"{address}\"], topics: [{place}], group: g-{place}, {tls} }}")
        };
        check_identities(&story, true, yaml).await;
    });
}

#[test]
fn amqp_shows_its_certificate() {
    tell(System::Amqp, "amqp_shows_its_certificate", async |story| {
        story.create().await;
        let address = story.services.at("SLUICE_AMQP_TLS").replace("127.0.0.1", "localhost");
        let place = story.place.clone();
        let yaml = |tls: &str| {
            format!("amqp: {{ url: \"amqps://sluice:open-sesame@{address}/%2f\", queue: {place}, {tls} }}")
        };
        check_identities(&story, false, yaml).await;
    });
}

/// A NATS server of a test's own.
struct Server {
    address: String,
    child: Child,
    _dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Server {
    async fn start(services: &Services, config: &str) -> Self {
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config");
        std::fs::write(&file, format!("listen: \"{address}\"\n{config}")).unwrap();
        let mut command = Command::new(format!("{}/nats-server", services.at("SLUICE_PYTHON")));
        let child = command.arg("-c").arg(&file).stderr(Stdio::null()).spawn().expect("starts");
        let since = Instant::now();
        while std::net::TcpStream::connect(&address).is_err() {
            assert!(since.elapsed() < DEADLINE, "the server does not listen");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Self { address: address.replace("127.0.0.1", "localhost"), child, _dir: dir }
    }

    fn yaml(&self, more: &str) -> String {
        let address = &self.address;
        format!("nats: {{ servers: [\"nats://{address}\"], subjects: [\"a.>\"], allow_lossy: true, {more} }}")
    }
}

/// Down for each of these, and an event flows with the last.
async fn check_nats(
    story: &Story,
    server: &Server,
    refused: &[String],
    taken: &str,
    options: async_nats::ConnectOptions,
) {
    for more in refused {
        story.store.lock().down.clear();
        let running = run(&story.store, &server.yaml(more));
        story.store.until("it is down", |stored| !stored.down.is_empty()).await;
        running.stop().await;
        let down = story.store.lock().down[0].clone();
        assert!(down.contains(&server.address), "{down}");
    }
    assert!(!story.store.lock().is_up());
    let _running = run(&story.store, &server.yaml(taken));
    story.store.until("it is up", Stored::is_up).await;
    let sender = options.connect(&server.address).await.unwrap();
    sender.publish("a.b", "hi".into()).await.unwrap();
    sender.flush().await.unwrap();
    story.store.until("an event", |stored| stored.events.len() == 1).await;
}

#[test]
fn nats_knows_clients_by_their_certificates() {
    tell(System::Nats, "nats_knows_clients_by_their_certificates", async |story| {
        let (services, dir) = (story.services, tempfile::tempdir().unwrap());
        let (cert, key) = known(services);
        let ca = services.at("SLUICE_SERVICES_CA");
        let (cert_shown, key_shown) = (cert.display(), key.display());
        let files = format!("cert_file: \"{cert_shown}\", key_file: \"{key_shown}\", ca_file: \"{ca}\"");
        let server = Server::start(services, &format!("tls {{ {files}, verify: true }}\n")).await;
        let refused = [tls(services, Some(&stranger(dir.path()))), tls(services, None)];
        let identity = (cert.clone(), key.clone());
        let options = async_nats::ConnectOptions::new().require_tls(true);
        let options = options.add_root_certificates(ca.into()).add_client_certificate(cert, key);
        check_nats(&story, &server, &refused, &tls(services, Some(&identity)), options).await;
    });
}

/// A JSON web token as NATS signs them.
fn token(issuer: &KeyPair, subject: &KeyPair, claims: &Value) -> String {
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let head = part(&json!({ "typ": "JWT", "alg": "ed25519-nkey" }));
    let (iss, sub) = (issuer.public_key(), subject.public_key());
    let body = part(
        &json!({ "jti": sub, "iat": 1_700_000_000, "iss": iss, "name": "test", "sub": sub, "nats": claims }),
    );
    let signed = format!("{head}.{body}");
    let signature = issuer.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

fn credentials(dir: &Path, name: &str, account: &KeyPair) -> PathBuf {
    let user = KeyPair::new_user();
    let claims =
        json!({ "type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1 });
    let text = format!(
        "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        token(account, &user, &claims),
        user.seed().unwrap()
    );
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn nats_takes_credentials_of_a_file() {
    tell(System::Nats, "nats_takes_credentials_of_a_file", async |story| {
        let dir = tempfile::tempdir().unwrap();
        let (operator, account) = (KeyPair::new_operator(), KeyPair::new_account());
        let limits = json!({ "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1 });
        let of_account =
            token(&operator, &account, &json!({ "type": "account", "version": 2, "limits": limits }));
        let of_operator = token(&operator, &operator, &json!({ "type": "operator", "version": 2 }));
        let id = account.public_key();
        let config = format!(
            "operator: \"{of_operator}\"\nresolver: MEMORY\nresolver_preload: {{ {id}: \"{of_account}\" }}\n"
        );
        let server = Server::start(story.services, &config).await;
        let right = credentials(dir.path(), "right.creds", &account);
        let wrong = credentials(dir.path(), "wrong.creds", &KeyPair::new_account());
        let named = |path: &Path| format!("credentials: {}", path.display());
        let options = async_nats::ConnectOptions::with_credentials_file(&right).await.unwrap();
        check_nats(&story, &server, &[named(&wrong), String::new()], &named(&right), options).await;
    });
}
