//! The database: its tables, and whom it belongs to.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{BackendError, Database, ReadableDatabase, ReadableTable, StorageBackend};
use redb::{ReadableTableMetadata, TableDefinition, WriteTransaction};
use whimbrel_codec::PacketId;

use super::{Batch, Stage, Store, StoreError, StoreSync};

/// Whom the file belongs to, and its format.
const FACTS: TableDefinition<&str, &str> = TableDefinition::new("facts");
/// Bytes of all messages, and whether the broker has a session.
const NUMBERS: TableDefinition<&str, u64> = TableDefinition::new("numbers");
/// By number, in the order of publishing; a body that is no longer needed is gone.
const MESSAGES: TableDefinition<u64, &[u8]> = TableDefinition::new("messages");
/// The packet identifier of a message in flight, plus [`RECEIVED`] once PUBREC has come.
const STAGES: TableDefinition<u64, u32> = TableDefinition::new("in_flight");
/// Identifiers of QoS 2 messages of the broker that were taken and not released.
const ARRIVALS: TableDefinition<u16, ()> = TableDefinition::new("arrived");

const RECEIVED: u32 = 1 << 16;
const FORMAT: &str = "1";
/// A file smaller than this is not made smaller still.
const COMPACT_BYTES: u64 = 8 << 20;
/// Memory for pages of the file.
const CACHE_BYTES: usize = 4 << 20;

/// Whom a store belongs to: packet identifiers mean something in one session alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) client_id: String,
    /// The broker's address.
    pub(crate) broker: String,
    /// The version of MQTT.
    pub(crate) version: String,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client {:?} of {} over MQTT {}", self.client_id, self.broker, self.version)
    }
}

/// What there was when the file was opened.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    /// By number; the body of what was received is gone.
    pub(crate) in_flight: Vec<(u64, Stage, Option<Vec<u8>>)>,
    pub(crate) arrivals: Vec<PacketId>,
    /// Messages that are not in flight and have numbers below one that is, such as QoS 0.
    pub(crate) passed: Vec<(u64, Vec<u8>)>,
    /// How many others there are, and the number after which they come.
    pub(crate) waiting: u64,
    pub(crate) after: u64,
    /// No message has a number above this.
    pub(crate) last: u64,
    /// Bytes of all messages.
    pub(crate) bytes: u64,
    pub(crate) has_session: bool,
}

type Opener = Box<dyn Fn() -> Result<Database, redb::Error> + Send>;

/// An open store.
pub(crate) struct File {
    path: PathBuf,
    opener: Opener,
    /// None after an error: the database then has to be opened again.
    database: Option<Database>,
    /// Bytes of the file when it was last made smaller.
    compacted_bytes: u64,
}

impl File {
    /// Opens the file of `store`, or makes it.
    pub(crate) fn open(store: &Store, owner: &Owner) -> Result<(File, Recovered), StoreError> {
        let (path, sync) = (store.path.clone(), store.sync);
        File::open_with(&store.path, Box::new(move || open(&path, sync)), owner)
    }

    pub(crate) fn open_with(
        path: &Path,
        opener: Opener,
        owner: &Owner,
    ) -> Result<(File, Recovered), StoreError> {
        let mut file = File { path: path.into(), opener, database: None, compacted_bytes: 0 };
        let path = file.path.clone();
        let database = file.database()?;
        let found = belongs_to(database, owner).map_err(|error| explain(&path, &error))?;
        if let Some(made_for) = found {
            let wanted_by = owner.to_string();
            return Err(StoreError::Foreign { path, made_for, wanted_by });
        }
        let recovered = recover(database).map_err(|error| explain(&path, &error))?;
        Ok((file, recovered))
    }

    fn database(&mut self) -> Result<&mut Database, StoreError> {
        match &mut self.database {
            Some(database) => Ok(database),
            none => {
                let database = (self.opener)().map_err(|error| explain(&self.path, &error))?;
                Ok(none.insert(database))
            }
        }
    }

    /// Writes a batch: it is as durable as was asked for when this returns. After an error it may
    /// be there or not, and may be written once more.
    pub(crate) fn write(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let written = write(self.database()?, batch).and_then(|()| self.compact(batch.bytes));
        written.map_err(|error| {
            // redb refuses everything after an error of the disk until the file is opened again.
            self.database = None;
            explain(&self.path, &error)
        })
    }

    /// Gives room back to the disk when little is left of much. What is left is copied, so this is
    /// done only when that is a small part.
    fn compact(&mut self, bytes: u64) -> Result<(), redb::Error> {
        let len = std::fs::metadata(&self.path).map_or(0, |file| file.len());
        if len < COMPACT_BYTES || len / 8 < bytes || len / 2 < self.compacted_bytes {
            return Ok(());
        }
        let Some(database) = &mut self.database else { return Ok(()) };
        database.compact()?;
        self.compacted_bytes = std::fs::metadata(&self.path)?.len();
        Ok(())
    }

    /// Messages with numbers above `after`, in order: at most `max_messages`, and about
    /// `max_bytes`.
    pub(crate) fn read(
        &mut self,
        after: u64,
        max_messages: usize,
        max_bytes: usize,
    ) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        let read = read(self.database()?, after, max_messages, max_bytes);
        read.map_err(|error| {
            self.database = None;
            explain(&self.path, &error)
        })
    }
}

fn open(path: &Path, sync: StoreSync) -> Result<Database, redb::Error> {
    let syncs = sync == StoreSync::Fsync;
    let len = std::fs::metadata(path).map(|file| file.len());
    if len.is_ok_and(|len| len > 0) {
        return open_file(path, syncs);
    }
    // A crash in the midst would leave a file that is no store: it gets its name when it is one.
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    match std::fs::remove_file(&unfinished) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
        _ => drop(open_file(Path::new(&unfinished), true)?),
    }
    std::fs::rename(&unfinished, path)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    std::fs::File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
    open_file(path, syncs)
}

fn open_file(path: &Path, syncs: bool) -> Result<Database, redb::Error> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
    open_backend(Backend { file: FileBackend::new(file)?, syncs })
}

/// A file that is damaged is an error and no panic, as all checksums are looked at.
pub(super) fn open_backend(backend: impl StorageBackend) -> Result<Database, redb::Error> {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
    Ok(builder.create_with_backend(backend)?)
}

/// Marks a new file as that of `owner`. Gives whom an older one belongs to, if that is another.
fn belongs_to(database: &Database, owner: &Owner) -> Result<Option<String>, redb::Error> {
    let ours = [
        ("format", FORMAT),
        ("client_id", owner.client_id.as_str()),
        ("broker", owner.broker.as_str()),
        ("version", owner.version.as_str()),
    ];
    let transaction = database.begin_write()?;
    let mut facts = BTreeMap::new();
    {
        let mut table = transaction.open_table(FACTS)?;
        if table.is_empty()? {
            for (name, value) in ours {
                table.insert(name, value)?;
            }
        }
        for name in ours.map(|(name, _)| name) {
            let value = table.get(name)?.map(|value| value.value().to_owned());
            facts.insert(name, value.unwrap_or_default());
        }
        // So that reading needs not ask whether they are there.
        transaction.open_table(NUMBERS)?;
        transaction.open_table(MESSAGES)?;
        transaction.open_table(STAGES)?;
        transaction.open_table(ARRIVALS)?;
    }
    transaction.commit()?;
    let mut fact = |name| facts.remove(name).unwrap_or_default();
    if fact("format") != FORMAT {
        return Err(redb::Error::Corrupted("its format is a later one".into()));
    }
    let found =
        Owner { client_id: fact("client_id"), broker: fact("broker"), version: fact("version") };
    Ok((found != *owner).then(|| found.to_string()))
}

fn recover(database: &Database) -> Result<Recovered, redb::Error> {
    let transaction = database.begin_read()?;
    let messages = transaction.open_table(MESSAGES)?;
    let stages = transaction.open_table(STAGES)?;
    let mut recovered = Recovered::default();
    let mut kept = 0;
    for entry in stages.iter()? {
        let (number, stage) = entry?;
        let number = number.value();
        let body = messages.get(number)?.map(|body| body.value().to_vec());
        kept += u64::from(body.is_some());
        recovered.in_flight.push((number, decode_stage(stage.value())?, body));
        recovered.after = number;
    }
    for entry in messages.range(..recovered.after)? {
        let (number, message) = entry?;
        if stages.get(number.value())?.is_none() {
            kept += 1;
            recovered.passed.push((number.value(), message.value().to_vec()));
        }
    }
    let last_message = messages.last()?.map_or(0, |(number, _)| number.value());
    recovered.last = last_message.max(recovered.after);
    recovered.waiting = messages.len()?.saturating_sub(kept);
    for entry in transaction.open_table(ARRIVALS)?.iter()? {
        recovered.arrivals.extend(PacketId::new(entry?.0.value()));
    }
    let numbers = transaction.open_table(NUMBERS)?;
    recovered.bytes = numbers.get("bytes")?.map_or(0, |bytes| bytes.value());
    recovered.has_session = numbers.get("session")?.is_some_and(|session| session.value() > 0);
    Ok(recovered)
}

fn decode_stage(stage: u32) -> Result<Stage, redb::Error> {
    let packet_id = u16::try_from(stage & !RECEIVED).ok().and_then(PacketId::new);
    let packet_id =
        packet_id.ok_or_else(|| redb::Error::Corrupted("a packet identifier of 0".into()))?;
    Ok(Stage { packet_id, is_received: stage & RECEIVED != 0 })
}

fn write(database: &Database, batch: &Batch) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    write_tables(&transaction, batch)?;
    transaction.commit()?;
    Ok(())
}

fn write_tables(transaction: &WriteTransaction, batch: &Batch) -> Result<(), redb::Error> {
    if !batch.messages.is_empty() {
        let mut table = transaction.open_table(MESSAGES)?;
        for (number, message) in &batch.messages {
            match message {
                Some(message) => drop(table.insert(number, message.as_slice())?),
                None => drop(table.remove(number)?),
            }
        }
    }
    if !batch.stages.is_empty() {
        let mut table = transaction.open_table(STAGES)?;
        for (number, stage) in &batch.stages {
            match stage {
                Some(Stage { packet_id, is_received }) => {
                    let received = if *is_received { RECEIVED } else { 0 };
                    table.insert(number, u32::from(packet_id.get()) | received)?;
                }
                None => drop(table.remove(number)?),
            }
        }
    }
    if batch.forgets_arrivals || !batch.arrivals.is_empty() {
        let mut table = transaction.open_table(ARRIVALS)?;
        if batch.forgets_arrivals {
            table.retain(|_, ()| false)?;
        }
        for (id, is_there) in &batch.arrivals {
            match is_there {
                true => drop(table.insert(id.get(), ())?),
                false => drop(table.remove(id.get())?),
            }
        }
    }
    let mut numbers = transaction.open_table(NUMBERS)?;
    numbers.insert("bytes", batch.bytes)?;
    if batch.has_session {
        numbers.insert("session", 1)?;
    }
    Ok(())
}

fn read(
    database: &Database,
    after: u64,
    max_messages: usize,
    max_bytes: usize,
) -> Result<Vec<(u64, Vec<u8>)>, redb::Error> {
    let transaction = database.begin_read()?;
    let messages = transaction.open_table(MESSAGES)?;
    let mut found = Vec::new();
    let mut bytes = 0;
    for entry in messages.range((Bound::Excluded(after), Bound::Unbounded))? {
        let (number, message) = entry?;
        bytes += message.value().len();
        found.push((number.value(), message.value().to_vec()));
        if found.len() >= max_messages || bytes >= max_bytes {
            break;
        }
    }
    Ok(found)
}

fn explain(path: &Path, error: &redb::Error) -> StoreError {
    let path = path.to_owned();
    match error {
        redb::Error::DatabaseAlreadyOpen => StoreError::InUse(path),
        redb::Error::Corrupted(what) => StoreError::Damaged(path, what.clone()),
        redb::Error::Io(error) if error.kind() == ErrorKind::InvalidData => {
            StoreError::Damaged(path, error.to_string())
        }
        redb::Error::UpgradeRequired(_)
        | redb::Error::RepairAborted
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableDoesNotExist(_) => StoreError::Damaged(path, error.to_string()),
        error => StoreError::Failed(path, error.to_string()),
    }
}

/// A file that is synced, or not.
#[derive(Debug)]
struct Backend {
    file: FileBackend,
    syncs: bool,
}

impl StorageBackend for Backend {
    fn len(&self) -> std::io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        if self.syncs { self.file.sync_data() } else { Ok(()) }
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.file.write(offset, data)
    }

    fn close(&self) -> std::io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}
