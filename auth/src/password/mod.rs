//! The password file: who has which password, SCRAM keys and groups.
//!
//! A line is a user and what is known of it, separated by `:`, in any order:
//!
//! ```text
//! # a comment
//! ann:$argon2id$v=19$m=19456,t=2,p=1$<salt>$<hash>
//! bob:$7$101$<salt>$<hash>:@staff,ops
//! cy:$argon2id$...:$scram-sha-256$15000$<salt>$<StoredKey>$<ServerKey>:@staff
//! ```
//!
//! So a line of Mosquitto's file is a line of this one. `@` begins the groups. A user has at most
//! one password and one set of keys for each SCRAM mechanism, and stands in one line.

mod edit;
mod hash;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::scram::{DEFAULT_ITERATIONS, Mechanism, StoredKeys, prepared};
pub use edit::{FileEditor, NewUser};
pub use hash::{DEFAULT_MEMORY_KIB, DEFAULT_PASSES, Hash, NEW_SALT_BYTES};

/// Longest user name and group, in bytes.
pub const MAX_NAME_BYTES: usize = 1024;

/// Names of groups.
pub type Groups = Vec<Box<str>>;

/// What the file says of one user.
#[derive(Clone, Debug, Default)]
pub struct User {
    /// None if the user has SCRAM keys alone.
    pub password: Option<Hash>,
    /// At most one for each mechanism.
    pub scram: Vec<StoredKeys>,
    /// May be empty.
    pub groups: Groups,
}

/// A password file that was read.
#[derive(Clone)]
pub struct PasswordFile {
    users: HashMap<Box<str>, User>,
    /// Users with a password, in the order of the file: unknown users are checked against one of
    /// them.
    with_password: Vec<Box<str>>,
    /// Derived from the hashes, so that nobody who cannot read the file can compute with it.
    secret: [u8; 32],
    /// By [`Mechanism`].
    usual_iterations: [u32; 2],
}

impl fmt::Debug for PasswordFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PasswordFile({} users)", self.users.len())
    }
}

/// A line of the file that is wrong. Its text holds nothing of the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// From 1.
    pub line: usize,
    /// What is wrong, and what to do.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

impl PasswordFile {
    /// Reads the text of a file; all faults, in the order of the lines.
    pub fn parse(text: &str) -> Result<PasswordFile, Vec<Fault>> {
        let mut users = HashMap::new();
        let mut with_password = Vec::new();
        let mut lines = HashMap::new();
        let mut faults = Vec::new();
        for (line, content) in numbered(text) {
            match parse_line(content) {
                Ok((name, user)) => {
                    if let Some(first) = lines.insert(name, line) {
                        let message =
                            format!("the user stands in line {first} already; remove one of them");
                        faults.push(Fault { line, message });
                        continue;
                    }
                    if user.password.is_some() {
                        with_password.push(name.into());
                    }
                    users.insert(name.into(), user);
                }
                Err(message) => faults.push(Fault { line, message }),
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let secret = Sha256::new()
            .chain_update("whimbrel users that are not there")
            .chain_update(text)
            .finalize()
            .into();
        let usual_iterations =
            [Mechanism::Sha256, Mechanism::Sha512].map(|one| usual_iterations(&users, one));
        Ok(PasswordFile { users, with_password, secret, usual_iterations })
    }

    /// What is known of a user.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name)
    }

    /// How many users there are.
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// The user's groups if the password is right. A user who is not there, or has no password,
    /// takes the time of one who is: the check of another user's hash, always the same one for the
    /// same name, so that times tell nothing even if the costs in the file differ.
    pub fn verify(&self, name: &str, password: &[u8]) -> Option<Groups> {
        let user = self.users.get(name);
        let own = user.and_then(|user| Some((user, user.password.as_ref()?)));
        let hash = own.map_or_else(|| self.stand_in(name), |(_, hash)| Cow::Borrowed(hash));
        let fits = hash.fits(password);
        own.filter(|_| fits).map(|(user, _)| user.groups.clone())
    }

    /// The hash that a user without one is checked against.
    fn stand_in(&self, name: &str) -> Cow<'_, Hash> {
        let draw = u64::from_be_bytes(first_8(&keyed(&self.secret, "password", name)));
        let other = usize::try_from(draw % self.with_password.len().max(1) as u64)
            .ok()
            .and_then(|at| self.with_password.get(at))
            .and_then(|other| self.users.get(other)?.password.as_ref());
        other.map_or_else(|| Cow::Owned(Hash::of_nobody()), Cow::Borrowed)
    }

    /// The keys of a user for a mechanism, if it has them.
    pub fn scram_keys(&self, name: &str, mechanism: Mechanism) -> Option<&StoredKeys> {
        self.users.get(name)?.scram.iter().find(|keys| keys.mechanism() == mechanism)
    }

    /// The iterations that most users with keys for this mechanism have: what a user who is not
    /// there is said to have.
    pub fn usual_iterations(&self, mechanism: Mechanism) -> u32 {
        self.usual_iterations[mechanism as usize]
    }
}

fn usual_iterations(users: &HashMap<Box<str>, User>, mechanism: Mechanism) -> u32 {
    let mut counts: HashMap<u32, usize> = HashMap::new();
    let keys = users.values().flat_map(|user| &user.scram);
    for keys in keys.filter(|keys| keys.mechanism() == mechanism) {
        *counts.entry(keys.iterations()).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|&(iterations, count)| (count, iterations));
    most.map_or(DEFAULT_ITERATIONS, |(iterations, _)| iterations)
}

/// Bytes that are always the same for a name, and that only who has the secret can tell.
pub(crate) fn keyed(secret: &[u8; 32], purpose: &str, name: &str) -> [u8; 32] {
    // HMAC takes a key of any length.
    let Ok(mac) = Hmac::<Sha256>::new_from_slice(secret) else { return *secret };
    mac.chain_update(purpose).chain_update([0]).chain_update(name).finalize().into_bytes().into()
}

fn first_8(bytes: &[u8; 32]) -> [u8; 8] {
    let mut first = [0; 8];
    first.copy_from_slice(&bytes[..8]);
    first
}

/// The lines that say something, with their numbers from 1.
fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    lines.filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'))
}

/// The name of the user that a line is about.
fn name_of(line: &str) -> Option<&str> {
    line.split_once(':').map(|(name, _)| name)
}

fn parse_line(line: &str) -> Result<(&str, User), String> {
    let (name, rest) = line.split_once(':').ok_or(
        "not `user:hash`; write a comment with # in the first column, \
         and add users with `whimbrel passwd add`",
    )?;
    check_name(name)?;
    let mut user = User::default();
    let mut has_groups = false;
    for field in rest.trim_end().split(':') {
        if let Some(groups) = field.strip_prefix('@') {
            if has_groups {
                return Err("groups stand there twice; join them: @one,two".into());
            }
            has_groups = true;
            user.groups = parse_groups(groups)?;
        } else if field.starts_with("$scram-") {
            let keys = StoredKeys::parse(field)?;
            if user.scram.iter().any(|other| other.mechanism() == keys.mechanism()) {
                return Err("keys of one SCRAM mechanism stand there twice; remove one".into());
            }
            user.scram.push(keys);
        } else {
            let hash = Hash::parse(field)?;
            if user.password.replace(hash).is_some() {
                return Err("two password hashes stand there; remove one".into());
            }
        }
    }
    if user.password.is_none() && user.scram.is_empty() {
        return Err("the user has no password; set one with `whimbrel passwd add`".into());
    }
    if !user.scram.is_empty() && prepared(name).as_deref() != Some(name) {
        return Err("SCRAM sends this user name otherwise (SASLprep), so its keys would never be \
                    found; choose another name"
            .into());
    }
    Ok((name, user))
}

/// Whether a user can have this name in a file; says why not.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("the user name is empty; write one before the `:`".into());
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(format!("the user name has more than {MAX_NAME_BYTES} bytes; shorten it"));
    }
    if name.contains(|c: char| c.is_control() || c == ':') || name.starts_with('#') {
        return Err("a user name holds no `:` and no control characters, \
                    and does not begin with #; choose another"
            .into());
    }
    Ok(())
}

fn parse_groups(text: &str) -> Result<Groups, String> {
    text.split(',').map(|group| check_group(group).map(|()| group.into())).collect()
}

/// Whether a group can have this name in a file; says why not.
pub fn check_group(group: &str) -> Result<(), String> {
    let fine = !group.is_empty()
        && group.len() <= MAX_NAME_BYTES
        && !group.contains(|c: char| c.is_control() || c.is_whitespace() || matches!(c, ':' | ','));
    if fine {
        Ok(())
    } else {
        Err("a group is empty, too long, or holds a space, `:` or `,`; name it otherwise".into())
    }
}
