//! The threads of a log: one that writes, one that reads.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crate::Log;
use crate::log::lock;

/// The two threads.
pub struct Threads {
    log: Arc<Log>,
    end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Starts them.
    ///
    /// # Errors
    /// The system has no more threads.
    pub fn start(log: Arc<Log>) -> io::Result<Threads> {
        let end = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::with_capacity(2);
        let (its_log, its_end) = (log.clone(), end.clone());
        let writer = Builder::new().name("store".into());
        threads.push(writer.spawn(move || write(&its_log, &its_end))?);
        let (its_log, its_end) = (log.clone(), end.clone());
        let reader = Builder::new().name("store-reads".into());
        threads.push(reader.spawn(move || read(&its_log, &its_end))?);
        Ok(Threads { log, end, threads })
    }

    /// Ends both threads, and the log in good order: [`Log::stop`].
    ///
    /// # Errors
    /// As [`Log::stop`].
    pub fn stop(mut self) -> io::Result<()> {
        self.join();
        self.log.stop()
    }

    fn join(&mut self) {
        self.end.store(true, Ordering::Release);
        self.log.kick();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.join();
    }
}

fn write(log: &Log, end: &AtomicBool) {
    let start = Instant::now();
    let now = || start.elapsed().as_millis() as u64;
    while !end.load(Ordering::Acquire) {
        let work = log.work(now());
        if !work.did {
            let wait = work.next_ms.map(|at| Duration::from_millis(at.saturating_sub(now())));
            log.sleep(wait);
        }
    }
}

fn read(log: &Log, end: &AtomicBool) {
    while !end.load(Ordering::Acquire) {
        if !log.work_reads().did {
            log.reads.sleep();
        }
    }
}

impl Log {
    /// Waits until something is queued, or so long.
    fn sleep(&self, wait: Option<Duration>) {
        let mut queue = lock(&self.queue);
        if !queue.frames.is_empty() || queue.kicked {
            return;
        }
        queue.asleep = true;
        let mut queue = match wait {
            None => self.queued.wait(queue).unwrap_or_else(PoisonError::into_inner),
            Some(wait) => {
                let woken = self.queued.wait_timeout(queue, wait);
                woken.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        queue.asleep = false;
    }

    /// Wakes both threads.
    fn kick(&self) {
        let mut queue = lock(&self.queue);
        queue.kicked = true;
        queue.asleep = false;
        drop(queue);
        self.queued.notify_all();
        self.reads.kick();
    }
}
