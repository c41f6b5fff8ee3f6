//! What a store costs: `cargo run --release -p whimbrel-client --example store_cost DIRECTORY`.
//!
//! Messages of QoS 1 with 64 bytes go to a broker in the same process that only acknowledges, from
//! 1, 16 and 256 publishers, each of which awaits that its message is taken. CPU is that of
//! the process, the broker's share included. Then messages are queued while no broker is there.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use whimbrel_client::{
    Builder, ByteStream, Client, Connector, Message, Opening, QoS, Store, StoreSync,
};

/// Each row is measured for about so long.
const SECONDS: f64 = 2.0;
/// The clock ticks of `/proc/self/stat`, in seconds.
const TICK_S: f64 = 0.01;
const QUEUED: u64 = 50_000;

type Failed = Box<dyn Error + Send + Sync>;

struct Wire(mpsc::UnboundedSender<DuplexStream>);

impl Connector for Wire {
    fn open(&self) -> Opening<'_> {
        Box::pin(async {
            let (ours, theirs) = duplex(256 * 1024);
            self.0.send(theirs).map_err(|_| io::ErrorKind::ConnectionRefused)?;
            Ok(Box::new(ours) as Box<dyn ByteStream>)
        })
    }
}

/// Acknowledges every PUBLISH of QoS 1 whose topic is `t`, and knows nothing else.
async fn broker(mut stream: DuplexStream) -> io::Result<()> {
    let (mut input, mut output) = (Vec::with_capacity(1 << 16), Vec::new());
    loop {
        if stream.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
        let mut at = 0;
        // A length of one byte is enough for what is sent here.
        while let Some(&[first, len]) = input.get(at..at + 2)
            && let Some(body) = input.get(at + 2..at + 2 + usize::from(len))
        {
            at += 2 + body.len();
            match (first & 0xf0, body) {
                (0x10, _) => output.extend_from_slice(&[0x20, 3, 0, 0, 0]),
                (0x30, [0, 1, b't', high, low, ..]) => {
                    output.extend_from_slice(&[0x40, 2, *high, *low]);
                }
                _ => {}
            }
        }
        input.drain(..at);
        stream.write_all(&output).await?;
        output.clear();
    }
}

fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    let ticks = after.split_whitespace().skip(11).take(2);
    ticks.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() * TICK_S
}

fn client(store: Option<Store>) -> Result<Client, Failed> {
    let (sender, mut arrivals) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(stream) = arrivals.recv().await {
            tokio::spawn(broker(stream));
        }
    });
    let mut builder: Builder = Client::builder("mqtt://here")?.client_id("cost");
    builder = builder.connector(Arc::new(Wire(sender)));
    if let Some(store) = store {
        builder = builder.store(store);
    }
    Ok(builder.start()?)
}

fn message(len: usize) -> Message {
    Message::new("t", vec![b'x'; len]).qos(QoS::AtLeastOnce)
}

async fn measure(name: &str, store: Option<Store>, publishers: usize) -> Result<(), Failed> {
    let client = client(store)?;
    let (start, cpu) = (Instant::now(), cpu_s());
    let tasks = (0..publishers).map(|_| {
        let client = client.clone();
        tokio::spawn(async move {
            let mut count = 0_u64;
            while start.elapsed().as_secs_f64() < SECONDS {
                drop(client.publish(message(64)).await?);
                count += 1;
            }
            Ok::<u64, Failed>(count)
        })
    });
    let mut count = 0;
    for task in tasks.collect::<Vec<_>>() {
        count += task.await??;
    }
    client.disconnect().await?;
    let (seconds, cpu) = (start.elapsed().as_secs_f64(), cpu_s() - cpu);
    let (rate, cost) = (count as f64 / seconds, cpu / count as f64 * 1e6);
    println!("{name:>7} {publishers:>11} {rate:>11.0} {cost:>15.1}");
    Ok(())
}

async fn queue(path: &Path, len: usize) -> Result<(), Failed> {
    let store = Store::new(path).sync(StoreSync::Os);
    let builder = Client::builder("mqtt://127.0.0.1:1")?.client_id("cost").store(store);
    let client = builder.drain_timeout(Duration::ZERO).start()?;
    let start = Instant::now();
    let mut last = None;
    for _ in 0..QUEUED {
        last = Some(client.try_publish(message(len)));
    }
    let _ = client.publish(message(len)).await?;
    drop(last);
    let seconds = start.elapsed().as_secs_f64();
    let queued = client.undelivered();
    let _ = client.disconnect().await;
    let bytes = std::fs::metadata(path)?.len() as f64 / queued as f64;
    println!("{queued} messages of {len} bytes: {bytes:.0} bytes each on disk, in {seconds:.1} s");
    let start = Instant::now();
    let again = Client::builder("mqtt://127.0.0.1:1")?.client_id("cost").store(path);
    let again = again.drain_timeout(Duration::ZERO).start()?;
    println!("opened in {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
    let _ = again.disconnect().await;
    Ok(())
}

fn main() -> Result<(), Failed> {
    let directory = std::env::args().nth(1).ok_or("usage: store_cost DIRECTORY")?;
    let directory = PathBuf::from(directory);
    std::fs::create_dir_all(&directory)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    println!("  store  publishers  messages/s  CPU us/message");
    for publishers in [1, 16, 256] {
        runtime.block_on(measure("none", None, publishers))?;
        for (name, sync) in [("os", StoreSync::Os), ("fsync", StoreSync::Fsync)] {
            let path = directory.join(format!("{name}-{publishers}"));
            let store = Store::new(path).sync(sync);
            runtime.block_on(measure(name, Some(store), publishers))?;
        }
    }
    for len in [64, 1024] {
        runtime.block_on(queue(&directory.join(format!("queue-{len}")), len))?;
    }
    Ok(())
}
