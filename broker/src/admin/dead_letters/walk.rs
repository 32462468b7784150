//! Going through the dead letters, of which there may be many: some at a time, and between two looks the dispatcher is free.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use super::super::{Admin, trail};
use super::selection::{Letter, Place, Selection};
use crate::dispatch::Core;
use crate::edge::Problem;
use crate::store::DeliveryId;

/// Entries looked at under the lock in one go.
const LOOK_PIECE: usize = 1024;
/// Entries whose events are read for one page before those that do not fit are let go.
const CANDIDATES_MIN: usize = 1_000;
const CANDIDATES_MAX: usize = 64_000;

/// Where a walk goes on.
#[derive(Default)]
struct Walk {
    delivery: Option<DeliveryId>,
    aside: Option<u64>,
}

impl Walk {
    /// The next entries; none when that were all.
    fn piece(&mut self, core: &Core) -> Vec<Letter> {
        let from = self.delivery.map_or(Bound::Unbounded, Bound::Excluded);
        let dead = core.state.dead.range((from, Bound::Unbounded)).take(LOOK_PIECE);
        let mut piece: Vec<_> = dead.map(|(id, letter)| Letter::Delivery(*id, *letter)).collect();
        let asides = core.state.asides.after(self.aside).take(LOOK_PIECE - piece.len());
        piece.extend(asides.map(|(number, entry)| Letter::Aside(number, entry.clone())));
        for letter in &piece {
            match letter {
                Letter::Delivery(id, _) => self.delivery = Some(*id),
                Letter::Aside(number, _) => self.aside = Some(*number),
            }
        }
        piece
    }
}

/// Hands on each entry that the state alone can tell is asked for.
async fn each(admin: &Admin, selection: &Selection, mut take: impl FnMut(Letter)) -> Result<(), Problem> {
    let filter = selection.filter(&admin.dispatch.core())?;
    if let Some(ids) = &selection.ids {
        let core = admin.dispatch.core();
        // Whoever names one twice means one.
        let mut named = HashSet::new();
        let ids = ids.iter().filter(|id| named.insert(id.as_str()));
        let found: Result<Vec<_>, _> = ids.map(|id| Letter::find(&core, id)).collect();
        found?.into_iter().for_each(take);
        return Ok(());
    }
    let mut walk = Walk::default();
    loop {
        let piece = walk.piece(&admin.dispatch.core());
        if piece.is_empty() {
            return Ok(());
        }
        piece.into_iter().filter(|letter| filter.takes(letter)).for_each(&mut take);
        tokio::task::yield_now().await;
    }
}

/// All that are asked for.
pub async fn all(admin: &Admin, selection: &Arc<Selection>) -> Result<Vec<Letter>, Problem> {
    let mut found = Vec::new();
    each(admin, selection, |letter| found.push(letter)).await?;
    fitting(admin, selection, found).await
}

/// The newest that are asked for, behind a place, so many at most.
pub async fn page(
    admin: &Admin,
    selection: &Arc<Selection>,
    mut after: Option<Place>,
    most: usize,
) -> Result<Vec<Letter>, Problem> {
    let mut page = Vec::new();
    let mut candidates_max = if selection.needs_event() { most.max(CANDIDATES_MIN) } else { most };
    loop {
        let mut newest: BTreeMap<Place, Letter> = BTreeMap::new();
        let keep = |letter: Letter| {
            let place = letter.place();
            let is_newer = newest.len() < candidates_max
                || newest.first_key_value().is_some_and(|(oldest, _)| place > *oldest);
            if after.is_none_or(|after| place < after) && is_newer {
                newest.insert(place, letter);
                if newest.len() > candidates_max {
                    newest.pop_first();
                }
            }
        };
        each(admin, selection, keep).await?;
        let oldest = newest.first_key_value().map(|(place, _)| *place);
        let is_last = newest.len() < candidates_max;
        page.extend(fitting(admin, selection, newest.into_values().rev().collect()).await?);
        if is_last || page.len() >= most {
            page.truncate(most);
            return Ok(page);
        }
        // Few of those that were looked at fit.
        (after, candidates_max) = (oldest, (candidates_max * 4).min(CANDIDATES_MAX.max(most)));
    }
}

/// Keeps those whose event fits too.
async fn fitting(
    admin: &Admin,
    selection: &Arc<Selection>,
    letters: Vec<Letter>,
) -> Result<Vec<Letter>, Problem> {
    if !selection.needs_event() {
        return Ok(letters);
    }
    let (reader, selection) = (Arc::clone(admin.dispatch.log().reader()), Arc::clone(selection));
    let fits = move |letter: &Letter| selection.takes_event_of(&reader, letter);
    trail::blocking(move || letters.into_iter().filter(fits).collect()).await
}
