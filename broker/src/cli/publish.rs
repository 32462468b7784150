//! `sluice publish`: events from a file, from standard input or from flags.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::path::PathBuf;

use bytes::Bytes;
use http::Request;
use http::header::CONTENT_TYPE;
use http_body_util::Full;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::Error;
use super::admin::Problem;
use super::connection::{Connection, Endpoint};
use super::output::{escaped_lines, print_line};

pub const DEFAULT_URL: &str = "http://127.0.0.1:8080/events";
const STRUCTURED: &str = "application/cloudevents+json; charset=utf-8";
const BATCH: &str = "application/cloudevents-batch+json; charset=utf-8";
/// What the media types of events in JSON, and of batches of them, begin with.
const MEDIA_TYPES: &str = "application/cloudevents";
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
/// From so many requests on, and then every so many, a terminal is told how far it is.
const PROGRESS_EVERY: usize = 1000;

/// Publish events and print their offsets.
///
/// A file holds one JSON event, an array of them (stored together or not at all), or one JSON event after the other
/// (published one by one, in order).
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sluice publish event.json
  sluice publish - < events.ndjson
  sluice publish --type com.example.order --source /shop --data '{\"amount\": 120}'
  sluice publish --type com.example.photo --source /camera --data @photo.jpg --content-type image/jpeg")]
pub struct Args {
    /// A file of events; `-` is standard input
    #[arg(value_name = "FILE|-", required_unless_present = "ty",
          conflicts_with_all = ["ty", "source", "id", "subject", "data", "content_type", "ext"])]
    file: Option<PathBuf>,
    /// The type of the event
    #[arg(long = "type", id = "ty", value_name = "TYPE", requires = "source")]
    ty: Option<String>,
    /// The source of the event, a URI reference
    #[arg(long, requires = "ty")]
    source: Option<String>,
    /// The id of the event; a new UUID when there is none
    #[arg(long, requires = "ty")]
    id: Option<String>,
    /// The subject of the event
    #[arg(long, requires = "ty")]
    subject: Option<String>,
    /// The data: the text itself, or the content of a file; `@-` is standard input
    #[arg(long, value_name = "TEXT|@FILE", requires = "ty", allow_hyphen_values = true)]
    data: Option<String>,
    /// The media type of the data; application/json when the data is JSON
    #[arg(long, value_name = "TYPE", requires = "ty", value_parser = content_type)]
    content_type: Option<String>,
    /// An extension attribute; may be given several times
    #[arg(long, value_name = "NAME=VALUE", requires = "ty", value_parser = extension)]
    ext: Vec<(String, String)>,
    /// Where the broker takes events
    #[arg(long, env = "SLUICE_URL", default_value = DEFAULT_URL)]
    url: String,
}

pub async fn publish(args: Args) -> Result<(), Error> {
    let mut publisher = Publisher::new(&args.url)?;
    match &args.file {
        Some(file) if file.as_os_str() == "-" => {
            publish_all(&mut publisher, std::io::stdin(), "standard input").await
        }
        Some(file) => {
            let name = file.display().to_string();
            let opened = File::open(file)
                .map_err(|error| Error::failed_because(format!("cannot read {name}"), error))?;
            publish_all(&mut publisher, opened, &name).await
        }
        None => {
            let request = from_flags(&args, publisher.connection.endpoint().path())?;
            match publisher.publish(request, "the event").await? {
                0 => Err(publisher.no_broker()),
                _ => Ok(()),
            }
        }
    }
}

/// Where a command finds the public listener.
pub fn endpoint(url: &str) -> Result<Endpoint, Error> {
    Endpoint::parse(if url.is_empty() { DEFAULT_URL } else { url })
}

async fn publish_all(publisher: &mut Publisher, input: impl Read, name: &str) -> Result<(), Error> {
    let progress = std::io::stderr().is_terminal() && !std::io::stdout().is_terminal();
    // Reads value by value, whatever the white space between them: one event in many lines, or an event a line.
    let mut input = BufReader::new(input);
    let start =
        input.fill_buf().map_err(|error| Error::failed_because(format!("cannot read {name}"), error))?;
    let mark = if start.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
    input.consume(mark);
    let documents = serde_json::Deserializer::from_reader(input).into_iter::<Box<RawValue>>();
    let mut count = 0;
    for document in documents {
        let document = document.map_err(|error| {
            Error::failed_because(format!("{name} is no JSON from event {}", count + 1), error)
        })?;
        count += 1;
        let batch = document.get().strip_prefix('[');
        let media_type = if batch.is_some() { BATCH } else { STRUCTURED };
        let is_empty = batch.is_some_and(|events| events.trim_ascii_start().starts_with(']'));
        let request = Request::post(publisher.connection.endpoint().path())
            .header(CONTENT_TYPE, media_type)
            .body(Full::new(Bytes::from(String::from(Box::<str>::from(document)))))
            .map_err(|error| Error::failed_because("cannot put the request together", error))?;
        let offsets = publisher.publish(request, &format!("{name}, event {count}")).await?;
        if offsets == 0 && !is_empty {
            return Err(publisher.no_broker());
        }
        if progress && count % PROGRESS_EVERY == 0 {
            eprint!("\r{count} published");
        }
    }
    if progress && count >= PROGRESS_EVERY {
        eprintln!("\r{count} published");
    }
    if count == 0 {
        return Err(Error::failed(format!("{name} holds no event")));
    }
    Ok(())
}

#[derive(Debug)]
struct Publisher {
    connection: Connection,
}

impl Publisher {
    fn new(url: &str) -> Result<Self, Error> {
        Ok(Self { connection: Connection::new(endpoint(url)?) })
    }

    /// An answer without offsets: whoever gave it stored nothing.
    fn no_broker(&self) -> Error {
        let address = self.connection.endpoint().address();
        Error::failed(format!(
            "what answers at {address} is no Sluice: it said of no offset where the event is"
        ))
    }

    /// Sends one request, prints the offsets of its events, one per line, and says how many there are.
    async fn publish(&mut self, request: Request<Full<Bytes>>, what: &str) -> Result<usize, Error> {
        let response = self.connection.send(request).await?;
        if !response.status().is_success() {
            let problem = Problem::read(response.status(), response.body());
            return Err(Error::failed(format!("{what} was refused: {}", escaped_lines(&problem.text))));
        }
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        if header("sluice-duplicate") == Some("true") {
            eprintln!("{what} is a duplicate and was not stored again");
        }
        let offsets = header("sluice-offset").unwrap_or_default().split(',').map(str::trim);
        let mut count = 0;
        for offset in offsets.filter(|offset| !offset.is_empty()) {
            print_line(offset)?;
            count += 1;
        }
        Ok(count)
    }
}

/// An event in binary mode (CloudEvents HTTP binding, section 3.1), so that data of any kind goes as it is.
fn from_flags(args: &Args, path: &str) -> Result<Request<Full<Bytes>>, Error> {
    let id = args.id.clone().unwrap_or_else(|| Uuid::now_v7().to_string());
    let mut request = Request::post(path).header("ce-specversion", "1.0").header("ce-id", header_text(&id));
    let named = [("ce-type", &args.ty), ("ce-source", &args.source), ("ce-subject", &args.subject)];
    for (name, value) in named {
        if let Some(value) = value {
            request = request.header(name, header_text(value));
        }
    }
    for (name, value) in &args.ext {
        request = request.header(format!("ce-{name}"), header_text(value));
    }
    let data = args.data.as_deref().map(data).transpose()?;
    if let Some(media_type) = args.content_type.as_deref().or_else(|| data.as_deref().and_then(media_type)) {
        request = request.header(CONTENT_TYPE, media_type);
    }
    request
        .body(Full::new(data.unwrap_or_default().into()))
        .map_err(|error| Error::failed_because("cannot put the event together", error))
}

fn data(argument: &str) -> Result<Vec<u8>, Error> {
    let Some(file) = argument.strip_prefix('@') else { return Ok(argument.into()) };
    let mut bytes = Vec::new();
    let read = match file {
        "-" => std::io::stdin().read_to_end(&mut bytes),
        _ => File::open(file).and_then(|mut opened| opened.read_to_end(&mut bytes)),
    };
    read.map_err(|error| Error::failed_because(format!("cannot read {file}"), error))?;
    Ok(bytes)
}

fn media_type(data: &[u8]) -> Option<&'static str> {
    if data.is_empty() {
        return None;
    }
    if serde_json::from_slice::<&RawValue>(data).is_ok() {
        return Some("application/json");
    }
    let text = std::str::from_utf8(data).is_ok();
    Some(if text { "text/plain; charset=utf-8" } else { "application/octet-stream" })
}

/// The value of an attribute as a header carries it (CloudEvents HTTP binding, section 3.1.3.2).
fn header_text(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_graphic() && byte != b'"' && byte != b'%' {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// With a media type of events the data would be taken for the event, and the flags for nothing.
fn content_type(text: &str) -> Result<String, String> {
    match text.trim_start().get(..MEDIA_TYPES.len()) {
        Some(start) if start.eq_ignore_ascii_case(MEDIA_TYPES) => {
            Err("an event in JSON is published from a file, or from standard input by `-`".into())
        }
        _ => Ok(text.to_owned()),
    }
}

fn extension(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("expected NAME=VALUE, found `{text}`"))?;
    let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if name.is_empty() || !name.bytes().all(valid) {
        return Err(format!(
            "the name of an attribute has lower-case letters and digits only, found `{name}`"
        ));
    }
    if ["specversion", "id", "source", "type", "subject", "datacontenttype", "data"].contains(&name) {
        return Err(format!("`{name}` is no extension; it has a flag of its own, or none"));
    }
    Ok((name.into(), value.into()))
}

#[cfg(test)]
mod tests {
    use super::{content_type, extension, header_text, media_type};

    #[test]
    fn data_that_would_be_taken_for_the_event_is_refused() {
        assert!(content_type("Application/CloudEvents+JSON; charset=utf-8").is_err());
        assert!(content_type("application/cloudevents-batch+json").is_err());
        assert_eq!(content_type("application/json"), Ok("application/json".into()));
        assert_eq!(content_type("é"), Ok("é".into()));
    }

    #[test]
    fn header_values_are_percent_encoded_where_the_binding_says_so() {
        assert_eq!(header_text("Euro € 100%"), "Euro%20%E2%82%AC%20100%25");
        assert_eq!(header_text("a\"b~!"), "a%22b~!");
    }

    #[test]
    fn the_media_type_follows_the_data() {
        assert_eq!(media_type(b"{\"a\": 1}"), Some("application/json"));
        assert_eq!(media_type(b"hello"), Some("text/plain; charset=utf-8"));
        assert_eq!(media_type(b"\xff\xfe"), Some("application/octet-stream"));
        assert_eq!(media_type(b""), None);
    }

    #[test]
    fn an_extension_has_a_name_the_standard_allows() {
        assert_eq!(extension("partitionkey=a=b"), Ok(("partitionkey".into(), "a=b".into())));
        assert!(extension("Partition=a").is_err());
        assert!(extension("id=a").is_err());
        assert!(extension("noequals").is_err());
    }
}
