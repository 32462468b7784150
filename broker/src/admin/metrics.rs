//! The metrics page (Prometheus text format 0.0.4). Labels come from the configuration only, never from events.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::Admin;
use super::view::Ages;
use crate::delivery::Reason;
use crate::dispatch::{Active, Core, Counters, SECONDS_BOUNDS_MS};
use crate::ingress;
use crate::sources::Counts;
use crate::store::{Books, Offset, SyncTimes, TriggerEntry, TriggerState, clock};

pub async fn page(State(admin): State<Admin>) -> Response {
    let mut page = Page::default();
    ingress(&mut page, &admin);
    store(&mut page, &admin);
    let figures = admin.dispatch.each_trigger(Figures::of).await;
    triggers(&mut page, &figures);
    let ages = Ages::of(admin.dispatch.log(), figures.iter().filter_map(|of| of.oldest)).await;
    gauges(&mut page, &figures, &ages);
    page.head(
        "sluice_config_reload_success",
        "gauge",
        "Whether the last reload of the configuration succeeded.",
    );
    page.sample(
        "sluice_config_reload_success",
        "",
        f64::from(u8::from(admin.reload_success.load(Ordering::Relaxed))),
    );
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], page.0).into_response()
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing into a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: f64) {
        let _ = match labels {
            "" => writeln!(self.0, "{name} {value}"),
            _ => writeln!(self.0, "{name}{{{labels}}} {value}"),
        };
    }

    fn histogram(&mut self, name: &str, labels: &str, times: &SyncTimes) {
        let comma = if labels.is_empty() { "" } else { "," };
        for (bound, count) in &times.buckets {
            self.sample(&format!("{name}_bucket"), &format!("{labels}{comma}le=\"{bound}\""), *count as f64);
        }
        self.sample(&format!("{name}_bucket"), &format!("{labels}{comma}le=\"+Inf\""), times.count as f64);
        self.sample(&format!("{name}_sum"), labels, times.sum);
        self.sample(&format!("{name}_count"), labels, times.count as f64);
    }
}

/// Requests that were refused before a route saw them.
fn refused_head(admin: &Admin, reason: ingress::Reason) -> u64 {
    let heads = &admin.refused_heads;
    let count = match reason {
        ingress::Reason::Malformed => &heads.malformed,
        ingress::Reason::TooLarge => &heads.too_large,
        ingress::Reason::Timeout => &heads.late,
        ingress::Reason::Busy => &heads.busy,
        ingress::Reason::Invalid
        | ingress::Reason::MediaType
        | ingress::Reason::Conflict
        | ingress::Reason::Full
        | ingress::Reason::Unauthorized => return 0,
    };
    count.load(Ordering::Relaxed)
}

fn ingress(page: &mut Page, admin: &Admin) {
    let counters = &admin.counters;
    let sources = admin.sources.counts();
    page.head("sluice_events_accepted_total", "counter", "Events stored, by entry point.");
    page.sample("sluice_events_accepted_total", "via=\"http\"", counters.accepted() as f64);
    for (name, _, counts) in &sources {
        page.sample("sluice_events_accepted_total", &format!("via=\"{name}\""), counts.accepted as f64);
    }
    let replies = admin.dispatch.replies();
    let count = replies.accepted.load(Ordering::Relaxed);
    page.sample("sluice_events_accepted_total", "via=\"reply\"", count as f64);
    page.head("sluice_events_duplicate_total", "counter", "Duplicates noticed, by entry point.");
    page.sample("sluice_events_duplicate_total", "via=\"http\"", counters.duplicates() as f64);
    for (name, _, counts) in &sources {
        page.sample("sluice_events_duplicate_total", &format!("via=\"{name}\""), counts.duplicates as f64);
    }
    let count = replies.duplicates.load(Ordering::Relaxed);
    page.sample("sluice_events_duplicate_total", "via=\"reply\"", count as f64);
    of_sources(page, &sources);
    page.head("sluice_events_refused_total", "counter", "Requests refused, by reason.");
    for reason in ingress::Reason::ALL {
        let labels = format!("reason=\"{}\"", reason.name());
        page.sample(
            "sluice_events_refused_total",
            &labels,
            (counters.refused(reason) + refused_head(admin, reason)) as f64,
        );
    }
}

fn of_sources(page: &mut Page, sources: &[(String, bool, Counts)]) {
    page.head("sluice_source_up", "gauge", "Whether the source runs.");
    for (name, is_up, _) in sources {
        page.sample("sluice_source_up", &format!("source=\"{name}\""), f64::from(u8::from(*is_up)));
    }
    page.head(
        "sluice_put_aside_total",
        "counter",
        "Records that became no event and are kept as dead letters.",
    );
    for (name, _, counts) in sources {
        for (reason, count) in [("quarantine", counts.quarantined), ("conflict", counts.conflicts)] {
            let labels = format!("source=\"{name}\",reason=\"{reason}\"");
            page.sample("sluice_put_aside_total", &labels, count as f64);
        }
    }
    page.head("sluice_ticks_skipped_total", "counter", "Ticks that a timer missed and did not make up for.");
    for (name, _, counts) in sources {
        page.sample("sluice_ticks_skipped_total", &format!("source=\"{name}\""), counts.skipped as f64);
    }
}

fn store(page: &mut Page, admin: &Admin) {
    let log = admin.dispatch.log();
    let report = log.report();
    let gauges = [
        ("sluice_store_bytes", "Bytes of the log.", report.bytes),
        ("sluice_store_owed_bytes", "Bytes that triggers and dead letters still need.", report.owed_bytes),
        ("sluice_store_limit_bytes", "The size that retention keeps the log within.", report.limit_bytes),
        ("sluice_store_segments", "Segment files in use.", report.segments as u64),
        ("sluice_index_lag_events", "Events that look-ups have to scan.", log.index().lag()),
    ];
    for (name, help, value) in gauges {
        page.head(name, "gauge", help);
        page.sample(name, "", value as f64);
    }
    page.head("sluice_store_sync_seconds", "histogram", "Time to write and sync a frame.");
    page.histogram("sluice_store_sync_seconds", "", &log.measures().sync_times());
    page.head("sluice_store_batch_events", "histogram", "Events in a frame.");
    page.histogram("sluice_store_batch_events", "", &log.measures().batches());
}

/// What is shown of a trigger, copied under the lock; its counters need none.
struct Figures {
    active: Arc<Active>,
    books: Books,
    unmatched_since_start: u64,
    in_flight: usize,
    is_paused: bool,
    oldest: Option<Offset>,
}

impl Figures {
    fn of(core: &Core, entry: &TriggerEntry, state: &TriggerState) -> Option<Self> {
        let runtime = core.runtimes.get(&entry.id)?;
        let books = core.state.books(state);
        Some(Self {
            active: Arc::clone(&runtime.active),
            unmatched_since_start: books.unmatched.saturating_sub(runtime.unmatched_at_start),
            in_flight: runtime.in_flight.len(),
            is_paused: state.paused.is_some(),
            oldest: state.oldest_pending(),
            books,
        })
    }
}

type Count = fn(&Counters) -> &AtomicU64;

fn triggers(page: &mut Page, figures: &[Figures]) {
    let all = || figures.iter();
    let label = |figures: &Figures| format!("trigger=\"{}\"", figures.active.name);
    let get = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64;
    let counters: [(&str, &str, Count); 4] = [
        ("sluice_trigger_matched_total", "Events that matched.", |counters| &counters.matched),
        ("sluice_retries_total", "Attempts after the first.", |counters| &counters.retries),
        ("sluice_replies_total", "Answers that were stored as events.", |counters| &counters.replies),
        ("sluice_trigger_unkeyed_total", "Events without the key that orders.", |counters| &counters.unkeyed),
    ];
    for (name, help, count) in counters {
        page.head(name, "counter", help);
        all().for_each(|of| page.sample(name, &label(of), get(count(&of.active.counters))));
    }
    let name = "sluice_trigger_filter_errors_total";
    page.head(name, "counter", "Events for which a filter could not be evaluated.");
    all().for_each(|of| page.sample(name, &label(of), of.active.counters.filter_errors.count() as f64));
    page.head("sluice_trigger_unmatched_total", "counter", "Events that did not match.");
    for of in all() {
        page.sample("sluice_trigger_unmatched_total", &label(of), of.unmatched_since_start as f64);
    }
    page.head("sluice_deliveries_total", "counter", "Attempts, by outcome.");
    for of in all() {
        let counters = &of.active.counters;
        let outcomes = [
            ("accepted", &counters.accepted),
            ("retriable", &counters.retriable),
            ("rejected", &counters.rejected),
        ];
        for (outcome, count) in outcomes {
            page.sample(
                "sluice_deliveries_total",
                &format!("{},outcome=\"{outcome}\"", label(of)),
                get(count),
            );
        }
    }
    page.head("sluice_dead_letters_total", "counter", "Dead letters made, by reason.");
    for of in all() {
        for reason in Reason::ALL {
            let count = get(&of.active.counters.dead[reason as usize]);
            if count > 0.0 || matches!(reason, Reason::Attempts | Reason::Rejected | Reason::Age) {
                let labels = format!("{},reason=\"{}\"", label(of), reason.as_str());
                page.sample("sluice_dead_letters_total", &labels, count);
            }
        }
    }
    page.head("sluice_delivery_seconds", "histogram", "Time of an attempt, its answer included.");
    for of in all() {
        page.histogram("sluice_delivery_seconds", &label(of), &seconds(&of.active.counters));
    }
}

fn seconds(counters: &Counters) -> SyncTimes {
    let (mut count, mut buckets) = (0, Vec::new());
    for (at, cell) in counters.seconds.iter().enumerate() {
        count += cell.load(Ordering::Relaxed);
        if let Some(bound) = SECONDS_BOUNDS_MS.get(at) {
            buckets.push((*bound as f64 / 1e3, count));
        }
    }
    SyncTimes { buckets, count, sum: counters.total_ms.load(Ordering::Relaxed) as f64 / 1e3 }
}

fn gauges(page: &mut Page, figures: &[Figures], ages: &Ages) {
    let now = clock::wall_ms();
    let mut gauge = |name: &str, help: &str, value: &dyn Fn(&Figures) -> f64| {
        page.head(name, "gauge", help);
        for of in figures {
            page.sample(name, &format!("trigger=\"{}\"", of.active.name), value(of));
        }
    };
    gauge("sluice_trigger_pending", "Deliveries not settled.", &|of| of.books.pending() as f64);
    gauge("sluice_trigger_oldest_pending_seconds", "Age of the oldest delivery not settled.", &|of| {
        let received_ms = of.oldest.and_then(|oldest| ages.received_ms(oldest));
        received_ms.map_or(0.0, |ms| now.saturating_sub(ms) as f64 / 1e3)
    });
    gauge("sluice_deliveries_in_flight", "Attempts under way.", &|of| of.in_flight as f64);
    gauge("sluice_trigger_paused", "Whether the trigger is paused.", &|of| f64::from(u8::from(of.is_paused)));
    gauge("sluice_dead_letters", "Dead letters kept.", &|of| of.books.dead as f64);
}
