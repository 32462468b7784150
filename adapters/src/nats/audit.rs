//! Whether a stream and its consumer keep what is not read yet.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType};

/// Why messages of a stream may be gone before they are read by a consumer that has them delivered so often, if there is
/// anything.
pub fn may_lose(stream: &Config, max_deliver: i64) -> Option<String> {
    let mut why = Vec::new();
    if stream.storage == StorageType::Memory {
        why.push("its storage is memory".to_owned());
    }
    if stream.max_age > Duration::ZERO {
        why.push(format!("its max_age is {:?}", stream.max_age));
    }
    if stream.discard == DiscardPolicy::Old {
        let limits = [
            ("max_msgs", stream.max_messages),
            ("max_bytes", stream.max_bytes),
            ("max_msgs_per_subject", stream.max_messages_per_subject),
        ];
        let set = limits.into_iter().filter(|(_, limit)| *limit > 0);
        why.extend(set.map(|(name, limit)| format!("it drops the oldest beyond its {name} of {limit}")));
    }
    if max_deliver > 0 {
        why.push(format!("the consumer's max_deliver is {max_deliver}"));
    }
    (!why.is_empty()).then(|| why.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(config: &Config, expected: Option<&str>) {
        assert_eq!(may_lose(config, -1).as_deref(), expected);
    }

    #[test]
    fn what_bounds_a_stream_may_lose_what_nobody_has_read() {
        let unlimited = || Config { max_messages: -1, max_bytes: -1, ..Config::default() };
        check(&unlimited(), None);
        assert_eq!(may_lose(&unlimited(), 5).as_deref(), Some("the consumer's max_deliver is 5"));
        check(&Config { max_bytes: 1024, discard: DiscardPolicy::New, ..unlimited() }, None);
        check(
            &Config { max_bytes: 1024, max_messages_per_subject: 1, ..unlimited() },
            Some(
                "it drops the oldest beyond its max_bytes of 1024, it drops the oldest beyond its max_msgs_per_subject of 1",
            ),
        );
        check(
            &Config { storage: StorageType::Memory, max_age: Duration::from_secs(60), ..unlimited() },
            Some("its storage is memory, its max_age is 60s"),
        );
    }
}
