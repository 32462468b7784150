//! `sluice bench`: loads a broker and reports how fast it answers and delivers.
use super::Error;
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(long)]
    json: bool,
}
pub fn bench(_args: &Args) -> Result<(), Error> {
    Err(Error::failed("not yet"))
}
