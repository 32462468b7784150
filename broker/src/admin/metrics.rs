//! The metrics page (Prometheus text format 0.0.4). Labels come from the configuration only, never from events.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::{Admin, view};
use crate::delivery::Reason;
use crate::dispatch::{Core, Runtime, SECONDS_BOUNDS_MS};
use crate::ingress;
use crate::sources::Counts;
use crate::store::{SyncTimes, clock};

pub async fn page(State(admin): State<Admin>) -> Response {
    let mut page = Page::default();
    ingress(&mut page, &admin);
    store(&mut page, &admin);
    {
        let core = admin.dispatch.core();
        triggers(&mut page, &core);
        trigger_gauges(&mut page, &core);
    }
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
        page.sample("sluice_events_refused_total", &labels, counters.refused(reason) as f64);
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

type Count = fn(&Runtime) -> &AtomicU64;

fn triggers(page: &mut Page, core: &Core) {
    let all = || core.runtimes.values();
    let label = |runtime: &Runtime| format!("trigger=\"{}\"", runtime.active.name);
    let get = |count: &AtomicU64| count.load(Ordering::Relaxed) as f64;
    let counters: [(&str, &str, Count); 4] = [
        ("sluice_trigger_matched_total", "Events that matched.", |r| &r.active.counters.matched),
        ("sluice_retries_total", "Attempts after the first.", |r| &r.active.counters.retries),
        ("sluice_replies_total", "Answers that were stored as events.", |r| &r.active.counters.replies),
        ("sluice_trigger_unkeyed_total", "Events without the key that orders.", |r| {
            &r.active.counters.unkeyed
        }),
    ];
    for (name, help, count) in counters {
        page.head(name, "counter", help);
        all().for_each(|runtime| page.sample(name, &label(runtime), get(count(runtime))));
    }
    let name = "sluice_trigger_filter_errors_total";
    page.head(name, "counter", "Events for which a filter could not be evaluated.");
    all().for_each(|runtime| {
        page.sample(name, &label(runtime), runtime.active.counters.filter_errors.count() as f64);
    });
    page.head("sluice_trigger_unmatched_total", "counter", "Events that did not match.");
    for (id, runtime) in &core.runtimes {
        let unmatched = core.state.triggers.get(id).map_or(0, |state| core.state.books(state).unmatched);
        let since_start = unmatched.saturating_sub(runtime.unmatched_at_start);
        page.sample("sluice_trigger_unmatched_total", &label(runtime), since_start as f64);
    }
    page.head("sluice_deliveries_total", "counter", "Attempts, by outcome.");
    for runtime in all() {
        let counters = &runtime.active.counters;
        let outcomes = [
            ("accepted", &counters.accepted),
            ("retriable", &counters.retriable),
            ("rejected", &counters.rejected),
        ];
        for (outcome, count) in outcomes {
            page.sample(
                "sluice_deliveries_total",
                &format!("{},outcome=\"{outcome}\"", label(runtime)),
                get(count),
            );
        }
    }
    page.head("sluice_dead_letters_total", "counter", "Dead letters made, by reason.");
    for runtime in all() {
        for reason in Reason::ALL {
            let count = get(&runtime.active.counters.dead[reason as usize]);
            if count > 0.0 || matches!(reason, Reason::Attempts | Reason::Rejected | Reason::Age) {
                let labels = format!("{},reason=\"{}\"", label(runtime), reason.as_str());
                page.sample("sluice_dead_letters_total", &labels, count);
            }
        }
    }
    page.head("sluice_delivery_seconds", "histogram", "Time of an attempt, its answer included.");
    for runtime in all() {
        page.histogram("sluice_delivery_seconds", &label(runtime), &seconds(runtime));
    }
}

fn seconds(runtime: &Runtime) -> SyncTimes {
    let counters = &runtime.active.counters;
    let (mut count, mut buckets) = (0, Vec::new());
    for (at, cell) in counters.seconds.iter().enumerate() {
        count += cell.load(Ordering::Relaxed);
        if let Some(bound) = SECONDS_BOUNDS_MS.get(at) {
            buckets.push((*bound as f64 / 1e3, count));
        }
    }
    SyncTimes { buckets, count, sum: counters.total_ms.load(Ordering::Relaxed) as f64 / 1e3 }
}

fn trigger_gauges(page: &mut Page, core: &Core) {
    let now = clock::wall_ms();
    let rows: Vec<_> = core
        .runtimes
        .iter()
        .filter_map(|(id, runtime)| {
            Some((format!("trigger=\"{}\"", runtime.active.name), runtime, core.state.triggers.get(id)?))
        })
        .collect();
    let mut gauge = |name: &str, help: &str, value: &dyn Fn(&Runtime, &crate::store::TriggerState) -> f64| {
        page.head(name, "gauge", help);
        rows.iter().for_each(|(label, runtime, state)| page.sample(name, label, value(runtime, state)));
    };
    gauge("sluice_trigger_pending", "Deliveries not settled.", &|_, state| {
        core.state.books(state).pending() as f64
    });
    gauge("sluice_trigger_oldest_pending_seconds", "Age of the oldest delivery not settled.", &|_, state| {
        view::oldest_pending_ms(core, state).map_or(0.0, |ms| now.saturating_sub(ms) as f64 / 1e3)
    });
    gauge("sluice_deliveries_in_flight", "Attempts under way.", &|runtime, _| runtime.in_flight.len() as f64);
    gauge("sluice_trigger_paused", "Whether the trigger is paused.", &|_, state| {
        f64::from(u8::from(state.paused.is_some()))
    });
    gauge("sluice_dead_letters", "Dead letters kept.", &|_, state| core.state.books(state).dead as f64);
}
