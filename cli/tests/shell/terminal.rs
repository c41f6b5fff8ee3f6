//! A terminal with `whimbrel shell` in it, and what stands on its screen.

use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use vt100::{MouseProtocolMode, Parser};

/// Longer than anything takes unless it is broken.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Terminal {
    child: Box<dyn Child + Send + Sync>,
    master: Box<dyn MasterPty + Send>,
    keys: Box<dyn Write + Send>,
    screen: Arc<Mutex<Parser>>,
}

impl Terminal {
    /// A terminal of 80 by 24.
    pub fn start(flags: &[String]) -> Terminal {
        let size = PtySize { rows: 24, cols: 80, pixel_width: 0, pixel_height: 0 };
        let pty = native_pty_system().openpty(size).expect("a terminal");
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_whimbrel"));
        command.arg("shell");
        command.args(flags);
        command.env("TERM", "xterm-256color");
        let child = pty.slave.spawn_command(command).expect("it starts");
        let (rows, columns) = (non_zero(24), non_zero(80));
        let screen = Arc::new(Mutex::new(Parser::new(rows, columns, 0)));
        let mut output = pty.master.try_clone_reader().expect("a reader");
        let seen = screen.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len @ 1..) = output.read(&mut buffer) {
                seen.lock().expect("a screen").process(&buffer[..len]);
            }
        });
        let keys = pty.master.take_writer().expect("a writer");
        Terminal { child, master: pty.master, keys, screen }
    }

    pub fn keys(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("it reads");
    }

    /// What is on the screen.
    pub fn text(&self) -> String {
        self.screen.lock().expect("a screen").screen().contents()
    }

    pub fn wait_for(&self, wanted: &str) {
        self.wait_until(wanted, |text| text.contains(wanted));
    }

    pub fn wait_while(&self, what: &str, mut is_so: impl FnMut(&str) -> bool) {
        self.wait_until(what, |text| !is_so(text));
    }

    pub fn wait_until(&self, what: &str, mut is_so: impl FnMut(&str) -> bool) {
        let begin = Instant::now();
        while !is_so(&self.text()) {
            assert!(begin.elapsed() < PATIENCE, "waited for {what} and saw\n{}", self.text());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn resize(&self, rows: u16, cols: u16) {
        let size = PtySize { rows, cols, pixel_width: 0, pixel_height: 0 };
        let (rows, cols) = (non_zero(rows), non_zero(cols));
        self.screen.lock().expect("a screen").screen_mut().set_size(rows, cols);
        self.master.resize(size).expect("a terminal");
    }

    pub fn signal(&self, name: &str) {
        let id = self.child.process_id().expect("a process").to_string();
        let kill = Command::new("kill").args([format!("-{name}"), id]).status();
        assert!(kill.expect("kill runs").success());
    }

    /// Whether it is still as the shell needs it.
    pub fn is_taken(&self) -> bool {
        let parser = self.screen.lock().expect("a screen");
        let screen = parser.screen();
        screen.alternate_screen()
            || screen.hide_cursor()
            || screen.bracketed_paste()
            || screen.mouse_protocol_mode() != MouseProtocolMode::None
    }

    /// Leaves by the key, and finds the terminal as it was.
    pub fn quit(mut self) {
        self.keys("q");
        self.wait_end(0);
        assert!(!self.is_taken());
    }

    pub fn wait_end(&mut self, code: u32) {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                assert_eq!(status.exit_code(), code, "{}", self.text());
                break;
            }
            assert!(begin.elapsed() < PATIENCE, "it does not end\n{}", self.text());
            std::thread::sleep(Duration::from_millis(10));
        }
        // What it wrote last may not have been read yet.
        while self.is_taken() && begin.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn non_zero(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).expect("not 0")
}
