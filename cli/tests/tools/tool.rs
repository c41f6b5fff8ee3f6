//! A started `whimbrel`.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use crate::broker::Broker;

const PATIENCE: Duration = Duration::from_secs(15);

/// What a tool left behind.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Done {
    /// The output of one that ended well.
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// One line on stderr, and this exit code.
    pub fn fails(self, code: i32, what: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.stderr.contains(what), "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
    }
}

pub struct Tool {
    pub process: Child,
    stderr: BufReader<ChildStderr>,
    heard: String,
}

/// Starts `whimbrel COMMAND` with these words.
pub fn start(command: &str, words: &[&str]) -> Tool {
    spawn(Command::new(env!("CARGO_BIN_EXE_whimbrel")).arg(command).args(words))
}

/// The same with the broker's port, by way of a shell command that ends in running `"$0" "$@"`.
pub fn start_under(shell_command: &str, broker: &Broker, command: &str, words: &[&str]) -> Tool {
    let program = env!("CARGO_BIN_EXE_whimbrel");
    let port = broker.port.to_string();
    spawn(Command::new("sh").args(["-c", shell_command, program, command, "-p", &port]).args(words))
}

fn spawn(command: &mut Command) -> Tool {
    let mut process = command
        .env("TZ", "UTC")
        .env("XDG_CONFIG_HOME", "/nowhere")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = BufReader::new(process.stderr.take().unwrap());
    Tool { process, stderr, heard: String::new() }
}

/// Runs to the end without input.
pub fn run(command: &str, words: &[&str]) -> Done {
    start(command, words).done()
}

/// With the broker's port.
pub fn on(broker: &Broker, command: &str, words: &[&str]) -> Done {
    start_on(broker, command, words).done()
}

pub fn start_on(broker: &Broker, command: &str, words: &[&str]) -> Tool {
    let port = broker.port.to_string();
    start(command, &[&["-p", &port], words].concat())
}

/// A `sub` whose subscriptions are acknowledged.
pub fn subscribed(broker: &Broker, words: &[&str]) -> Tool {
    let mut tool = start_on(broker, "sub", &[&["-d"], words].concat());
    tool.wait_for("all subscriptions are answered");
    tool
}

impl Tool {
    /// Reads stderr up to a line with this text.
    pub fn wait_for(&mut self, text: &str) {
        let mut line = String::new();
        while self.stderr.read_line(&mut line).unwrap() > 0 {
            self.heard += &line;
            if line.contains(text) {
                return;
            }
            line.clear();
        }
        panic!("no {text} on stderr: {}", self.heard);
    }

    /// Writes to stdin, which stays open.
    pub fn write(&mut self, bytes: &[u8]) {
        self.process.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    }

    pub fn input(mut self, bytes: &[u8]) -> Tool {
        self.process.stdin.take().unwrap().write_all(bytes).unwrap();
        self
    }

    pub fn signal(&self, name: &str) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Closes stdin, and waits for the end; too long a wait fails.
    pub fn done(mut self) -> Done {
        drop(self.process.stdin.take());
        self.ended()
    }

    /// Waits for the end while stdin stays open.
    pub fn ended(mut self) -> Done {
        let stdin = self.process.stdin.take();
        let stdout = self.process.stdout.take();
        let output = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            stdout.map(|mut stdout| stdout.read_to_end(&mut bytes).unwrap());
            bytes
        });
        let until = Instant::now() + PATIENCE;
        let status = loop {
            match self.process.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() > until => {
                    self.process.kill().unwrap();
                    panic!("still running: {}", self.heard);
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        self.stderr.read_to_string(&mut self.heard).unwrap();
        drop(stdin);
        let stdout = String::from_utf8(output.join().unwrap()).unwrap();
        Done { code: status.code(), stdout, stderr: self.heard }
    }
}
