//! Redrives and purges.

use std::sync::Arc;

use axum::extract::State;
use bytes::Bytes;
use serde_json::{Value, json};
use sluice_adapters::{Aside, Entry};

use super::super::answer::{self, Answer};
use super::super::{Admin, trail, view};
use super::selection::{Letter, selected};
use crate::dispatch::Core;
use crate::edge::Problem;
use crate::intake;
use crate::store::{AsideEntry, AsidesGone, DeliveryId, LogRecord, Purge, TriggerId, clock};

/// Dead letters removed by one record.
const PIECE: usize = 5000;

pub async fn redrive(State(admin): State<Admin>, body: Bytes) -> Answer {
    let (selection, letters) = selected(&admin, &body).await?;
    let (deliveries, asides) = parted(letters);
    let to = {
        let core = admin.dispatch.core();
        let to = selection.to.as_deref().map(|name| target(&core, name)).transpose()?;
        if to.is_some() && !asides.is_empty() {
            return Err(answer::conflict(
                "what a source put aside has no trigger to be sent to: leave out `to`",
            ));
        }
        if let Some(id) =
            deliveries.iter().find(|id| to.is_none() && !core.runtimes.contains_key(&id.trigger))
        {
            return Err(answer::conflict(format!(
                "trigger `{}` of the dead letter of offset {} is gone; say `to`",
                view::name_of(&core, id.trigger),
                id.offset
            )));
        }
        to
    };
    if selection.dry_run {
        return answer::json(&json!({ "redriven": deliveries.len() + asides.len(), "dry_run": true }));
    }
    let redriven = admin.dispatch.redrive(&deliveries, to).await;
    let mut redriven = redriven.map_err(|refusal| answer::unavailable(&refusal))?;
    let mut failed = Vec::new();
    for (number, entry) in &asides {
        match publish_again(&admin, *number, entry).await? {
            Ok(()) => redriven += 1,
            Err(detail) => {
                failed.push(json!({ "id": format!("{number}@{}", entry.source), "detail": detail }));
            }
        }
    }
    tracing::info!(count = redriven, failed = failed.len(), "redrove dead letters");
    if redriven == 0
        && let Some(first) = failed.first()
    {
        let detail = format!("{}: {}", text(first, "id"), text(first, "detail"));
        return Err(answer::conflict(detail));
    }
    answer::json(&json!({ "redriven": redriven, "failed": failed }))
}

fn text<'v>(value: &'v Value, member: &str) -> &'v str {
    value[member].as_str().unwrap_or_default()
}

fn parted(letters: Vec<Letter>) -> (Vec<DeliveryId>, Vec<(u64, AsideEntry)>) {
    let (mut deliveries, mut asides) = (Vec::new(), Vec::new());
    for letter in letters {
        match letter {
            Letter::Delivery(id, _) => deliveries.push(id),
            Letter::Aside(number, entry) => asides.push((number, entry)),
        }
    }
    (deliveries, asides)
}

/// Makes an event of a record that was put aside, or all those of a batch, under the present configuration; it leaves the list
/// with their frame. `Ok(Err(why))` when it still cannot become one.
async fn publish_again(
    admin: &Admin,
    number: u64,
    entry: &AsideEntry,
) -> Result<Result<(), String>, Problem> {
    let reader = Arc::clone(admin.dispatch.log().reader());
    let near = entry.near;
    let read = trail::blocking(move || reader.read_aside(number, near)).await?;
    let Some(aside) = read.map_err(|error| trail::problem(&error))? else {
        return Ok(Err("the record cannot be read any more".into()));
    };
    let Aside { record, size, .. } = &aside.aside;
    if aside.aside.is_cut() {
        let kept = record.body.as_ref().map_or(0, Bytes::len);
        return Ok(Err(format!("only the first {kept} of its {size} bytes were kept: it can be purged")));
    }
    let events = match admin.sources.to_events(&entry.source, record) {
        Ok(events) => events.into_iter(),
        Err(unfit) => return Ok(Err(unfit.to_string())),
    };
    let events = events
        .map(|event| intake::new_event(Entry { event: Arc::new(event), trace: None }, &entry.source))
        .collect();
    let gone = LogRecord::AsidesGone(AsidesGone { at_ms: clock::wall_ms(), numbers: vec![number] });
    match admin.dispatch.log().append(events, vec![gone.clone()]).await {
        Ok(_) => admin.dispatch.core().apply(&gone),
        Err(
            refusal @ (sluice_adapters::Refusal::Conflict { .. } | sluice_adapters::Refusal::TooLarge { .. }),
        ) => {
            return Ok(Err(refusal.to_string()));
        }
        Err(refusal) => return Err(answer::unavailable(&refusal)),
    }
    Ok(Ok(()))
}

fn target(core: &Core, name: &str) -> Result<TriggerId, Problem> {
    let mut entries = core.state.set.triggers.iter();
    let entry = entries.find(|entry| entry.name == name && core.runtimes.contains_key(&entry.id));
    entry
        .map(|entry| entry.id)
        .ok_or_else(|| answer::conflict(format!("there is no trigger `{name}` to redrive to")))
}

pub async fn purge(State(admin): State<Admin>, body: Bytes) -> Answer {
    let (selection, letters) = selected(&admin, &body).await?;
    if selection.to.is_some() {
        return Err(answer::bad("to", "`to` is of a redrive: a purge removes"));
    }
    let (deliveries, asides) = parted(letters);
    if selection.dry_run {
        return answer::json(&json!({ "purged": deliveries.len() + asides.len(), "dry_run": true }));
    }
    let at_ms = clock::wall_ms();
    let of_deliveries =
        deliveries.chunks(PIECE).map(|ids| LogRecord::Purge(Purge { at_ms, ids: ids.to_vec() }));
    let of_asides = asides.chunks(PIECE).map(|piece| {
        let numbers = piece.iter().map(|(number, _)| *number).collect();
        LogRecord::AsidesGone(AsidesGone { at_ms, numbers })
    });
    let mut count = 0;
    for record in of_deliveries.chain(of_asides) {
        let written = {
            let mut core = admin.dispatch.core();
            let listed = |core: &Core| core.state.dead.len() + core.state.asides.len();
            let before = listed(&core);
            let written = core.record_durably(record);
            count += before - listed(&core);
            written
        };
        written.await.map_err(|refusal| answer::unavailable(&refusal))?;
    }
    tracing::info!(count, "purged dead letters");
    answer::json(&json!({ "purged": count }))
}
