//! `whimbrel shell`: the topics of a broker, live, in a terminal.
//!
//! `model` is what is known and shown, without I/O; `view` draws it into a buffer; `driver` brings
//! it together with a terminal (`screen`) and a client.

mod dialog;
mod driver;
mod keys;
mod layout;
mod meter;
mod model;
mod payload;
mod rows;
mod screen;
mod topics;
mod value;
mod view;

#[cfg(test)]
mod tests;

use std::time::Duration;

use clap::Args;
use jiff::tz::TimeZone;
use whimbrel_codec::Version;

use crate::args::{Connection, QosArg};
use crate::failure::Failure;
use crate::topic;
use driver::{Driver, now_ms};
use model::Model;
use screen::Screen;
use topics::Limits;

/// How long leaving waits for what was published last.
const DRAIN: Duration = Duration::from_secs(2);

const HELP: &str = "\
Press ? for the keys. NO_COLOR in the environment switches colours off.
Memory is bounded: up to 50,000 levels of topics, the last 200 values of each, 64 MiB of values.
Options for each time may stand in ~/.config/whimbrel/shell, as for `whimbrel sub`.";

/// Watch the topics of a broker, live, and publish.
#[derive(Args, Debug)]
#[command(disable_help_flag = true, disable_version_flag = true)]
#[command(after_help = HELP)]
pub struct Shell {
    /// Topic filter to subscribe to; may be repeated. Others can be added and removed later.
    #[arg(short, long, value_name = "FILTER", default_value = "#")]
    topic: Vec<String>,
    /// Quality of service wanted.
    #[arg(short, long, default_value = "0")]
    qos: QosArg,
    #[command(flatten)]
    connection: Connection,
}

/// Connects, and shows what comes until told to end.
pub fn run(args: &Shell) -> Result<(), Failure> {
    // For properties, and to be told what is retained.
    let setup = args.connection.setup_for(Version::V5)?;
    let filters = match &setup.topic {
        Some(topic) => vec![topic.clone()],
        None => args.topic.clone(),
    };
    if let Some(filter) = filters.iter().find(|filter| !topic::is_filter(filter)) {
        return Err(Failure::usage(format!(
            "{filter:?} is not a topic filter: + must be a whole level, # the last one"
        )));
    }
    let lists = &setup.lists;
    if [&lists.publish, &lists.subscribe, &lists.unsubscribe].iter().any(|list| !list.is_empty()) {
        return Err(Failure::usage("shell takes -D for connect, disconnect and will alone"));
    }
    if !Screen::is_there() {
        return Err(Failure::usage("shell needs a terminal; for scripts there is `whimbrel sub`"));
    }
    let failed = |error: std::io::Error| Failure::new(1, format!("the terminal failed: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(1, format!("no event loop: {error}")))?;
    runtime.block_on(async {
        let client = setup
            .builder()
            .drain_timeout(DRAIN)
            .connect()
            .await
            .map_err(|error| setup.failure(&error))?;
        let mut model = Model::new(setup.address.to_string(), Limits::default(), now_ms());
        model.time_zone = TimeZone::system();
        // https://no-color.org
        model.colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let screen = Screen::open().map_err(failed)?;
        Driver::new(model, screen, client).run(&filters, args.qos.0).await.map_err(failed)
    })
}
