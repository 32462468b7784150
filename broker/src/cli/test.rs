//! `sluice test`: the tests of a configuration.

use std::path::PathBuf;

use serde_json::json;

use super::Error;
use super::output::{escaped, print, print_json};
use crate::testing::{self, Report};
use crate::transform::Pool;

/// Run the tests of a configuration, without a broker.
///
/// Tests stand under `tests:` beside the triggers, or in files `*_test.yaml` in the same directory.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sluice test sluice.yaml
  sluice test triggers/ --json

Exit codes: 0 all tests passed, 1 some did not, 78 wrong configuration.")]
pub struct Args {
    /// Configuration files, or directories of them
    #[arg(value_name = "FILE|DIR", default_value = ".")]
    paths: Vec<PathBuf>,
    /// Print the result of each test as JSON
    #[arg(long)]
    json: bool,
}

pub async fn test(args: Args) -> Result<(), Error> {
    let env = |name: &str| std::env::var(name).ok();
    let loaded = sluice_config::load_with_tests(&args.paths, &env)
        .map_err(|errors| Error::Configuration(errors.to_string()))?;
    for warning in &loaded.warnings {
        eprintln!("{warning}");
    }
    if loaded.tests.is_empty() {
        return Err(Error::failed(
            "there are no tests: write some under `tests:`, or in a file `*_test.yaml`",
        ));
    }
    let pool = Pool::default();
    let mut reports = Vec::new();
    for test in &loaded.tests {
        let report = testing::run(test, &loaded.config, &pool).await;
        if !args.json {
            print(&described(&report))?;
        }
        reports.push(report);
    }
    let failed = reports.iter().filter(|report| !report.passed).count();
    if args.json {
        print_json(&json!(reports).to_string())?;
    } else {
        print(&format!("{} passed, {failed} failed\n", reports.len() - failed))?;
    }
    if failed > 0 {
        return Err(Error::failed(format!("{failed} of {} tests failed", reports.len())));
    }
    Ok(())
}

fn described(report: &Report) -> String {
    if report.passed {
        return format!("ok      {}\n", escaped(&report.name));
    }
    let mut text = format!("FAILED  {} ({})\n", escaped(&report.name), escaped(&report.at));
    for difference in &report.failures {
        text += &format!("        {}\n", escaped(&difference.what));
        text += &format!("          - {}\n", escaped(&difference.expected));
        text += &format!("          + {}\n", escaped(&difference.actual));
    }
    text
}
