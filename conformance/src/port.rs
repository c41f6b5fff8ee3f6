//! What the tests need of a broker: connections, and time that passes.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// A broker under test.
pub trait Broker {
    /// A fresh network connection; the error says why there is none.
    fn open(&self) -> Result<Box<dyn Connection>, String>;

    /// Lets this much time pass for the broker.
    fn advance(&self, time: Duration);

    /// How long to wait for what must come.
    fn patience(&self) -> Duration;

    /// How long to listen for what must not come.
    fn silence(&self) -> Duration;
}

/// The client's end of a network connection.
pub trait Connection {
    /// Sends `bytes`. That the broker has closed shows in [`Connection::receive`] alone.
    fn send(&mut self, bytes: &[u8]);

    /// Sends `bytes` as a WebSocket text frame; false, and nothing sent, where there are no frames.
    fn send_text(&mut self, _bytes: &[u8]) -> bool {
        false
    }

    /// True where each [`Connection::send`] is a WebSocket frame.
    fn has_frames(&self) -> bool {
        false
    }

    /// Appends to `bytes` what comes within `timeout`.
    fn receive(&mut self, timeout: Duration, bytes: &mut Vec<u8>) -> Received;

    /// Ends the connection and returns when the broker has noticed, as far as that can be seen.
    fn close(&mut self);
}

/// What [`Connection::receive`] saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// Bytes were appended.
    Bytes,
    /// Nothing came in time.
    Nothing,
    /// The broker has closed the connection.
    Closed,
}

/// A broker that listens on a TCP port.
#[derive(Clone, Copy, Debug)]
pub struct Tcp {
    /// Where it listens.
    pub address: SocketAddr,
}

impl Tcp {
    pub(crate) fn connect(&self) -> Result<TcpStream, String> {
        TcpStream::connect_timeout(&self.address, self.patience())
            .and_then(|stream| {
                stream.set_nodelay(true)?;
                stream.set_write_timeout(Some(self.patience()))?;
                Ok(stream)
            })
            .map_err(|error| format!("cannot connect to {}: {error}", self.address))
    }
}

impl Broker for Tcp {
    fn open(&self) -> Result<Box<dyn Connection>, String> {
        Ok(Box::new(self.connect()?))
    }

    fn advance(&self, time: Duration) {
        std::thread::sleep(time);
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(5)
    }

    fn silence(&self) -> Duration {
        Duration::from_millis(250)
    }
}

impl Connection for TcpStream {
    fn send(&mut self, bytes: &[u8]) {
        let _ = self.write_all(bytes);
    }

    fn receive(&mut self, timeout: Duration, bytes: &mut Vec<u8>) -> Received {
        let mut chunk = [0; 16 * 1024];
        // A timeout of zero would mean to wait for ever.
        let timeout = timeout.max(Duration::from_millis(1));
        if self.set_read_timeout(Some(timeout)).is_err() {
            return Received::Closed;
        }
        match self.read(&mut chunk) {
            Ok(0) => Received::Closed,
            Ok(len) => {
                bytes.extend_from_slice(chunk.get(..len).unwrap_or_default());
                Received::Bytes
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {
                    Received::Nothing
                }
                _ => Received::Closed,
            },
        }
    }

    fn close(&mut self) {
        let _ = self.shutdown(Shutdown::Write);
        let end = Instant::now() + Duration::from_secs(1);
        let mut rest = Vec::new();
        while Instant::now() < end
            && Connection::receive(self, Duration::from_millis(100), &mut rest) != Received::Closed
        {
        }
        let _ = self.shutdown(Shutdown::Both);
    }
}
