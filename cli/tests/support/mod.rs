//! A broker process, and a client of a few bytes, written out by hand.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Longer than anything takes unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A running `whimbrel broker`; killed when dropped.
pub struct Broker {
    pub child: Child,
    /// Lines on stdout up to `ready`.
    pub lines: Vec<String>,
    folder: PathBuf,
}

impl Broker {
    /// Starts with this configuration file (`{folder}` stands for a folder of its own).
    pub fn with_file(text: &str) -> Broker {
        let folder = new_folder();
        let text = text.replace("{folder}", &folder.display().to_string());
        let file = folder.join("whimbrel.toml");
        std::fs::write(&file, text).expect("a file");
        Broker::start(folder, &mut whimbrel(&["--config", &file.display().to_string()]))
    }

    /// Starts on any free port with these flags.
    pub fn with_flags(flags: &[&str]) -> Broker {
        let flags = [&["--port", "0", "--no-websocket"], flags].concat();
        Broker::start(new_folder(), &mut whimbrel(&flags))
    }

    /// The same, by way of a shell command that ends in running `"$0" "$@"`.
    pub fn under_shell(shell_command: &str, flags: &[&str]) -> Broker {
        let program = env!("CARGO_BIN_EXE_whimbrel");
        let mut command = Command::new("sh");
        command.args(["-c", shell_command, program, "broker", "--port", "0", "--no-websocket"]);
        command.args(flags).env("RUST_LOG", "off");
        Broker::start(new_folder(), &mut command)
    }

    /// Starts by this command; the folder is removed in the end.
    pub fn start(folder: PathBuf, command: &mut Command) -> Broker {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let mut lines = Vec::new();
        for line in BufReader::new(child.stdout.take().expect("a pipe")).lines() {
            let line = line.expect("text");
            let is_ready = line == "ready";
            lines.push(line);
            if is_ready {
                return Broker { child, lines, folder };
            }
        }
        panic!("the broker did not start: {:?} {lines:?}", child.wait());
    }

    /// The address of the first listener of this kind.
    pub fn address(&self, transport: &str) -> String {
        let prefix = format!("listening {transport} ");
        let line = self.lines.iter().find_map(|line| line.strip_prefix(&prefix));
        line.expect("such a listener").to_owned()
    }

    /// Replaces the configuration file and has it read.
    pub fn reload(&self, text: &str) {
        std::fs::write(self.folder.join("whimbrel.toml"), text).expect("a file");
        self.signal("HUP");
    }

    pub fn signal(&self, name: &str) {
        let mut kill = Command::new("kill");
        kill.args([format!("-{name}"), self.child.id().to_string()]);
        assert!(kill.status().expect("kill runs").success());
    }

    /// The exit code, once it has ended.
    pub fn wait(&mut self) -> Option<i32> {
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the broker did not end");
    }

    pub fn tcp(&self) -> Client<TcpStream> {
        let stream = TcpStream::connect(self.address("tcp")).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("an option");
        stream.set_nodelay(true).expect("an option");
        Client(stream)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// `whimbrel broker` with these flags, without the variables of whoever runs the tests.
pub fn whimbrel(flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_whimbrel"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("WHIMBREL_")) {
        command.env_remove(name);
    }
    command.arg("broker").args(flags).env("RUST_LOG", "off");
    command
}

/// Runs to its end: exit code, stdout, stderr.
pub fn outcome(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (status.code(), text(stdout), text(stderr))
}

pub fn new_folder() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("whimbrel-test-{}-{number}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// A client of MQTT 5.0 on any stream.
pub struct Client<S>(pub S);

impl<S: Read + Write> Client<S> {
    pub fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("the broker reads");
    }

    /// Connects, and gives CONNACK.
    pub fn connect(&mut self, client_id: &str) -> Vec<u8> {
        self.send(&connect(client_id));
        let connack = self.packet();
        assert_eq!((connack[0], connack[3]), (0x20, 0), "CONNACK with success");
        connack
    }

    pub fn subscribe(&mut self, filter: &str) {
        self.send(&subscribe(filter));
        assert_eq!(self.packet()[0], 0x90, "SUBACK");
    }

    /// The next packet, whole.
    pub fn packet(&mut self) -> Vec<u8> {
        let mut packet = vec![self.byte()];
        let (mut len, mut shift) = (0, 0);
        loop {
            let byte = self.byte();
            packet.push(byte);
            len |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let start = packet.len();
        packet.resize(start + len, 0);
        self.0.read_exact(&mut packet[start..]).expect("a whole packet");
        packet
    }

    fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.0.read_exact(&mut byte).expect("a packet");
        byte[0]
    }

    /// True if the broker closes the connection before it sends anything else.
    pub fn is_closed(&mut self) -> bool {
        matches!(self.0.read(&mut [0; 16]), Ok(0))
    }
}

/// A CONNECT of 5.0 with Clean Start and without keep alive.
pub fn connect(client_id: &str) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 0, 0];
    body.extend(text(client_id));
    packet(0x10, &body)
}

/// A SUBSCRIBE at QoS 1 with packet identifier 1.
pub fn subscribe(filter: &str) -> Vec<u8> {
    let mut body = vec![0, 1, 0];
    body.extend(text(filter));
    body.push(1);
    packet(0x82, &body)
}

/// A PUBLISH at QoS 0.
pub fn publish(topic: &str, payload: &[u8]) -> Vec<u8> {
    let mut body = text(topic);
    body.push(0);
    body.extend(payload);
    packet(0x30, &body)
}

/// A PUBLISH at QoS 1 with packet identifier 1.
pub fn publish_qos1(topic: &str, payload: &[u8]) -> Vec<u8> {
    let mut body = text(topic);
    body.extend([0, 1, 0]);
    body.extend(payload);
    packet(0x32, &body)
}

fn text(text: &str) -> Vec<u8> {
    let len = u16::try_from(text.len()).expect("short").to_be_bytes();
    [&len[..], text.as_bytes()].concat()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut len = body.len();
    loop {
        let more = if len > 0x7f { 0x80 } else { 0 };
        out.push((len & 0x7f) as u8 | more);
        len >>= 7;
        if more == 0 {
            break;
        }
    }
    out.extend(body);
    out
}
