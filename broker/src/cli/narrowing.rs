//! What lists of stored events and of dead letters are narrowed by alike.

use jiff::Timestamp;

use super::time::moment;

#[derive(Debug, clap::Args)]
pub struct Narrowing {
    /// Only events of this type
    #[arg(long = "type", value_name = "TYPE")]
    ty: Option<String>,
    /// Only events that came in this way: `http`, `reply` or a source's name
    #[arg(long)]
    via: Option<String>,
    /// Only what came in or died since then: a duration back from now, or a timestamp
    #[arg(long, value_name = "DURATION|TIMESTAMP", value_parser = moment)]
    since: Option<Timestamp>,
}

impl Narrowing {
    /// Under the names that the API has for them.
    pub fn named(&self) -> [(&'static str, Option<String>); 3] {
        let since = self.since.map(|since| since.to_string());
        [("type", self.ty.clone()), ("via", self.via.clone()), ("since", since)]
    }
}
