//! Runs the client's scenarios against a broker: a line for each, its parts separated by tabs.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;
use whimbrel_client::Version;
use whimbrel_trials::scenarios::{self, Place};

/// Runs whimbrel-client's scenarios against a broker.
#[derive(Parser)]
struct Options {
    /// As mqtt://user:password@127.0.0.1:1883, or ws://...
    url: String,
    /// The version of MQTT: 3.1, 3.1.1 or 5.0.
    #[arg(long, default_value = "5.0", value_parser = version)]
    version: Version,
    /// Only scenarios whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Scenarios side by side.
    #[arg(long, default_value_t = 64)]
    at_once: usize,
}

fn version(text: &str) -> Result<Version, String> {
    match text {
        "3.1" => Ok(Version::V3_1),
        "3.1.1" => Ok(Version::V3_1_1),
        "5.0" => Ok(Version::V5),
        _ => Err("none of 3.1, 3.1.1 and 5.0".into()),
    }
}

#[tokio::main]
async fn main() {
    let options = Options::parse();
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let run = format!("{:x}", since.as_millis() % 0x1000_0000);
    let place = Place { url: options.url, version: options.version, run };
    let (mut passed, mut failed) = (0, 0);
    scenarios::run(&place, &options.only, options.at_once, |outcome| match outcome.result {
        Ok(()) => {
            passed += 1;
            println!("passed\t{}", outcome.name);
        }
        Err(why) => {
            failed += 1;
            let why = why.to_string().replace(['\n', '\t'], " ");
            println!("failed\t{}\t{why}", outcome.name);
        }
    })
    .await;
    if failed > 0 || passed == 0 {
        std::process::exit(1);
    }
}
