//! Turns at something scarce, shared among those that compete for it: who waits is let in where the fewest of its kind are
//! at work, and among equals in the order of arrival. So one that asks much, and takes long, delays another by one turn.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

pub struct Turns<K: Eq + Hash + Clone>(Arc<Mutex<Queue<K>>>);

struct Queue<K: Eq + Hash + Clone> {
    free: usize,
    at_work: HashMap<K, usize>,
    waiting: VecDeque<(K, oneshot::Sender<Turn<K>>)>,
}

/// Lasts until it is dropped.
pub struct Turn<K: Eq + Hash + Clone> {
    turns: Arc<Mutex<Queue<K>>>,
    kind: K,
}

impl<K: Eq + Hash + Clone> Turns<K> {
    pub fn new(count: usize) -> Self {
        Self(Arc::new(Mutex::new(Queue { free: count, at_work: HashMap::new(), waiting: VecDeque::new() })))
    }

    pub async fn next(&self, kind: K) -> Turn<K> {
        let admitted = {
            let mut queue = locked(&self.0);
            if queue.free > 0 {
                queue.begin(&kind);
                return Turn { turns: Arc::clone(&self.0), kind };
            }
            let (admit, admitted) = oneshot::channel();
            queue.waiting.push_back((kind, admit));
            admitted
        };
        match admitted.await {
            Ok(turn) => turn,
            // The queue, and with it the other end, lives as long as we do.
            Err(_) => std::future::pending().await,
        }
    }
}

impl<K: Eq + Hash + Clone> Queue<K> {
    fn begin(&mut self, kind: &K) {
        self.free -= 1;
        *self.at_work.entry(kind.clone()).or_default() += 1;
    }

    fn end(&mut self, kind: &K) {
        self.free += 1;
        if let Some(count) = self.at_work.get_mut(kind) {
            *count -= 1;
            if *count == 0 {
                self.at_work.remove(kind);
            }
        }
    }

    /// Who is next, if there is room.
    fn admit(&mut self) -> Option<(K, oneshot::Sender<Turn<K>>)> {
        self.waiting.retain(|(_, admit)| !admit.is_closed());
        let at_work = |kind: &K| self.at_work.get(kind).copied().unwrap_or_default();
        let first = self.waiting.iter().enumerate().min_by_key(|(_, (kind, _))| at_work(kind));
        let (place, _) = first.filter(|_| self.free > 0)?;
        let next = self.waiting.remove(place)?;
        self.begin(&next.0);
        Some(next)
    }
}

impl<K: Eq + Hash + Clone> Drop for Turn<K> {
    fn drop(&mut self) {
        let next = {
            let mut queue = locked(&self.turns);
            queue.end(&self.kind);
            queue.admit()
        };
        if let Some((kind, admit)) = next {
            // Whoever does not want it any more gives it back, and the next is let in.
            drop(admit.send(Turn { turns: Arc::clone(&self.turns), kind }));
        }
    }
}

fn locked<K: Eq + Hash + Clone>(queue: &Mutex<Queue<K>>) -> MutexGuard<'_, Queue<K>> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn is_admitted<K: Eq + Hash + Clone>(
        waiting: std::pin::Pin<&mut impl Future<Output = Turn<K>>>,
    ) -> Option<Turn<K>> {
        match waiting.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        }
    }

    #[test]
    fn one_that_asks_much_delays_another_by_one_turn() {
        let turns = Turns::new(2);
        let busy: Vec<_> =
            (0..2).map(|_| is_admitted(pin!(turns.next("busy"))).expect("there is room")).collect();
        let mut more = pin!(turns.next("busy"));
        let mut other = pin!(turns.next("other"));
        assert!(is_admitted(more.as_mut()).is_none() && is_admitted(other.as_mut()).is_none());
        let mut busy = busy.into_iter();
        drop(busy.next());
        assert!(is_admitted(more.as_mut()).is_none(), "it came first, and has one at work");
        let _other = is_admitted(other.as_mut()).expect("it has none at work");
        drop(busy.next());
        assert!(is_admitted(more.as_mut()).is_some());
    }

    #[test]
    fn who_gives_up_waiting_takes_no_turn() {
        let turns = Turns::new(1);
        let first = is_admitted(pin!(turns.next(1)));
        {
            let mut gone = pin!(turns.next(2));
            assert!(is_admitted(gone.as_mut()).is_none());
        }
        let mut last = pin!(turns.next(3));
        assert!(is_admitted(last.as_mut()).is_none());
        drop(first);
        // Let in, and gone before it knows.
        let mut late = Box::pin(turns.next(4));
        assert!(is_admitted(late.as_mut()).is_none());
        drop(is_admitted(last.as_mut()).expect("its turn"));
        drop(late);
        assert!(is_admitted(pin!(turns.next(5))).is_some());
    }
}
