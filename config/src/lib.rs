//! The YAML file format of Sluice, and nothing else.
//!
//! [`load`] turns files into a [`Config`] that needs no further checks: references are expanded, defaults filled in, everything is
//! in range. What is wrong comes back as [`Errors`], as many at once as can be found, each with its place and the line that shows it.

mod changes;
mod client;
mod delivery;
mod diagnostic;
mod expand;
mod expression;
mod filter;
mod keys;
mod load;
mod model;
mod place;
mod schema;
mod secret;
mod sections;
mod show;
mod sink;
mod source;
mod template;
mod test_case;
mod transform;
mod tree;
mod trigger;
mod units;

pub use changes::{Changes, changes};
pub use diagnostic::{Diagnostic, Errors, Severity};
pub use keys::nearest;
pub use load::{FILE_BYTES_MAX, Loaded, check_text, load, load_with_tests};
pub use model::{
    Admin, AmqpSink, AmqpSource, Backoff, Binding, CatchUp, Config, CronSource, CronWhen, Declare, Delivery,
    Duplicates, GitProvider, GitSource, Hmac, HmacAlgorithm, HmacEncoding, Http, HttpSink, KafkaClient,
    KafkaKey, KafkaSink, KafkaSource, KafkaStart, Limits, Mode, NatsClient, NatsFrom, NatsSink, NatsSource,
    OnDamage, Order, Oversize, Rate, Reply, Retry, Sasl, Scheme, Secret, Sink, Source, SourceKind, Start,
    Store, Tls, TokenPlace, Topics, Trigger, Verify, Watermark, WebhookSource,
};
pub use place::{Place, Places};
pub use schema::json_schema;
pub use show::to_json;
pub use sink::is_link_local;
pub use test_case::{
    Ends, ExpectedBody, ExpectedRequest, ExpectedTriggers, Given, GivenRecord, ScriptedAnswer, Story, Test,
};

/// A commented file to begin with.
pub fn starter() -> &'static str {
    include_str!("starter.yaml")
}
