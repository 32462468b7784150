//! Short programs for the clients in Python, for what `produce.py` does not do.

use std::process::Command;

use crate::services::Services;

const AMQP: &str = "\
import pika, sys
connection = pika.BlockingConnection(pika.URLParameters(sys.argv[1]))
channel = connection.channel()
";
const NATS: &str = "\
import asyncio, nats, sys
from nats.js.api import *
async def main():
    connection = await nats.connect(sys.argv[1])
    stream = connection.jetstream()
";

fn run(services: &Services, script: &str, words: &[&str]) -> String {
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", services.at("SLUICE_PYTHON")).arg("-c").arg(script).args(words);
    let output = python.output().expect("starts");
    assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

/// Runs lines with a `channel`; the words are `sys.argv[2]` and so on. Returns what was printed.
pub fn amqp(services: &Services, lines: &str, words: &[&str]) -> String {
    let url = format!("amqp://sluice:open-sesame@{}/%2f", services.at("SLUICE_AMQP"));
    run(services, &format!("{AMQP}{lines}\nconnection.close()\n"), &[&[&*url], words].concat())
}

/// Runs lines with a `connection` and its JetStream, `stream`.
pub fn nats(services: &Services, lines: &str, words: &[&str]) -> String {
    let body: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    let script = format!("{NATS}{body}    await connection.drain()\nasyncio.run(main())\n");
    run(services, &script, &[&[&*format!("nats://{}", services.at("SLUICE_NATS"))], words].concat())
}
