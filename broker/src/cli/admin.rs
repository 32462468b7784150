//! A client of the admin API.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Error;
use super::connection::{Connection, Endpoint, percent_encoded};
use super::output::{Form, escaped_lines};

const DEFAULT_URL: &str = "http://127.0.0.1:8081";
/// What is asked for at once; the broker may give fewer.
const PAGE_ITEMS_MAX: usize = 500;

/// How a command finds the broker, and how it prints.
#[derive(Clone, Debug, clap::Args)]
pub struct Access {
    /// Where the broker's operators' listener is
    #[arg(long, global = true, env = "SLUICE_ADMIN", default_value = DEFAULT_URL, value_name = "URL",
          help_heading = "Common options")]
    pub admin: String,
    /// Print JSON
    #[arg(long, global = true, help_heading = "Common options")]
    pub json: bool,
}

impl Access {
    pub fn form(&self) -> Form {
        if self.json { Form::Json } else { Form::Text }
    }
}

/// The admin API of one broker.
#[derive(Debug)]
pub struct Client {
    connection: Connection,
}

/// An answer that is no failure, as the broker wrote it.
#[derive(Clone, Debug)]
pub struct Answer {
    pub text: String,
}

/// The items of a list, each as the broker wrote it.
#[derive(Debug)]
pub struct Items {
    pub items: Vec<Box<RawValue>>,
    /// There are more than were asked for.
    pub more: bool,
}

/// What the broker refuses (RFC 9457).
#[derive(Debug)]
pub struct Problem {
    pub status: StatusCode,
    pub text: String,
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Box<RawValue>>,
    next: Option<String>,
}

/// Parameters of a query, those that are given.
#[derive(Debug, Default)]
pub struct Query(Vec<String>);

impl Query {
    pub fn of(named: impl IntoIterator<Item = (&'static str, Option<String>)>) -> Self {
        named.into_iter().fold(Self::default(), |query, (name, value)| query.with(name, value))
    }

    #[must_use]
    pub fn with(mut self, name: &str, value: Option<impl ToString>) -> Self {
        if let Some(value) = value {
            self.0.push(format!("{name}={}", percent_encoded(&value.to_string())));
        }
        self
    }
}

impl Client {
    pub fn new(access: &Access) -> Result<Self, Error> {
        // An empty variable is how some environments say "not set".
        let url = if access.admin.is_empty() { DEFAULT_URL } else { &access.admin };
        Ok(Self { connection: Connection::new(Endpoint::parse(url)?) })
    }

    pub async fn get(&mut self, path: &str) -> Result<Answer, Error> {
        self.send(Method::GET, path, Bytes::new()).await?.map_err(Problem::into)
    }

    pub async fn post(&mut self, path: &str, body: &Value) -> Result<Answer, Error> {
        self.try_post(path, body).await?.map_err(Problem::into)
    }

    /// As `post`, for who does something about a refusal.
    pub async fn try_post(&mut self, path: &str, body: &Value) -> Result<Result<Answer, Problem>, Error> {
        self.send(Method::POST, path, Bytes::from(body.to_string())).await
    }

    /// Follows a list from page to page, up to `limit` items.
    pub async fn list(&mut self, path: &str, query: &Query, limit: usize) -> Result<Items, Error> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let wanted = (limit - items.len()).min(PAGE_ITEMS_MAX);
            let mut parameters = query.0.clone();
            parameters.push(format!("limit={wanted}"));
            parameters.extend(cursor.as_deref().map(|cursor| format!("cursor={}", percent_encoded(cursor))));
            let answer = self.get(&format!("{path}?{}", parameters.join("&"))).await?;
            let page: Page = answer.read()?;
            let got = page.items.len();
            items.extend(page.items);
            if items.len() >= limit {
                let more = items.len() > limit || page.next.is_some();
                items.truncate(limit);
                return Ok(Items { items, more });
            }
            // A page without items whose cursor stands still would be asked for forever.
            if page.next.is_none() || (got == 0 && page.next == cursor) {
                return Ok(Items { items, more: false });
            }
            cursor = page.next;
        }
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Result<Answer, Problem>, Error> {
        let prefix = self.connection.endpoint().path().trim_end_matches('/');
        let request = Request::builder()
            .method(method)
            .uri(format!("{prefix}/api/v1/{path}"))
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| Error::failed_because("cannot put the request together", error))?;
        let response = self.connection.send(request).await?;
        let (status, body) = (response.status(), response.into_body());
        if !status.is_success() {
            return Ok(Err(Problem::read(status, &body)));
        }
        let text = String::from_utf8(body.into())
            .map_err(|error| Error::failed_because("the broker's answer is no text", error))?;
        Ok(Ok(Answer { text }))
    }
}

impl Answer {
    pub fn read<T: serde::de::DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_str(&self.text).map_err(|error| {
            Error::failed_because("the broker's answer is not what this version understands", error)
        })
    }

    /// The JSON document, or null when the answer is empty.
    pub fn document(&self) -> Result<Value, Error> {
        if self.text.trim().is_empty() { Ok(Value::Null) } else { self.read() }
    }
}

impl Problem {
    pub(super) fn read(status: StatusCode, body: &[u8]) -> Self {
        let document: Value = serde_json::from_slice(body).unwrap_or_default();
        let said = ["detail", "title"].iter().find_map(|field| document[field].as_str());
        let mut text = said.map_or_else(|| format!("the broker answered {status}"), str::to_owned);
        for error in document["errors"].as_array().into_iter().flatten() {
            let error = error.as_str().map_or_else(|| error.to_string(), str::to_owned);
            // A detail may hold its errors already.
            if !text.contains(&error) {
                text.push('\n');
                text.push_str(&error);
            }
        }
        Self { status, text }
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::failed(escaped_lines(&problem.text))
    }
}
