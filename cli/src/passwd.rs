//! `whimbrel passwd`: the users of a password file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use whimbrel_auth::password::{FileEditor, Hash, NEW_SALT_BYTES, NewUser, PasswordFile};
use whimbrel_auth::scram::{DEFAULT_ITERATIONS, Mechanism, SALT_BYTES, StoredKeys};

use crate::failure::Failure;

/// The password is wrong.
const EXIT_WRONG: u8 = 1;

/// Nothing was done.
const EXIT_REFUSED: u8 = 2;

/// Longest password in MQTT, in bytes.
const MAX_PASSWORD_BYTES: u64 = 65_535;

/// Largest password file, in bytes.
const MAX_FILE_BYTES: u64 = 256 << 20;

const PASSWD_HELP: &str = "\
Examples:
  whimbrel passwd add users ann
  whimbrel passwd add users sensor-7 --group sensors --password-file secret.txt
  whimbrel passwd add users bob --scram --stdin < secret.txt
  whimbrel passwd verify users ann && echo right
  whimbrel passwd remove users ann

Password files of Mosquitto (mosquitto_passwd) can be used as they are; their lines stay as they
are until the user's password is set anew. A running broker takes the file up when it reloads.

Exit codes: 0 done, or the password is right; 1 the password is wrong, or there is no such user; 2
nothing was done.";

/// Add, remove or verify users of a password file.
#[derive(Args, Debug)]
#[command(after_help = PASSWD_HELP)]
pub struct Passwd {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Add a user, or set the password of one. FILE is made if it is not there.
    Add {
        #[command(flatten)]
        who: Who,
        /// Store keys for SCRAM-SHA-256 and SCRAM-SHA-512 as well.
        #[arg(long)]
        scram: bool,
        /// Put the user into this group, and into no others; may be repeated. Without it a user
        /// stays in its groups.
        #[arg(long, value_name = "GROUP")]
        group: Vec<String>,
        #[command(flatten)]
        source: Source,
    },
    /// Remove a user.
    Remove {
        #[command(flatten)]
        who: Who,
    },
    /// Tell whether a password is the user's.
    Verify {
        #[command(flatten)]
        who: Who,
        #[command(flatten)]
        source: Source,
    },
}

#[derive(Args, Debug)]
struct Who {
    /// The password file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The user name.
    #[arg(value_name = "USER")]
    user: String,
}

/// Where the password comes from; the terminal if nothing else is said.
#[derive(Args, Debug)]
struct Source {
    /// Read the password from this file, without the line end that it may end with.
    #[arg(long, value_name = "FILE", conflicts_with = "stdin")]
    password_file: Option<PathBuf>,
    /// Read the password from standard input, in the same way.
    #[arg(long)]
    stdin: bool,
}

pub fn run(args: &Passwd) -> Result<(), Failure> {
    match &args.command {
        Command::Add { who, scram, group, source } => add(who, *scram, group, source),
        Command::Remove { who } => remove(who),
        Command::Verify { who, source } => verify(who, source),
    }
}

fn add(who: &Who, scram: bool, groups: &[String], source: &Source) -> Result<(), Failure> {
    let password = source.password(true)?;
    let mechanisms: &[_] = if scram { &[Mechanism::Sha256, Mechanism::Sha512] } else { &[] };
    let mut keys = Vec::new();
    for &mechanism in mechanisms {
        let fault = "for SCRAM a password is text without control characters; choose another";
        let text = std::str::from_utf8(&password).map_err(|_| refused(fault))?;
        let salt = random::<SALT_BYTES>()?;
        let made = StoredKeys::new(mechanism, text, &salt, DEFAULT_ITERATIONS);
        keys.push(made.ok_or_else(|| refused(fault))?);
    }
    let new = NewUser {
        password: Hash::new(&password, random::<NEW_SALT_BYTES>()?),
        scram: keys,
        groups: (!groups.is_empty())
            .then(|| groups.iter().map(|group| group.as_str().into()).collect()),
    };
    let mut replacement = Replacement::begin(&who.file)?;
    replacement.editor.set(&who.user, new).map_err(|fault| in_file(&who.file, &fault))?;
    replacement.finish()
}

fn remove(who: &Who) -> Result<(), Failure> {
    if !who.file.exists() {
        return Err(refused(format!("{}: no such file; check its name", who.file.display())));
    }
    let mut replacement = Replacement::begin(&who.file)?;
    match replacement.editor.remove(&who.user) {
        Ok(true) => replacement.finish(),
        Ok(false) => {
            let message = format!("{}: no user {:?}; check the name", who.file.display(), who.user);
            Err(Failure::new(EXIT_WRONG, message))
        }
        Err(fault) => Err(in_file(&who.file, &fault)),
    }
}

fn verify(who: &Who, source: &Source) -> Result<(), Failure> {
    let file = PasswordFile::parse(&read(&who.file)?).map_err(|faults| {
        let all: Vec<_> = faults.iter().take(10).map(ToString::to_string).collect();
        in_file(&who.file, &all.join("\n  "))
    })?;
    let password = source.password(false)?;
    match file.verify(&who.user, &password) {
        Some(_) => Ok(()),
        None => Err(Failure::new(EXIT_WRONG, "wrong password, or no such user")),
    }
}

impl Source {
    fn password(&self, twice: bool) -> Result<Vec<u8>, Failure> {
        let mut password = Vec::new();
        if let Some(path) = &self.password_file {
            let file = File::open(path).map_err(|error| in_file(path, &error))?;
            let read = file.take(MAX_PASSWORD_BYTES + 3).read_to_end(&mut password);
            read.map_err(|error| in_file(path, &error))?;
        } else if self.stdin {
            let input = io::stdin().lock().take(MAX_PASSWORD_BYTES + 3).read_to_end(&mut password);
            input.map_err(|error| refused(format!("standard input: {error}")))?;
        } else {
            return ask(twice);
        }
        if password.ends_with(b"\n") {
            password.pop();
            if password.ends_with(b"\r") {
                password.pop();
            }
        }
        check(password)
    }
}

/// From the terminal, without echo.
fn ask(twice: bool) -> Result<Vec<u8>, Failure> {
    if !io::stdin().is_terminal() {
        return Err(refused(
            "there is no terminal to ask for the password; use --stdin or --password-file",
        ));
    }
    let prompt = |text: &str| {
        rpassword::prompt_password(text).map_err(|error| refused(format!("the terminal: {error}")))
    };
    let password = prompt("Password: ")?;
    if twice && prompt("Again: ")? != password {
        return Err(refused("the two passwords differ; try again"));
    }
    check(password.into_bytes())
}

fn check(password: Vec<u8>) -> Result<Vec<u8>, Failure> {
    if password.is_empty() {
        return Err(refused("the password is empty; choose another"));
    }
    if password.len() as u64 > MAX_PASSWORD_BYTES {
        return Err(refused("the password has more than 65,535 bytes, the most in MQTT"));
    }
    Ok(password)
}

/// The new text of a file, which takes the place of the old one whole or not at all. It is made
/// before the old one is read, so that two who change a file do not undo each other's change.
struct Replacement {
    /// Symbolic links followed.
    target: PathBuf,
    path: PathBuf,
    file: File,
    editor: FileEditor,
    done: bool,
}

impl Replacement {
    fn begin(target: &Path) -> Result<Replacement, Failure> {
        let target = match fs::canonicalize(target) {
            Ok(target) => target,
            Err(error) if error.kind() == ErrorKind::NotFound => target.to_owned(),
            Err(error) => return Err(in_file(target, &error)),
        };
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let path = target.with_file_name(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => in_file(
                &path,
                &"another `whimbrel passwd` is at work, or was killed: then remove this file",
            ),
            _ => in_file(&path, &error),
        })?;
        let editor = FileEditor::new("");
        let mut replacement = Replacement { target, path, file, editor, done: false };
        if replacement.target.exists() {
            let text = read(&replacement.target)?;
            warn_of_faults(&replacement.target, &text);
            replacement.editor = FileEditor::new(&text);
        }
        Ok(replacement)
    }

    fn finish(mut self) -> Result<(), Failure> {
        self.write().map_err(|error| in_file(&self.target, &error))?;
        self.done = true;
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        self.file.write_all(self.editor.text().as_bytes())?;
        if let Ok(old) = fs::metadata(&self.target) {
            let new = self.file.metadata()?;
            if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
                fchown(&self.file, Some(old.uid()), Some(old.gid()))?;
            }
            self.file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o777))?;
        }
        self.file.sync_all()?;
        fs::rename(&self.path, &self.target)?;
        let folder = self.target.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if !self.done {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Lines that have nothing to do with the change stay as they are, but the broker will not have
/// them.
fn warn_of_faults(path: &Path, text: &str) {
    for fault in PasswordFile::parse(text).err().iter().flatten().take(10) {
        eprintln!("Warning: {}: {fault}", path.display());
    }
}

fn read(path: &Path) -> Result<String, Failure> {
    let file = File::open(path).map_err(|error| in_file(path, &error))?;
    let mut text = String::new();
    let read = file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text);
    read.map_err(|error| in_file(path, &error))?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(in_file(path, &"larger than 256 MiB; is it a password file?"));
    }
    Ok(text)
}

fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    match getrandom::fill(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) => Err(refused(format!("the system gives no random bytes: {error}"))),
    }
}

fn refused(message: impl Into<String>) -> Failure {
    Failure::new(EXIT_REFUSED, message)
}

fn in_file(path: &Path, what: &dyn std::fmt::Display) -> Failure {
    refused(format!("{}: {what}", path.display()))
}
