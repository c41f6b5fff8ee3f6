//! The flags that say what is published, of `pub` and `rr`.

use std::io::Read;
use std::path::PathBuf;

use clap::Args;

use crate::failure::Failure;

/// One of them is given; the group `payload` sees to that.
#[derive(Args, Debug)]
pub struct PayloadArgs {
    /// Publish this text.
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true, group = "payload")]
    #[arg(help_heading = "Payload")]
    message: Option<String>,
    /// Publish the content of a file as one message.
    #[arg(short, long, group = "payload", help_heading = "Payload")]
    file: Option<PathBuf>,
    /// Publish all of stdin as one message.
    #[arg(short, long, group = "payload", help_heading = "Payload")]
    stdin_file: bool,
    /// Publish an empty message.
    #[arg(short, long, group = "payload", help_heading = "Payload")]
    null_message: bool,
}

impl PayloadArgs {
    /// Reads it from where it is; empty if another flag of the group was given.
    pub fn read(&self) -> Result<Vec<u8>, Failure> {
        if let Some(path) = &self.file {
            let named = |error| Failure::usage(format!("-f {}: {error}", path.display()));
            return std::fs::read(path).map_err(named);
        }
        let mut payload = Vec::new();
        if self.stdin_file {
            let read = std::io::stdin().lock().read_to_end(&mut payload);
            read.map_err(|error| Failure::new(1, format!("cannot read stdin: {error}")))?;
        } else if let Some(message) = &self.message {
            payload.extend_from_slice(message.as_bytes());
        }
        Ok(payload)
    }
}
