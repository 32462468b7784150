//! The YAML file format of Sluice, and nothing else.

mod model;

pub use model::{
    Admin, Backoff, Config, Delivery, Duplicates, Filter, Http, HttpSink, Limits, Mode, OnDamage, Order,
    Rate, Reply, Retry, Secret, Sink, Start, Store, Tls, Trigger, Watermark,
};
