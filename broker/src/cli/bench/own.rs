//! A broker for one run, in a temporary directory, for whoever measures a machine and runs none yet.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

use crate::cli::Error;

const START_DEADLINE: Duration = Duration::from_secs(30);
/// What the first line of a broker that runs says before its URL.
const BEFORE_URL: &str = "takes events at ";

/// Ends, with its directory, when it is dropped.
#[derive(Debug)]
pub struct OwnBroker {
    pub url: String,
    /// Killed when it is dropped, before its directory goes.
    _child: Child,
    _dir: Dir,
}

impl OwnBroker {
    /// Starts a broker whose triggers, so many, deliver to a path each of the address.
    pub async fn start(sink: SocketAddr, triggers: u32) -> Result<Self, Error> {
        let cannot =
            |error: std::io::Error| Error::failed_because("cannot start a broker for the run", error);
        let dir = Dir::new().map_err(cannot)?;
        let file = dir.0.join("sluice.yaml");
        std::fs::write(&file, configuration(sink, triggers)).map_err(cannot)?;
        let program = std::env::current_exe().map_err(cannot)?;
        let mut command = Command::new(program);
        command.arg("run").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().map_err(cannot)?;
        let said = child.stderr.take().ok_or_else(|| Error::failed("the broker of the run has no output"))?;
        let url = timeout(START_DEADLINE, url(BufReader::new(said))).await;
        let url =
            url.map_err(|elapsed| Error::failed_because("the broker of the run did not start", elapsed))??;
        Ok(Self { url, _child: child, _dir: dir })
    }
}

fn configuration(sink: SocketAddr, triggers: u32) -> String {
    let mut text = String::from(
        "http: { listen: 127.0.0.1:0 }\nadmin: { listen: 127.0.0.1:0 }\nstore: { dir: ./data }\ntriggers:\n",
    );
    for number in 1..=triggers {
        text.push_str(&format!("  bench-{number}: {{ sink: \"http://{sink}/{number}\" }}\n"));
    }
    text
}

/// Reads on behind the URL, so that the broker never waits for someone to read what it says.
async fn url(mut said: BufReader<ChildStderr>) -> Result<String, Error> {
    let (mut line, mut all) = (String::new(), String::new());
    loop {
        line.clear();
        let read = said.read_line(&mut line).await;
        let read = read.map_err(|error| Error::failed_because("cannot read what the broker says", error))?;
        if read == 0 {
            return Err(Error::failed(format!("the broker of the run did not start: {}", all.trim_end())));
        }
        if let Some((_, url)) = line.trim_end().split_once(BEFORE_URL) {
            let url = url.to_owned();
            tokio::spawn(async move { tokio::io::copy(&mut said, &mut tokio::io::sink()).await });
            return Ok(url);
        }
        all.push_str(&line);
    }
}

#[derive(Debug)]
struct Dir(PathBuf);

impl Dir {
    fn new() -> std::io::Result<Self> {
        let name = format!("sluice-bench-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // What is left is in the directory for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
