//! `sluice bench`: loads a broker and reports how fast it answers and delivers.
//!
//! It is made to share a small machine with the broker: requests are written out once and only their ids are
//! stamped, answers are read by the few bytes that matter, one thread drives all publishers and another receives
//! deliveries. An id holds the number of the event and the moment it was due, so that the receiver needs no table.

mod histogram;
mod load;
mod own;
mod receiver;
mod report;
mod request;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::str::FromStr;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::publish::{DEFAULT_URL, endpoint};
use super::time::duration;
use super::{Error, output};
use load::{Load, Pace, Tally};
use own::OwnBroker;
use receiver::Receiver;
use report::Report;
use request::{Run, Template};

/// Where the receiver of a run with a broker of its own listens.
const ANY_PORT: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));
const PUBLISHERS_MAX: u16 = 4096;
const DATA_BYTES_MAX: u32 = 16 << 20;
const BATCH_EVENTS_MAX: usize = 10_000;

/// Load a broker and report how fast it answers and delivers.
///
/// Every publisher has a connection of its own and sends one request at a time: as fast as it is answered, or, with
/// --rate, by a schedule that does not wait for slow answers (latency counts from the scheduled time). The events have
/// the type `com.example.bench` and the source `/bench`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sluice bench
  sluice bench --publishers 1 --size 1024 --duration 60s --json
  sluice bench --own-broker
  sluice bench --rate 2000 --sink 127.0.0.1:9000      a trigger sends to http://127.0.0.1:9000/")]
pub struct Args {
    /// Where the broker takes events [default: http://127.0.0.1:8080/events, or --own-broker if nobody listens there]
    #[arg(long, env = "SLUICE_URL")]
    url: Option<String>,
    /// Start a broker for the run, in a temporary directory
    #[arg(long)]
    own_broker: bool,
    /// How many publishers there are, each with a connection
    #[arg(long, default_value_t = 64, value_name = "N",
          value_parser = clap::value_parser!(u16).range(1..=i64::from(PUBLISHERS_MAX)))]
    publishers: u16,
    /// The size of each event's data
    #[arg(long, default_value_t = 1024, value_name = "BYTES",
          value_parser = clap::value_parser!(u32).range(0..=i64::from(DATA_BYTES_MAX)))]
    size: u32,
    /// Events a second, all publishers together; without it, as fast as they are answered
    #[arg(long, value_name = "R", value_parser = rate)]
    rate: Option<f64>,
    /// How long to publish
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = duration)]
    duration: Duration,
    /// How events are sent: `binary`, `structured` or `batch:N`
    #[arg(long, default_value = "binary", value_name = "MODE")]
    mode: Mode,
    /// Receive deliveries on this address, and count what is late, lost or duplicated
    #[arg(long, value_name = "ADDR")]
    sink: Option<SocketAddr>,
    /// How many triggers deliver each event to the sink, each to a path of its own
    #[arg(long, default_value_t = 1, value_name = "N", requires = "sink")]
    fanout: u32,
    /// Give up waiting for deliveries when none came for so long
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = duration, requires = "sink")]
    drain: Duration,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How events are put into requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Binary,
    Structured,
    Batch(usize),
}

impl Mode {
    fn events_per_request(self) -> usize {
        match self {
            Self::Binary | Self::Structured => 1,
            Self::Batch(events) => events,
        }
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("batch:").map(str::parse)) {
            ("binary", _) => Ok(Self::Binary),
            ("structured", _) => Ok(Self::Structured),
            (_, Some(Ok(events))) if (1..=BATCH_EVENTS_MAX).contains(&events) => Ok(Self::Batch(events)),
            (_, Some(_)) => Err(format!("a batch has 1 to {BATCH_EVENTS_MAX} events, as in `batch:100`")),
            (_, None) => Err("expected `binary`, `structured` or `batch:N`".into()),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Binary => formatter.write_str("binary"),
            Self::Structured => formatter.write_str("structured"),
            Self::Batch(events) => write!(formatter, "batch:{events}"),
        }
    }
}

impl Serialize for Mode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Nanoseconds since the run began; publishers and the receiver read the same one.
#[derive(Clone, Copy, Debug)]
struct Clock(Instant);

impl Clock {
    fn now_ns(self) -> u64 {
        // Runs are shorter than the 584 years that fit.
        self.0.elapsed().as_nanos() as u64
    }
}

pub async fn bench(args: Args) -> Result<(), Error> {
    let clock = Clock(Instant::now());
    let run = Run::new();
    let needs_broker =
        args.own_broker || args.url.is_none() && endpoint(DEFAULT_URL)?.connect().await.is_err();
    let sink = args.sink.or_else(|| needs_broker.then_some(ANY_PORT));
    let receiver = match sink {
        Some(address) => Some(Receiver::start(address, &run, clock)?),
        None => None,
    };
    // Lives until the run is over.
    let own = match &receiver {
        Some(receiver) if needs_broker => Some(OwnBroker::start(receiver.address, args.fanout).await?),
        _ => None,
    };
    if own.is_some() && !args.own_broker {
        eprintln!("no broker listens at {DEFAULT_URL}: the run has started one, in a temporary directory");
    }
    let url = own.as_ref().map(|own| own.url.as_str()).or(args.url.as_deref()).unwrap_or(DEFAULT_URL);
    let endpoint = endpoint(url)?;
    let template = Template::new(&run, &endpoint, args.mode, args.size as usize);
    let pace = args.rate.map_or(Pace::AsAnswered, |events_per_second| Pace::Scheduled {
        requests_per_second: events_per_second / args.mode.events_per_request() as f64,
    });
    let load = Load { endpoint, template, publishers: args.publishers, pace, duration: args.duration, clock };
    let tally = load.run().await?;

    let deliveries = match receiver {
        Some(receiver) => {
            let expected = tally.accepted * u64::from(args.fanout);
            receiver.wait_for(expected, args.drain).await;
            Some(receiver.finish(&tally, expected))
        }
        None => None,
    };
    let report = Report::new(&args, &tally, deliveries);
    output::print(&if args.json { report.json()? } else { report.text() })?;
    if tally.accepted == 0 {
        return Err(nothing_accepted(&tally, url));
    }
    Ok(())
}

fn nothing_accepted(tally: &Tally, url: &str) -> Error {
    Error::failed(format!("{url} accepted no event; refused {}, failed {}", tally.refused(), tally.failed))
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        Ok(_) | Err(_) => Err(format!("expected events a second, found `{text}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::Mode;

    #[test]
    fn a_mode_reads_as_it_is_written() {
        for text in ["binary", "structured", "batch:100"] {
            assert_eq!(text.parse::<Mode>().unwrap().to_string(), text);
        }
        for wrong in ["", "batch", "batch:0", "batch:x", "batch:10001"] {
            assert!(wrong.parse::<Mode>().is_err(), "{wrong}");
        }
    }
}
