//! Times matching alone, without log and network: events a second through the index with 1, 100 and 10,000 triggers of mixed
//! kinds of which one matches, and one evaluation of a filter of each dialect.
//!
//!     cargo run --release -p sluice --example matching [seconds]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_broker::routing::{Rule, Table};
use sluice_broker::store::{Offset, TriggerId};
use sluice_language::{Facts, Filter};
use sluice_schemas::{DataForm, Event};

/// An order of about 1 KiB.
fn event(type_suffix: &str) -> Event {
    let items: Vec<Value> = (0..8)
        .map(|n| json!({ "sku": format!("sku-{n:04}"), "quantity": n + 1, "price": 9.99, "title": "A thing of some kind, in blue" }))
        .collect();
    let data = json!({ "id": "o-1", "amount": 180, "country": "DE", "customer": { "id": 4711, "tier": "gold" }, "items": items });
    let builder =
        Event::builder().attribute("specversion", "1.0").attribute("id", "1").attribute("source", "/shop");
    let builder =
        builder.attribute("type", &format!("com.example.order.{type_suffix}")).attribute("subject", "o-1");
    let builder = builder.attribute("datacontenttype", "application/json");
    builder.data(data.to_string(), DataForm::Opaque).build().expect("a valid event")
}

/// A filter that does not match the event, in turn of each kind.
fn other(n: usize) -> Value {
    let ty = format!("com.example.other-{n}");
    match n % 8 {
        0 => json!({ "exact": { "type": ty } }),
        1 => json!({ "prefix": { "type": format!("{ty}.") } }),
        2 => json!({ "any": [{ "exact": { "type": ty } }, { "exact": { "source": format!("/{n}") } }] }),
        3 => json!({ "data": { "customer": { "id": [n + 10_000] } } }),
        4 => {
            json!({ "all": [{ "prefix": { "type": ty } }, { "data": { "amount": [{ "numeric": [">", 100] }] } }] })
        }
        5 if n % 16 < 8 => json!({ "sql": format!("type = '{ty}' AND EXISTS subject") }),
        5 => json!({ "cel": format!("event.type == '{ty}' && event.data.amount > 100") }),
        6 => json!({ "cel": format!("event.type.startsWith('{ty}.') || event.source == '/{n}'") }),
        _ => json!({ "all": [{ "exact": { "type": ty } }, { "not": { "suffix": { "subject": "x" } } }] }),
    }
}

fn table(count: usize) -> Table {
    let matching = json!({ "all": [
        { "prefix": { "type": "com.example.order." } }, { "data": { "amount": [{ "numeric": [">", 100] }] } },
    ] });
    let filters = (1..count).map(other).chain([matching]);
    let rules = filters.enumerate().map(|(n, filter)| Rule {
        trigger: TriggerId(u32::try_from(n).unwrap_or(u32::MAX)),
        name: "t".into(),
        birth: Offset(0),
        sources: None,
        filter: Filter::from_json(&filter).expect("a filter"),
        errors: Arc::default(),
    });
    Table::new(rules.collect())
}

/// Nanoseconds a call.
fn time(limit: Duration, mut call: impl FnMut()) -> f64 {
    let (started, mut calls) = (Instant::now(), 0u32);
    while started.elapsed() < limit {
        for _ in 0..16 {
            call();
        }
        calls += 16;
    }
    started.elapsed().as_nanos() as f64 / f64::from(calls)
}

fn main() {
    let seconds = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1.0);
    let limit = Duration::from_secs_f64(seconds);
    let event = event("created");
    println!("triggers of mixed kinds, one matches:");
    let mut first = None;
    for count in [1, 100, 10_000] {
        let table = table(count);
        assert_eq!(table.matches(&event, "http", Offset(0)).len(), 1);
        let nanoseconds =
            time(limit, || drop(black_box(table.matches(black_box(&event), "http", Offset(0)))));
        let ratio = *first.get_or_insert(nanoseconds) / nanoseconds;
        println!(
            "  {count:6}  {:10.0} events/s  {nanoseconds:8.0} ns  {ratio:.2} of the rate with 1",
            1e9 / nanoseconds
        );
    }
    println!("one evaluation that holds, with the data parsed anew / parsed before:");
    for filter in [
        json!({ "exact": { "type": "com.example.order.created" } }),
        json!({ "prefix": { "type": "com.example.order." } }),
        json!({ "any": [{ "exact": { "type": "a" } }, { "suffix": { "type": ".created" } }] }),
        json!({ "data": { "amount": [{ "numeric": [">", 100] }] } }),
        json!({ "data": { "items": { "sku": ["sku-0007"], "quantity": [{ "numeric": ["<", 10] }] } } }),
        json!({ "sql": "type = 'com.example.order.created' AND source <> '/x'" }),
        json!({ "sql": "type LIKE 'com.%.created'" }),
        json!({ "cel": "event.type == 'com.example.order.created'" }),
        json!({ "cel": "event.data.amount > 100" }),
        json!({ "cel": "event.data.items.exists(i, i.quantity > 7)" }),
    ] {
        let compiled = Filter::from_json(&filter).expect("a filter");
        assert_eq!(compiled.holds(&Facts::of(&event)), Ok(true), "{filter}");
        let anew = time(limit, || drop(black_box(compiled.holds(&Facts::of(black_box(&event))))));
        let facts = Facts::of(&event);
        let before = time(limit, || drop(black_box(compiled.holds(black_box(&facts)))));
        println!("  {anew:8.0} ns  {before:8.0} ns  {filter}");
    }
}
