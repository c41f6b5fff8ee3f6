//! What happened, in words: kept only when somebody will read it.

use std::collections::VecDeque;

/// The last events, a line each.
#[derive(Debug, Default)]
pub struct Trace {
    /// Whether lines are made at all.
    pub on: bool,
    /// So many are kept.
    pub keep: usize,
    lines: VecDeque<String>,
}

impl Trace {
    /// Keeps the last `keep` lines; none if 0.
    pub fn new(keep: usize) -> Trace {
        Trace { on: keep > 0, keep, lines: VecDeque::new() }
    }

    /// Adds a line.
    pub fn push(&mut self, line: String) {
        if self.lines.len() >= self.keep {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// What is kept, the oldest first.
    pub fn into_lines(self) -> Vec<String> {
        self.lines.into()
    }
}

/// Adds a line to a trace if it is on: `note!(trace, now_ms, "...", ...)`.
#[macro_export]
macro_rules! note {
    ($trace:expr, $now:expr, $($what:tt)*) => {
        if $trace.on {
            let line = format!("{:>9}.{:03}  {}", $now / 1000, $now % 1000, format!($($what)*));
            $trace.push(line);
        }
    };
}
