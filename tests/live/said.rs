//! What the log of this process has said.

use std::fmt::Write as _;
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber, span};

static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps warnings and worse from now on.
pub fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(Ear).expect("nobody else listens"));
}

/// Waits for a line with all of these words.
pub async fn until(words: &[&str]) {
    let holds = || {
        SAID.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .any(|line| words.iter().all(|word| line.contains(word)))
    };
    let since = std::time::Instant::now();
    while !holds() {
        assert!(since.elapsed() < crate::rig::DEADLINE, "nobody said {words:?}: {:?}", SAID.lock());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

struct Ear;

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing into a String cannot fail.
        let _ = write!(self.0, "{field}={value:?} ");
    }
}

impl Subscriber for Ear {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        SAID.lock().unwrap_or_else(PoisonError::into_inner).push(line.0);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}
