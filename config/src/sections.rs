//! Everything that is not a trigger: listeners, the store, limits.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crate::diagnostic::{At, Problems};
use crate::keys::{Keys, boolean, choice, duration, size, text, texts, whole, whole_number, wrong};
use crate::model::{Admin, Config, Duplicates, Http, Limits, OnDamage, Store, Watermark};
use crate::tree::{Node, Value};
use crate::units::size_text;

pub(crate) const HTTP_KEYS: &[&str] = &["listen", "webhook_origins"];
pub(crate) const ADMIN_KEYS: &[&str] = &["listen", "open", "hosts"];
pub(crate) const STORE_KEYS: &[&str] =
    &["dir", "retention", "segment", "watermark", "outstanding", "on_damage", "removed_grace"];
pub(crate) const RETENTION_KEYS: &[&str] = &["age", "size"];
pub(crate) const WATERMARK_KEYS: &[&str] = &["stop", "resume", "free"];
pub(crate) const LIMITS_KEYS: &[&str] =
    &["event_bytes", "batch_bytes", "in_flight_bytes", "connections", "hops", "put_aside_bytes"];
pub(crate) const DUPLICATES_KEYS: &[&str] = &["window", "entries"];
pub(crate) const DEAD_LETTERS_KEYS: &[&str] = &["age"];
pub(crate) const ON_DAMAGE: &[(&str, OnDamage)] = &[("refuse", OnDamage::Refuse), ("skip", OnDamage::Skip)];

pub(crate) const OUTSTANDING: RangeInclusive<u64> = 1..=1_000_000_000;
pub(crate) const ENTRIES: RangeInclusive<u64> = 1..=1_000_000_000;
pub(crate) const CONNECTIONS: RangeInclusive<u64> = 1..=1_000_000;
pub(crate) const HOPS: RangeInclusive<u64> = 1..=255;
const DAY: u64 = 86_400;
const KEPT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3650 * DAY);
const GRACE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(365 * DAY);
const SHUTDOWN: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);
pub(crate) const EVENT_BYTES: RangeInclusive<u64> = 256..=(256 << 20);
const BODY_BYTES: RangeInclusive<u64> = 256..=(4 << 30);
const RETENTION_BYTES: RangeInclusive<u64> = (128 << 10)..=(1 << 50);
const SEGMENT_BYTES: RangeInclusive<u64> = (64 << 10)..=(4 << 30);
const FREE_BYTES: RangeInclusive<u64> = 0..=(1 << 50);

/// A section that may be absent.
pub(crate) type Section<'n> = Option<&'n Node>;

pub(crate) fn read_http(section: Section<'_>, problems: &mut Problems) -> Http {
    let keys = section.and_then(|node| Keys::of(node, "`http`", HTTP_KEYS, problems));
    let get = |key: &str| keys.as_ref().and_then(|keys| keys.get(key));
    let listen = get("listen").and_then(|node| {
        let address = read_address("http.listen", node, problems)?;
        if !address.ip().is_loopback() {
            let message = format!(
                "`http.listen`: {address} is open to the network, and whoever reaches it can publish"
            );
            problems.warning(node.at, message);
        }
        Some(address)
    });
    let webhook_origins = get("webhook_origins").map(|node| texts("webhook_origins", node, origin, problems));
    Http {
        listen: listen.unwrap_or_else(|| loopback(8080)),
        webhook_origins: webhook_origins.unwrap_or_default(),
    }
}

pub(crate) fn read_admin(section: Section<'_>, problems: &mut Problems) -> Admin {
    let keys = section.and_then(|node| Keys::of(node, "`admin`", ADMIN_KEYS, problems));
    let get = |key: &str| keys.as_ref().and_then(|keys| keys.get(key));
    let open = get("open").and_then(|node| boolean("open", node, problems)).unwrap_or(false);
    let listen = get("listen").and_then(|node| {
        let address = read_address("admin.listen", node, problems)?;
        if !address.ip().is_loopback() && !open {
            let message = format!(
                "`admin.listen`: {address} lets everyone on the network operate the broker: \
                 listen on 127.0.0.1, or say `open: true`"
            );
            problems.error(node.at, message);
        }
        Some(address)
    });
    let host = |host: &str| match host.contains('/') || host.contains(char::is_whitespace) {
        true => Err("expected a value of the Host header, such as sluice.example.com".into()),
        false => Ok(host.to_ascii_lowercase()),
    };
    let hosts = get("hosts").map(|node| texts("hosts", node, host, problems));
    Admin { listen: listen.unwrap_or_else(|| loopback(8081)), hosts: hosts.unwrap_or_default() }
}

/// Two listeners cannot share a port; 0 is any free one.
pub(crate) fn check_ports(http: &Http, admin: &Admin, at: Option<At>, problems: &mut Problems) {
    let (one, two) = (http.listen, admin.listen);
    let overlap = one.ip() == two.ip() || one.ip().is_unspecified() || two.ip().is_unspecified();
    if let (true, Some(at)) = (overlap && one.port() == two.port() && one.port() != 0, at) {
        let message = format!("`http` ({one}) and `admin` ({two}) listen on the same port");
        problems.error(at, message);
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn read_address(name: &str, node: &Node, problems: &mut Problems) -> Option<SocketAddr> {
    let text = text(name, node, problems)?;
    let expected = "expected ADDRESS:PORT such as 127.0.0.1:8080";
    let why = match text.rsplit_once(':') {
        None => expected.into(),
        Some((host, port)) => {
            let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
            let address: Option<IpAddr> = match literal {
                Some(literal) => literal.parse().ok().filter(IpAddr::is_ipv6),
                None => host.parse().ok().filter(IpAddr::is_ipv4),
            };
            let number = whole_number(port).and_then(|port| u16::try_from(port).ok());
            match (address, number) {
                (Some(address), Some(port)) => return Some(SocketAddr::new(address, port)),
                (Some(_), None) => "expected a port from 0 to 65535".into(),
                (None, _) if host == "localhost" => {
                    format!("names are not looked up here: write 127.0.0.1:{port}")
                }
                (None, _) if host.is_empty() => {
                    format!(
                        "the address is missing: write 127.0.0.1:{port}, or 0.0.0.0:{port} for every interface"
                    )
                }
                (None, _) => expected.into(),
            }
        }
    };
    wrong(name, node, &why, problems);
    None
}

/// A DNS name that asks for consent in the handshake.
fn origin(name: &str) -> Result<String, String> {
    let lower = name.to_ascii_lowercase();
    let label = |label: &str| {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        (1..=63).contains(&label.len()) && label.bytes().all(valid)
    };
    match lower.len() <= 253 && lower.split('.').all(label) {
        true => Ok(lower),
        false => Err("expected a DNS name such as events.example.com, without scheme and port".into()),
    }
}

/// `folder` is what the default directory is relative to; a directory that is named is relative to its file.
pub(crate) fn read_store(
    section: Section<'_>,
    folders: &[PathBuf],
    folder: &PathBuf,
    problems: &mut Problems,
) -> Store {
    let keys = section.and_then(|node| Keys::of(node, "`store`", STORE_KEYS, problems));
    let get = |key: &str| keys.as_ref().and_then(|keys| keys.get(key));
    let dir = get("dir").and_then(|node| {
        let folder = folders.get(node.at.file).unwrap_or(folder);
        text("dir", node, problems).map(|dir| folder.join(dir))
    });
    let retention =
        get("retention").and_then(|node| Keys::of(node, "`store.retention`", RETENTION_KEYS, problems));
    let of_retention = |key: &str| retention.as_ref().and_then(|keys| keys.get(key));
    let age = of_retention("age").and_then(|node| duration("age", node, KEPT, problems));
    let bytes = of_retention("size").and_then(|node| size("size", node, RETENTION_BYTES, problems));
    let segment = get("segment").and_then(|node| size("segment", node, SEGMENT_BYTES, problems));
    let outstanding = get("outstanding").and_then(|node| whole("outstanding", node, OUTSTANDING, problems));
    let on_damage = get("on_damage").and_then(|node| choice("on_damage", node, ON_DAMAGE, problems));
    let grace = get("removed_grace").and_then(|node| duration("removed_grace", node, GRACE, problems));
    let retention = bytes.unwrap_or(10 << 30);
    let store = Store {
        dir: dir.unwrap_or_else(|| folder.join("./data")),
        retention_age: age.unwrap_or(Duration::from_secs(7 * DAY)),
        retention_bytes: retention,
        segment_bytes: segment.unwrap_or(segment_within(retention)),
        watermark: read_watermark(get("watermark"), problems),
        outstanding: outstanding.unwrap_or(2_000_000) as usize,
        on_damage: on_damage.unwrap_or(OnDamage::Refuse),
        removed_grace: grace.unwrap_or(Duration::from_secs(DAY)),
    };
    if let (true, Some(node)) =
        (store.segment_bytes > store.retention_bytes / 2, of_retention("size").or_else(|| get("segment")))
    {
        let (size, segment) = (size_text(store.retention_bytes), size_text(store.segment_bytes));
        let message =
            format!("`retention.size` ({size}) holds fewer than two segments (`segment`: {segment})");
        problems.error(node.at, message);
    }
    store
}

/// The size of a segment that is not named: 64 MiB, or an eighth of a small store, which could retire nothing otherwise.
fn segment_within(retention_bytes: u64) -> u64 {
    const STEP: u64 = 64 << 10;
    (retention_bytes / 8 / STEP * STEP).clamp(*SEGMENT_BYTES.start(), 64 << 20)
}

/// Warns where segments are much larger than the file would have them.
pub(crate) fn warn_of_larger_segments(section: Section<'_>, config: &Config, problems: &mut Problems) {
    let needed = config.segment_bytes();
    if needed <= config.store.segment_bytes / 2 * 3 {
        return;
    }
    let (key, largest) = config.largest_append();
    let (size, largest) = (size_text(needed), size_text(largest as u64));
    let why = format!("what is stored at once (`{key}`: {largest}) has to fit in half of one");
    let named = section.and_then(|node| node.member("segment"));
    if let Some(node) = named {
        problems.warning(node.at, format!("`segment`: segments have {size}, because {why}"));
    }
    let retention = config.store.retention_bytes;
    let named = section.and_then(|node| node.member("retention")).and_then(|node| node.member("size"));
    if let (true, Some(node)) = (needed > retention / 2, named) {
        let retention = size_text(retention);
        let message = format!(
            "`retention.size` ({retention}) holds fewer than two segments, which have {size}, because {why}"
        );
        problems.warning(node.at, message);
    }
}

fn read_watermark(section: Section<'_>, problems: &mut Problems) -> Watermark {
    let keys = section.and_then(|node| Keys::of(node, "`store.watermark`", WATERMARK_KEYS, problems));
    let get = |key: &str| keys.as_ref().and_then(|keys| keys.get(key));
    let stop = get("stop").and_then(|node| read_percent("stop", node, problems));
    let resume = get("resume").and_then(|node| read_percent("resume", node, problems));
    let free = get("free").and_then(|node| size("free", node, FREE_BYTES, problems));
    let watermark = Watermark {
        stop_percent: stop.unwrap_or(95),
        resume_percent: resume.unwrap_or(90),
        free_bytes: free.unwrap_or(16 << 20),
    };
    if let (true, Some(node)) =
        (watermark.resume_percent >= watermark.stop_percent, get("resume").or_else(|| get("stop")))
    {
        let Watermark { stop_percent, resume_percent, .. } = watermark;
        let message = format!("`resume` ({resume_percent}%) must be below `stop` ({stop_percent}%)");
        problems.error(node.at, message);
    }
    watermark
}

fn read_percent(name: &str, node: &Node, problems: &mut Problems) -> Option<u8> {
    let text = text(name, node, problems)?;
    let number = text.strip_suffix('%').and_then(whole_number).filter(|number| (1..=100).contains(number));
    if number.is_none() {
        wrong(name, node, "expected a share from 1% to 100%", problems);
    }
    number.map(|number| number as u8)
}

pub(crate) fn read_limits(section: Section<'_>, problems: &mut Problems) -> Limits {
    let keys = section.and_then(|node| Keys::of(node, "`limits`", LIMITS_KEYS, problems));
    let get = |key: &str| keys.as_ref().and_then(|keys| keys.get(key));
    let bytes = |key: &str, range, problems: &mut Problems| {
        get(key).and_then(|node| size(key, node, range, problems)).map(|bytes| bytes as usize)
    };
    let number = |key: &str, range, default: u64, problems: &mut Problems| {
        get(key).and_then(|node| whole(key, node, range, problems)).unwrap_or(default)
    };
    let event = bytes("event_bytes", EVENT_BYTES, problems);
    let batch = bytes("batch_bytes", BODY_BYTES, problems);
    // Whoever names one limit is not asked for the others: those that are not named make room, or keep within it.
    let named = event.max(batch).unwrap_or(0);
    let in_flight = bytes("in_flight_bytes", BODY_BYTES, problems).unwrap_or(named.max(64 << 20));
    let limits = Limits {
        event_bytes: event.unwrap_or(in_flight.min(1 << 20)),
        batch_bytes: batch.unwrap_or(in_flight.min(8 << 20)),
        in_flight_bytes: in_flight,
        connections: number("connections", CONNECTIONS, 4096, problems) as usize,
        hops: number("hops", HOPS, 16, problems) as u32,
        put_aside_bytes: bytes("put_aside_bytes", BODY_BYTES, problems).unwrap_or(16 << 20),
    };
    for (name, bytes) in [("event_bytes", limits.event_bytes), ("batch_bytes", limits.batch_bytes)] {
        if let (true, Some(node)) = (bytes > in_flight, get(name)) {
            let (bytes, in_flight) = (size_text(bytes as u64), size_text(in_flight as u64));
            problems.error(node.at, format!("`{name}` ({bytes}) is above `in_flight_bytes` ({in_flight})"));
        }
    }
    limits
}

pub(crate) fn read_duplicates(section: Section<'_>, problems: &mut Problems) -> Option<Duplicates> {
    let standard = Duplicates { window: Duration::from_secs(600), entries: 1_000_000 };
    let Some(node) = section else { return Some(standard) };
    if let Value::Scalar(scalar) = &node.value
        && !node.is_null()
    {
        if scalar.text != "off" && scalar.text != "false" {
            wrong("duplicates", node, "expected off, or a mapping such as { window: 10m }", problems);
        }
        return None;
    }
    let Some(keys) = Keys::of(node, "`duplicates`", DUPLICATES_KEYS, problems) else { return Some(standard) };
    let window = keys.get("window").and_then(|node| duration("window", node, KEPT, problems));
    let entries = keys.get("entries").and_then(|node| whole("entries", node, ENTRIES, problems));
    Some(Duplicates {
        window: window.unwrap_or(standard.window),
        entries: entries.map_or(standard.entries, |entries| entries as usize),
    })
}

pub(crate) fn read_dead_letters(section: Section<'_>, problems: &mut Problems) -> Option<Duration> {
    let keys = Keys::of(section?, "`dead_letters`", DEAD_LETTERS_KEYS, problems)?;
    duration("age", keys.get("age")?, KEPT, problems)
}

pub(crate) fn read_shutdown_timeout(section: Section<'_>, problems: &mut Problems) -> Duration {
    let given = section.and_then(|node| duration("shutdown_timeout", node, SHUTDOWN, problems));
    given.unwrap_or(Duration::from_secs(20))
}
