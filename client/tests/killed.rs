//! A process that is killed again and again while it publishes loses nothing that it took, and no
//! message of QoS 2 arrives twice: with a real process, file and socket.
//!
//! The process is this test binary itself, told by its environment to publish.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use whimbrel_client::{Backoff, Client, Message, QoS, Store, StoreSync};
use whimbrel_codec::{Ack, ConnAck, Frame, Packet, PacketId, Properties, ReasonCode, Version};

const KILLS: usize = 40;
const TASKS: u32 = 8;
/// Only a hang gets there.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the process is to do: the broker's port, the store, and a name for its messages. Without
/// a name it delivers what is there, and ends.
const TOLD: [&str; 3] = ["WHIMBREL_TEST_PORT", "WHIMBREL_TEST_STORE", "WHIMBREL_TEST_NAME"];

/// The process that is killed; nothing as a test.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishes_until_it_is_killed() {
    let [Ok(port), Ok(store), Ok(name)] = TOLD.map(std::env::var) else { return };
    let wait = Duration::from_millis(2);
    let client = Client::builder(&format!("mqtt://127.0.0.1:{port}"))
        .expect("a URL")
        .client_id("killed")
        .backoff(Backoff { first: wait, most: wait })
        .drain_timeout(PATIENCE)
        .queue(64, 1 << 20)
        .store(Store::new(Path::new(&store)).sync(StoreSync::Os))
        .start()
        .expect("a store");
    if name.is_empty() {
        client.disconnect().await.expect("everything is delivered");
        return;
    }
    let tasks = (0..TASKS).map(|task| {
        let (client, name) = (client.clone(), name.clone());
        tokio::spawn(async move {
            for number in 0_u32.. {
                let qos = if number % 2 == 0 { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
                let payload = format!("{}-{name}-{task}-{number}", qos as u8);
                let message = Message::new("t", payload.clone()).qos(qos);
                drop(client.publish(message).await.expect("taken"));
                // From here on the message must not be lost.
                println!("\ntook {payload}");
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.expect("no end");
    }
}

/// What the broker knows, over all connections.
#[derive(Default)]
struct Session {
    is_there: bool,
    /// Identifiers of QoS 2 messages that are not released.
    received: Vec<PacketId>,
    /// How often each message has arrived.
    arrived: HashMap<String, usize>,
    packets: usize,
}

fn broker(listener: &TcpListener, session: &Mutex<Session>) {
    for stream in listener.incoming() {
        // The process is killed, or the connection cut: the next one follows.
        let _ = stream.and_then(|stream| serve(stream, session));
    }
}

fn serve(mut stream: TcpStream, session: &Mutex<Session>) -> io::Result<()> {
    let (mut input, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let mut output = Vec::new();
        while let Some(frame) = Frame::parse(&input, u32::MAX).expect("a frame")
            && input.len() >= frame.packet_len()
        {
            let packet = Packet::decode(Version::V5, &frame, &input).expect("a packet");
            let mut session = session.lock().expect("no panic");
            session.packets += 1;
            // Cut in the midst, and what was to be answered is not.
            if session.packets % 701 == 0 {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            session.handle(&packet, &mut output);
            input.drain(..frame.packet_len());
        }
        stream.write_all(&output)?;
        let len = stream.read(&mut chunk)?;
        if len == 0 {
            return Ok(());
        }
        input.extend_from_slice(&chunk[..len]);
    }
}

impl Session {
    fn handle(&mut self, packet: &Packet<'_>, output: &mut Vec<u8>) {
        let mut send =
            |packet: Packet<'_>| packet.encode(Version::V5, output).expect("it can be encoded");
        match packet {
            Packet::Connect(connect) => {
                let session_present = self.is_there && !connect.clean_start;
                if !session_present {
                    self.received.clear();
                }
                self.is_there = true;
                let (reason, properties) = (ReasonCode::Success, Properties::NONE);
                send(Packet::ConnAck(ConnAck { session_present, reason, properties }));
            }
            Packet::Publish(publish) => {
                let id = publish.packet_id.expect("QoS 1 or 2");
                let once = publish.qos == QoS::ExactlyOnce;
                if !once || !self.received.contains(&id) {
                    let payload = String::from_utf8_lossy(publish.payload).into_owned();
                    *self.arrived.entry(payload).or_default() += 1;
                }
                if once {
                    self.received.push(id);
                    send(Packet::PubRec(Ack::new(id)));
                } else {
                    send(Packet::PubAck(Ack::new(id)));
                }
            }
            Packet::PubRel(ack) => {
                let known = self.received.contains(&ack.packet_id);
                self.received.retain(|id| *id != ack.packet_id);
                let reason = if known { ReasonCode::Success } else { ReasonCode::PacketIdNotFound };
                send(Packet::PubComp(Ack { reason, ..Ack::new(ack.packet_id) }));
            }
            _ => {}
        }
    }
}

fn start(port: u16, store: &Path, name: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("a path"));
    command.args(["publishes_until_it_is_killed", "--exact", "--nocapture"]);
    let told = [port.to_string(), store.display().to_string(), name.into()];
    command.envs(TOLD.into_iter().zip(told));
    command.stdout(Stdio::piped()).spawn().expect("it starts")
}

/// The messages that a process says it took, until its end.
fn taken(child: &mut Child) -> mpsc::Receiver<String> {
    let stdout = child.stdout.take().expect("a pipe");
    let (sender, taken) = mpsc::channel();
    std::thread::spawn(move || {
        // The last line may be torn: it does not count then.
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            if let Some(payload) = line.strip_prefix("took ")
                && sender.send(payload.to_owned()).is_err()
            {
                return;
            }
        }
    });
    taken
}

#[test]
fn nothing_taken_is_lost_and_nothing_arrives_twice_when_the_process_is_killed() {
    let directory = std::env::temp_dir().join(format!("whimbrel-killed-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let store = directory.join("queue");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let session = Arc::new(Mutex::new(Session::default()));
    let shared = session.clone();
    std::thread::spawn(move || broker(&listener, &shared));

    let mut all = Vec::new();
    for kill in 0..KILLS {
        let mut child = start(port, &store, &format!("{kill}"));
        let taken = taken(&mut child);
        // At different moments of its life.
        for _ in 0..10 + kill * 37 % 300 {
            all.push(taken.recv_timeout(PATIENCE).expect("it publishes"));
        }
        child.kill().expect("it runs");
        child.wait().expect("it ends");
        // The torn last line is cut off by the same rule that cut it.
        all.extend(taken.iter().filter(|payload| payload.matches('-').count() == 3));
    }
    let mut last = start(port, &store, "");
    assert!(last.wait().expect("it ends").success());

    let session = session.lock().expect("no panic");
    let lost: Vec<_> = all.iter().filter(|one| !session.arrived.contains_key(*one)).collect();
    assert!(lost.is_empty(), "lost {} of {}: {lost:?}", lost.len(), all.len());
    let twice = |(payload, count): &(&String, &usize)| payload.starts_with('2') && **count > 1;
    let twice: Vec<_> = session.arrived.iter().filter(twice).collect();
    assert!(twice.is_empty(), "twice: {twice:?}");
    assert!(session.received.is_empty(), "every message of QoS 2 was released");
    let _ = std::fs::remove_dir_all(&directory);
}
