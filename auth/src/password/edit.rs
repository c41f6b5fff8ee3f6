//! Changes to the text of a password file, which leave every other line as it is.

use std::fmt;

use super::{
    Groups, Hash, User, check_group, check_name, name_of, numbered, parse_groups, parse_line,
};
use crate::scram::StoredKeys;

/// The text of a password file to change.
///
/// It may hold lines that are wrong, as long as they are not about the user to change.
#[derive(Clone)]
pub struct FileEditor {
    lines: Vec<String>,
}

/// What is to be written of a user.
#[derive(Debug)]
pub struct NewUser {
    /// The password.
    pub password: Hash,
    /// Keys for SCRAM, made of the same password; may be empty.
    pub scram: Vec<StoredKeys>,
    /// None leaves the groups that the user has.
    pub groups: Option<Groups>,
}

impl fmt::Debug for FileEditor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileEditor({} lines)", self.lines.len())
    }
}

impl FileEditor {
    /// Of the text of a file; an empty one begins a new file.
    pub fn new(text: &str) -> FileEditor {
        FileEditor { lines: text.lines().map(str::to_owned).collect() }
    }

    /// Adds a user, or replaces what is known of it: keys of an old password do not stay. True if
    /// the user was there. The error says what is wrong with the names.
    pub fn set(&mut self, name: &str, new: NewUser) -> Result<bool, String> {
        check_name(name)?;
        for group in new.groups.iter().flatten() {
            check_group(group)?;
        }
        let at = self.find(name)?;
        let groups = match (new.groups, at) {
            (Some(groups), _) => groups,
            (None, Some(at)) => groups_of(&self.lines[at]),
            (None, None) => Groups::new(),
        };
        let user = User { password: Some(new.password), scram: new.scram, groups };
        let line = format!("{name}{user}");
        parse_line(&line)?;
        match at {
            Some(at) => self.lines[at] = line,
            None => self.lines.push(line),
        }
        Ok(at.is_some())
    }

    /// Removes a user; false if it is not there.
    pub fn remove(&mut self, name: &str) -> Result<bool, String> {
        let at = self.find(name)?;
        if let Some(at) = at {
            self.lines.remove(at);
        }
        Ok(at.is_some())
    }

    /// The text of the file.
    pub fn text(&self) -> String {
        self.lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }

    fn find(&self, name: &str) -> Result<Option<usize>, String> {
        let mut found = (0..self.lines.len()).filter(|&at| {
            numbered(&self.lines[at]).next().and_then(|(_, line)| name_of(line)) == Some(name)
        });
        let first = found.next();
        match found.next() {
            Some(second) => Err(format!(
                "line {}: the user stands in an earlier line already; remove one of them",
                second + 1
            )),
            None => Ok(first),
        }
    }
}

/// The groups in a line, whatever else is wrong with it.
fn groups_of(line: &str) -> Groups {
    let groups = line.trim_end().split(':').skip(1).find_map(|field| field.strip_prefix('@'));
    groups.and_then(|groups| parse_groups(groups).ok()).unwrap_or_default()
}

/// The part of a line after the name.
impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(password) = &self.password {
            write!(f, ":{password}")?;
        }
        for keys in &self.scram {
            write!(f, ":{keys}")?;
        }
        if !self.groups.is_empty() {
            write!(f, ":@{}", self.groups.join(","))?;
        }
        Ok(())
    }
}
