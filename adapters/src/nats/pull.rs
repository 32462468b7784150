//! Pulling from a durable consumer.
//!
//! One request at a time, and for no more than there is room for: whatever the server has sent is with the source at once, which
//! tells the server that work on it goes on. A client that fetches ahead would hold messages that nobody speaks for, and they
//! would be delivered again when their time is up.

use std::future::pending;
use std::time::Duration;

use async_nats::jetstream::consumer::pull::BatchConfig;
use async_nats::jetstream::consumer::{self, Config, PullConsumer, ReplayPolicy};
use async_nats::{Message, StatusCode, Subscriber, jetstream};
use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout_at};

use crate::feed::Room;

const MESSAGES_MAX: usize = 512;
const EXPIRES_MIN: Duration = Duration::from_secs(10);
/// One may be a message that came when the request had just ended.
const IN_VAIN_MAX: u32 = 3;

/// The messages of a consumer.
pub struct Pull {
    consumer: PullConsumer,
    context: jetstream::Context,
    inbox: String,
    answers: Subscriber,
    limits: Limits,
    requests: u64,
    open: Option<Request>,
    /// The next message is larger than what was asked for: it is asked for alone.
    is_large: bool,
    /// Requests in a row that brought nothing although messages were waiting.
    in_vain: u32,
}

/// What the server sends to until it is over.
struct Request {
    reply: String,
    asked: usize,
    left: usize,
    /// `None` where there is no limit.
    bytes_left: Option<usize>,
    heard: Instant,
}

impl Request {
    fn took(&mut self, bytes: usize) {
        self.heard = Instant::now();
        self.left = self.left.saturating_sub(1);
        // Whoever counts more than the server does cannot tell when its bytes are used up.
        self.bytes_left = self.bytes_left.and_then(|left| left.checked_sub(bytes));
    }

    /// The server says nothing when the messages, or the bytes to the last, are used up.
    fn is_over(&self) -> bool {
        self.left == 0 || self.bytes_left == Some(0)
    }
}

/// What one request may ask for.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Limits {
    messages: usize,
    /// 0 is no limit.
    bytes: usize,
    expires: Duration,
    heartbeat: Duration,
}

impl Limits {
    /// As far as the consumer allows. The server refuses heartbeats that do not fit twice into a request.
    fn of(config: &Config, heartbeat: Duration) -> Self {
        let positive = |limit: i64| usize::try_from(limit).unwrap_or(0);
        let messages = match positive(config.max_batch) {
            0 => MESSAGES_MAX,
            limit => limit.min(MESSAGES_MAX),
        };
        let mut expires = (heartbeat * 3).max(EXPIRES_MIN);
        if !config.max_expires.is_zero() {
            expires = expires.min(config.max_expires);
        }
        Self { messages, bytes: positive(config.max_bytes), expires, heartbeat: heartbeat.min(expires / 2) }
    }

    fn request(&self, room: Room, is_large: bool) -> BatchConfig {
        let (batch, max_bytes) = match (is_large, self.bytes) {
            (true, _) => (1, 0),
            (false, 0) => (room.records.min(self.messages), room.bytes),
            (false, limit) => (room.records.min(self.messages), room.bytes.min(limit)),
        };
        BatchConfig {
            batch,
            max_bytes,
            expires: Some(self.expires),
            idle_heartbeat: self.heartbeat,
            ..BatchConfig::default()
        }
    }
}

/// What a message without a payload of its own says about the request.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Alive,
    Over,
    /// Over, because its time is up.
    Expired,
    /// Over, because the next message is larger than all that was asked for.
    TooLarge,
    Failed(String),
}

impl Pull {
    pub async fn open(
        consumer: PullConsumer,
        context: jetstream::Context,
        heartbeat: Duration,
    ) -> Result<Self, String> {
        let limits = Limits::of(&consumer.cached_info().config, heartbeat);
        let inbox = context.client().new_inbox();
        let answers =
            context.client().subscribe(format!("{inbox}.*")).await.map_err(|error| error.to_string())?;
        let (requests, open, is_large, in_vain) = (0, None, false, 0);
        Ok(Self { consumer, context, inbox, answers, limits, requests, open, is_large, in_vain })
    }

    /// The next message; with no room and nothing asked for, there is none. Dropping the future loses nothing.
    pub async fn next(&mut self, room: Room) -> Result<jetstream::Message, String> {
        loop {
            let Some(request) = &mut self.open else {
                if room.is_none() {
                    return pending().await;
                }
                self.ask(room).await?;
                continue;
            };
            // What is there already counts, however late somebody looks.
            let answer = timeout_at(request.heard + self.limits.heartbeat * 2, self.answers.next()).await;
            let answer = answer.map_err(|_| "the server's heartbeats stay away".to_owned())?;
            let message = answer.ok_or_else(|| "the server ended the subscription".to_owned())?;
            let Some(status) = message.status.filter(|status| *status != StatusCode::OK) else {
                return Ok(self.took(message));
            };
            // A request that is over may have a last word.
            if *message.subject != *request.reply {
                continue;
            }
            request.heard = Instant::now();
            match said(status, message.description.as_deref().unwrap_or_default()) {
                Said::Alive => {}
                Said::Over => self.open = None,
                Said::Expired => {
                    let was_in_vain = request.left == request.asked;
                    self.open = None;
                    if was_in_vain {
                        self.look().await?;
                    }
                }
                Said::TooLarge => (self.open, self.is_large) = (None, true),
                Said::Failed(why) => return Err(why),
            }
        }
    }

    /// A server may lose track of a consumer and go on with its heartbeats: messages wait, and none comes.
    async fn look(&mut self) -> Result<(), String> {
        let info = self.consumer.get_info().await.map_err(|error| error.to_string())?;
        self.in_vain = if is_held_back(&info) { self.in_vain + 1 } else { 0 };
        match self.in_vain {
            IN_VAIN_MAX.. => Err(format!("{} messages wait and none is delivered", info.num_pending)),
            _ => Ok(()),
        }
    }

    fn took(&mut self, message: Message) -> jetstream::Message {
        (self.is_large, self.in_vain) = (false, 0);
        if let Some(request) = &mut self.open {
            request.took(message.length);
            if request.is_over() {
                self.open = None;
            }
        }
        jetstream::Message { message, context: self.context.clone() }
    }

    async fn ask(&mut self, room: Room) -> Result<(), String> {
        let batch = self.limits.request(room, self.is_large);
        self.requests += 1;
        let reply = format!("{}.{}", self.inbox, self.requests);
        let (asked, bytes) = (batch.batch, batch.max_bytes);
        let sent = self.consumer.request_batch(batch, reply.clone().into()).await;
        sent.map_err(|error| error.to_string())?;
        let bytes_left = (bytes > 0).then_some(bytes);
        self.open = Some(Request { reply, asked, left: asked, bytes_left, heard: Instant::now() });
        Ok(())
    }
}

/// Whether messages wait for a consumer that nothing keeps from delivering them: one that replays at the original speed lets the
/// next wait for as long as it waited then.
fn is_held_back(info: &consumer::Info) -> bool {
    let is_instant = info.config.replay_policy == ReplayPolicy::Instant;
    info.num_pending > 0 && info.num_ack_pending == 0 && !info.paused && is_instant
}

fn said(status: StatusCode, description: &str) -> Said {
    match status {
        StatusCode::IDLE_HEARTBEAT => Said::Alive,
        StatusCode::TIMEOUT | StatusCode::NOT_FOUND => Said::Expired,
        StatusCode::REQUEST_TERMINATED => match description {
            "Message Size Exceeds MaxBytes" => Said::TooLarge,
            // Whoever leads next is asked again.
            "Batch Completed" | "Leadership Change" | "Server Shutdown" => Said::Over,
            why => Said::Failed(why.to_lowercase()),
        },
        StatusCode::NO_RESPONDERS => Said::Failed("nobody answers to requests for messages".into()),
        _ => Said::Failed(format!("{status} {description}").trim_end().to_lowercase()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ROOM: Room = Room { records: 1000, bytes: 4096 };

    fn asked(config: &Config, room: Room, is_large: bool) -> String {
        let batch = Limits::of(config, Duration::from_secs(5)).request(room, is_large);
        let expires = batch.expires.unwrap_or_default();
        let BatchConfig { batch, max_bytes, idle_heartbeat, .. } = batch;
        format!("{batch} messages, {max_bytes} bytes, {expires:?}, {idle_heartbeat:?}")
    }

    #[test]
    fn no_more_is_asked_for_than_there_is_room_and_the_consumer_allows() {
        let any = Config::default();
        assert_eq!(asked(&any, ROOM, false), "512 messages, 4096 bytes, 15s, 5s");
        assert_eq!(asked(&any, Room { records: 3, bytes: 1 }, false), "3 messages, 1 bytes, 15s, 5s");
        assert_eq!(asked(&any, ROOM, true), "1 messages, 0 bytes, 15s, 5s");
        let strict =
            Config { max_batch: 7, max_bytes: 100, max_expires: Duration::from_secs(4), ..Config::default() };
        assert_eq!(asked(&strict, ROOM, false), "7 messages, 100 bytes, 4s, 2s");
        // Unlimited is written so, too.
        let unlimited = Config { max_batch: -1, max_bytes: -1, ..Config::default() };
        assert_eq!(asked(&unlimited, ROOM, false), "512 messages, 4096 bytes, 15s, 5s");
    }

    #[test]
    fn messages_that_wait_for_nothing_are_held_back() {
        let replayed = |num_pending: u64, num_ack_pending: usize, paused: bool, replay_policy: &str| {
            let sequence = json!({ "consumer_seq": 0, "stream_seq": 0 });
            let info = json!({
                "stream_name": "S", "name": "c", "created": "2026-01-01T00:00:00Z", "delivered": sequence, "ack_floor": sequence,
                "config": { "deliver_policy": "all", "ack_policy": "explicit", "replay_policy": replay_policy },
                "num_ack_pending": num_ack_pending, "num_redelivered": 0, "num_waiting": 0, "num_pending": num_pending,
                "paused": paused,
            });
            serde_json::from_value::<consumer::Info>(info).expect("as the server writes it")
        };
        let info = |pending, unacknowledged, paused| replayed(pending, unacknowledged, paused, "instant");
        assert!(is_held_back(&info(1, 0, false)));
        assert!(!is_held_back(&replayed(1, 0, false, "original")));
        for (pending, unacknowledged, paused) in [(0, 0, false), (1, 1, false), (1, 0, true)] {
            assert!(!is_held_back(&info(pending, unacknowledged, paused)));
        }
    }

    #[test]
    fn a_status_goes_on_ends_the_request_or_the_session() {
        let failed = |why: &str| Said::Failed(why.into());
        for (code, description, expected) in [
            (100, "Idle Heartbeat", Said::Alive),
            (408, "Request Timeout", Said::Expired),
            (409, "Batch Completed", Said::Over),
            (409, "Leadership Change", Said::Over),
            (409, "Message Size Exceeds MaxBytes", Said::TooLarge),
            (409, "Consumer Deleted", failed("consumer deleted")),
            (409, "Exceeded MaxWaiting", failed("exceeded maxwaiting")),
            (503, "", failed("nobody answers to requests for messages")),
            (400, "Bad Request - priority group missing", failed("400 bad request - priority group missing")),
        ] {
            let status = StatusCode::from_u16(code).unwrap();
            assert_eq!(said(status, description), expected, "{code} {description}");
        }
    }
}
