//! A mosquitto for one test.

use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub struct Broker {
    process: Child,
    pub port: u16,
    pub websocket_port: u16,
    pub unix: PathBuf,
    dir: PathBuf,
}

impl Broker {
    pub fn start() -> Broker {
        Broker::with("allow_anonymous true")
    }

    /// With further lines of configuration.
    pub fn with(lines: &str) -> Broker {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::SeqCst);
        let name = format!("whimbrel-tools-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        // Somebody else may take a port between its choice and its use.
        for _ in 0..5 {
            if let Some(broker) = Broker::try_start(lines, dir.clone()) {
                return broker;
            }
        }
        panic!("mosquitto does not start");
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    fn try_start(lines: &str, dir: PathBuf) -> Option<Broker> {
        let (port, websocket_port) = (free_port(), free_port());
        let unix = dir.join("socket");
        let config = format!(
            "user root\nlistener {port} 127.0.0.1\n\
             listener {websocket_port} 127.0.0.1\nprotocol websockets\n\
             listener 0 {}\n{lines}\n",
            unix.display()
        );
        let file = dir.join("mosquitto.conf");
        std::fs::write(&file, config).unwrap();
        let mut process = Command::new(program())
            .arg("-c")
            .arg(&file)
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto must be installed: run ./check");
        let until = Instant::now() + Duration::from_secs(5);
        while Instant::now() < until && process.try_wait().unwrap().is_none() {
            // Opened last, and nobody else's: another mosquitto may answer on a port that this one
            // did not get.
            if UnixStream::connect(&unix).is_ok()
                && [port, websocket_port]
                    .iter()
                    .all(|p| TcpStream::connect(("127.0.0.1", *p)).is_ok())
            {
                return Some(Broker { process, port, websocket_port, unix, dir });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        process.kill().unwrap();
        process.wait().unwrap();
        None
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        std::fs::remove_dir_all(&self.dir).unwrap();
    }
}

/// Debian keeps it where the search path of ordinary users does not go.
fn program() -> &'static str {
    let sbin = "/usr/sbin/mosquitto";
    if std::fs::exists(sbin).unwrap() { sbin } else { "mosquitto" }
}

pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}
