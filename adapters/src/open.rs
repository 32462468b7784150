//! From a configuration to a source: the one place that knows every kind.

use std::sync::Arc;

use sluice_config::{self as config, SourceKind};
use sluice_schemas::Event;

use crate::cron::CronSource;
use crate::hook::{Hook, HookSource, Hooks};
use crate::{Record, Source, Unfit};

/// The position of a record that no server ever had.
#[cfg(any(feature = "amqp", feature = "kafka", feature = "nats"))]
const UNSENT: &str = "test";

/// A source that is compiled and does not run yet. Nothing outside has been touched.
#[derive(Clone)]
pub struct Opened {
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Cron(Arc<CronSource>),
    Hook(Arc<Hook>),
    #[cfg(feature = "kafka")]
    Kafka(Arc<crate::kafka::KafkaSource>),
    #[cfg(feature = "amqp")]
    Amqp(Arc<crate::amqp::AmqpSource>),
    #[cfg(feature = "nats")]
    Nats(Arc<crate::nats::NatsSource>),
}

/// Why a source cannot be used as configured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WrongSource {
    #[error("source `{name}`: {reason}")]
    Wrong { name: String, reason: String },
    #[error("source `{name}`: this program was built without `{feature}`")]
    BuiltWithout { name: String, feature: &'static str },
}

/// Compiles a source of a configuration.
pub fn open(name: &str, source: &config::Source) -> Result<Opened, WrongSource> {
    let wrong = |reason: String| WrongSource::Wrong { name: name.to_owned(), reason };
    #[cfg(not(all(feature = "amqp", feature = "kafka", feature = "nats")))]
    let without = |feature| Err(WrongSource::BuiltWithout { name: name.to_owned(), feature });
    let kind = match &source.kind {
        SourceKind::Cron(cron) => Kind::Cron(Arc::new(
            CronSource::compile(name, cron, source).map_err(|error| wrong(error.to_string()))?,
        )),
        SourceKind::Webhook(_) | SourceKind::Git(_) => match Hook::compile(name, source) {
            Ok(Some(hook)) => Kind::Hook(Arc::new(hook)),
            Ok(None) => return Err(wrong("not a hook".into())),
            Err(error) => return Err(wrong(error.reason)),
        },
        #[cfg(feature = "kafka")]
        SourceKind::Kafka(kafka) => {
            let mapping = crate::Mapping::compile(name, source).map_err(|error| wrong(error.to_string()))?;
            Kind::Kafka(Arc::new(crate::kafka::KafkaSource::open(kafka.clone(), mapping).map_err(wrong)?))
        }
        #[cfg(not(feature = "kafka"))]
        SourceKind::Kafka(_) => return without("kafka"),
        #[cfg(feature = "amqp")]
        SourceKind::Amqp(amqp) => {
            let mapping = crate::Mapping::compile(name, source).map_err(|error| wrong(error.to_string()))?;
            Kind::Amqp(Arc::new(crate::amqp::AmqpSource::new(amqp.clone(), mapping)))
        }
        #[cfg(not(feature = "amqp"))]
        SourceKind::Amqp(_) => return without("amqp"),
        #[cfg(feature = "nats")]
        SourceKind::Nats(nats) => {
            let mapping = crate::Mapping::compile(name, source).map_err(|error| wrong(error.to_string()))?;
            Kind::Nats(Arc::new(crate::nats::NatsSource::new(nats.clone(), mapping)))
        }
        #[cfg(not(feature = "nats"))]
        SourceKind::Nats(_) => return without("nats"),
    };
    Ok(Opened { kind })
}

impl Opened {
    /// Something to run. Hooks are found among `hooks` from here on, closed until they run.
    pub fn source(&self, hooks: &Hooks) -> Arc<dyn Source> {
        match &self.kind {
            Kind::Cron(cron) => Arc::<CronSource>::clone(cron),
            Kind::Hook(hook) => Arc::new(HookSource::new(Arc::clone(hook), hooks)),
            #[cfg(feature = "kafka")]
            Kind::Kafka(kafka) => Arc::<crate::kafka::KafkaSource>::clone(kafka),
            #[cfg(feature = "amqp")]
            Kind::Amqp(amqp) => Arc::<crate::amqp::AmqpSource>::clone(amqp),
            #[cfg(feature = "nats")]
            Kind::Nats(nats) => Arc::<crate::nats::NatsSource>::clone(nats),
        }
    }

    /// What a record becomes under this configuration: pure. One event, but for a webhook's batch.
    pub fn to_events(&self, record: &Record) -> Result<Vec<Event>, Unfit> {
        let event = match &self.kind {
            Kind::Cron(cron) => cron.to_event(record),
            Kind::Hook(hook) => return hook.to_events(record),
            #[cfg(feature = "kafka")]
            Kind::Kafka(kafka) => kafka.to_event(record),
            #[cfg(feature = "amqp")]
            Kind::Amqp(amqp) => amqp.to_event(record),
            #[cfg(feature = "nats")]
            Kind::Nats(nats) => nats.to_event(record),
        };
        event.map(|event| vec![event])
    }

    /// Where a record would be that nobody sent, for tests: what its headers name it, or when a timer is due.
    pub fn position(&self, record: &Record) -> String {
        match &self.kind {
            Kind::Cron(cron) => cron.first_tick(),
            Kind::Hook(hook) => hook.delivery_id(record, None),
            #[cfg(feature = "kafka")]
            Kind::Kafka(_) => UNSENT.into(),
            #[cfg(feature = "amqp")]
            Kind::Amqp(_) => UNSENT.into(),
            #[cfg(feature = "nats")]
            Kind::Nats(_) => UNSENT.into(),
        }
    }

    /// Whether others send to it, who may not send again what it does not take.
    pub fn is_pushed_to(&self) -> bool {
        matches!(self.kind, Kind::Hook(_))
    }
}
