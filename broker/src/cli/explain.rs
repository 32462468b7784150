//! `sluice explain`: which triggers an event matches, and why not the others.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sluice_schemas::Event;

use super::Error;
use super::admin::{self, Client};
use super::documents::{Documents, Unread};
use super::output::{Form, escaped, print, print_json};
use crate::explain::{Asked, Candidate, explain as verdicts, is_entry_point, no_entry_point};
use crate::transform::Pool;

/// Say which triggers match an event, and for each other the first condition that does not hold.
///
/// The triggers are those of the running broker, or of a configuration that need not run.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sluice explain event.json                          against the broker's triggers
  sluice explain event.json --config sluice.yaml     against a file; needs no broker
  sluice explain - --json < events.ndjson            one line of JSON for each event
  sluice explain --offset 1207                       a stored event, against the triggers of now
  sluice explain --offset 1207 --then                against the triggers when it came")]
pub struct Args {
    /// A file of JSON events; `-` is standard input
    #[arg(value_name = "EVENT.json|-", required_unless_present = "offset")]
    file: Option<PathBuf>,
    /// Explain a stored event
    #[arg(long, value_name = "N", conflicts_with_all = ["file", "config", "via"])]
    offset: Option<u64>,
    /// With the triggers that were in force when the event came
    #[arg(long, requires = "offset")]
    then: bool,
    /// Files or directories of a configuration, instead of a running broker
    #[arg(long, value_name = "FILE|DIR")]
    config: Vec<PathBuf>,
    /// The entry point the event would come in by: http, reply, or a source
    #[arg(long, value_name = "NAME", default_value = "http")]
    via: String,
    #[command(flatten)]
    admin: admin::Access,
}

pub async fn explain(args: Args) -> Result<(), Error> {
    let form = args.admin.form();
    if let Some(offset) = args.offset {
        let config = if args.then { "then" } else { "now" };
        let question = json!({ "offset": offset.to_string(), "config": config });
        let answer = Client::new(&args.admin)?.post("explain", &question).await?;
        return show(&answer.document()?, form);
    }
    let answers = Answers::of(&args)?;
    let Some(file) = &args.file else { return Ok(()) };
    let name = if file.as_os_str() == "-" { "standard input".to_owned() } else { file.display().to_string() };
    let input: Box<dyn BufRead> = if file.as_os_str() == "-" {
        Box::new(BufReader::new(std::io::stdin()))
    } else {
        let opened = File::open(file);
        let opened = opened.map_err(|error| Error::failed_because(format!("cannot read {name}"), error))?;
        Box::new(BufReader::new(opened))
    };
    Session { answers, name, via: args.via, form, count: 0, wrong: 0 }.explain(input).await
}

/// Events that are explained one after the other. A wrong one is told and passed over.
struct Session {
    answers: Answers,
    /// What they are read from.
    name: String,
    via: String,
    form: Form,
    count: usize,
    wrong: usize,
}

impl Session {
    async fn explain(mut self, input: Box<dyn BufRead>) -> Result<(), Error> {
        let mut documents = Documents::of(input);
        while let Some(document) = documents.next() {
            match document {
                Ok(document) => self.document(document).await?,
                Err(error @ Unread::Wrong { .. }) => self.pass_over(&error.to_string()),
                Err(Unread::Io(error)) => {
                    return Err(Error::failed_because(format!("cannot read {}", self.name), error));
                }
            }
        }
        match (self.count, self.wrong) {
            (0, _) => Err(Error::failed(format!("{} holds no event", self.name))),
            (_, 0) => Ok(()),
            (count, wrong) => Err(Error::failed(format!("{wrong} of {count} could not be explained"))),
        }
    }

    /// One event, or an array of several.
    async fn document(&mut self, document: Box<RawValue>) -> Result<(), Error> {
        let events: Vec<Box<RawValue>> = match document.get().starts_with('[') {
            true => serde_json::from_str(document.get())
                .map_err(|error| Error::failed_because(format!("{} is no JSON", self.name), error))?,
            false => vec![document],
        };
        for document in events {
            match decode(&document) {
                Ok(event) => {
                    self.count += 1;
                    show(&self.answers.ask(&document, &event, &self.via).await?, self.form)?;
                }
                Err(error) => self.pass_over(&format!("event {}: {error}", self.count + 1)),
            }
        }
        Ok(())
    }

    fn pass_over(&mut self, why: &str) {
        self.count += 1;
        self.wrong += 1;
        eprintln!("sluice: {}, {}", self.name, escaped(why));
    }
}

/// Who knows the triggers.
enum Answers {
    File(Vec<Candidate>, Box<Pool>),
    Broker(Client),
}

impl Answers {
    fn of(args: &Args) -> Result<Self, Error> {
        if args.config.is_empty() {
            return Ok(Self::Broker(Client::new(&args.admin)?));
        }
        let loaded = crate::run::load(&args.config)?;
        if !is_entry_point(&args.via, |name| loaded.config.sources.contains_key(name)) {
            return Err(Error::failed(no_entry_point(&args.via)));
        }
        let triggers = loaded.config.triggers.iter();
        let candidates = triggers.map(|(name, trigger)| Candidate::of_config(name, trigger));
        Ok(Self::File(candidates.collect(), Box::default()))
    }

    async fn ask(&mut self, document: &RawValue, event: &Event, via: &str) -> Result<Value, Error> {
        match self {
            Self::Broker(client) => {
                let question = json!({ "event": document, "via": via });
                client.post("explain", &question).await?.document()
            }
            Self::File(candidates, pool) => {
                let asked = Asked { event, via, offset: None };
                let triggers = verdicts(pool, &asked, candidates).await;
                let about = json!({ "source": event.source(), "id": event.id(), "type": event.ty() });
                Ok(json!({ "event": about, "triggers": triggers }))
            }
        }
    }
}

fn decode(event: &RawValue) -> Result<Event, String> {
    let bytes = Bytes::copy_from_slice(event.get().as_bytes());
    sluice_schemas::json::decode(&bytes).map_err(|error| error.to_string())
}

fn show(answer: &Value, form: Form) -> Result<(), Error> {
    match form {
        Form::Json => {
            let line = json!({
                "event": { "source": answer["event"]["source"], "id": answer["event"]["id"] },
                "triggers": answer["triggers"],
            });
            print_json(&line.to_string())
        }
        Form::Text => print(&described(answer)),
    }
}

/// The verdicts under one another, what failed below each.
fn described(answer: &Value) -> String {
    let text = |value: &Value| escaped(value.as_str().unwrap_or_default());
    let event = &answer["event"];
    let mut lines = format!(
        "event {} from {}, type {}\n",
        text(&event["id"]),
        text(&event["source"]),
        text(&event["type"])
    );
    let triggers = answer["triggers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let width = triggers.iter().map(|verdict| text(&verdict["trigger"]).len()).max().unwrap_or(0);
    for verdict in triggers {
        let name = text(&verdict["trigger"]);
        if verdict["matched"] == true {
            let paused = &verdict["paused"];
            let but =
                if paused.is_null() { String::new() } else { format!(", but is paused: {}", text(paused)) };
            lines.push_str(&format!("  {name:width$}  matches{but}\n"));
            if let Some(why) = verdict["untransformed"].as_str() {
                lines.push_str(&format!("  {:width$}  cannot be transformed: {}\n", "", escaped(why)));
            }
            if !verdict["transformed"].is_null() {
                let event = verdict["transformed"].to_string();
                lines.push_str(&format!("  {:width$}  its sink gets {}\n", "", escaped(&event)));
            }
            continue;
        }
        let failed = &verdict["failed"];
        lines.push_str(&format!("  {name:width$}  does not match: {}\n", text(&failed["message"])));
        let place = failed["at"].as_str().map(|at| format!(" at {}", escaped(at))).unwrap_or_default();
        lines.push_str(&format!("  {:width$}  {}{place}\n", "", text(&failed["filter"])));
    }
    if triggers.is_empty() {
        lines.push_str("  there are no triggers\n");
    }
    lines
}
