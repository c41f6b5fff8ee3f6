//! Options that a user gives each time, from a file: `~/.config/whimbrel/pub`, `sub`, `rr` and
//! `shell`.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use crate::failure::Failure;

/// For `--help`.
pub const HELP: &str = "\
Options for each time, such as -h, -u and -P, may stand in ~/.config/whimbrel/ (or \
$XDG_CONFIG_HOME/whimbrel/), in a file with the command's name, one to a line, as `-h \
broker.example`; # begins a comment. Those on the command line win, -t and -T add up.";

/// The words of a command line, with those of the command's file put in, and that file.
///
/// # Errors
/// If there is a file that cannot be read.
pub fn words() -> Result<(Vec<OsString>, Option<PathBuf>), Failure> {
    let mut words: Vec<OsString> = env::args_os().collect();
    let command = words.get(1).and_then(|word| word.to_str()).unwrap_or_default();
    let Some(path) = folder().map(|folder| folder.join("whimbrel").join(command)) else {
        return Ok((words, None));
    };
    if !["pub", "sub", "rr", "shell"].contains(&command) || !path.exists() {
        return Ok((words, None));
    }
    let text = std::fs::read_to_string(&path)
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    words.splice(2..2, options(&text).into_iter().map(OsString::from));
    Ok((words, Some(path)))
}

fn folder() -> Option<PathBuf> {
    let named = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    named("XDG_CONFIG_HOME").or_else(|| named("HOME").map(|home| home.join(".config")))
}

/// An option and its value in each line. Only -D has several values; any other one may have spaces.
fn options(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        match line.split_once(char::is_whitespace) {
            Some((name @ ("-D" | "--property"), values)) => {
                words.push(name.into());
                words.extend(values.split_whitespace().map(String::from));
            }
            Some((name, value)) => words.extend([name.into(), value.trim_start().into()]),
            None if line.is_empty() => {}
            None => words.push(line.into()),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_line_is_an_option() {
        let text = "# mine\n-h  broker.example\n\n  --will-payload gone for good \n-v\n\
                    -D publish user-property k v\n";
        let words = ["-h", "broker.example", "--will-payload", "gone for good", "-v"];
        let property = ["-D", "publish", "user-property", "k", "v"];
        assert_eq!(super::options(text), [&words[..], &property].concat());
    }
}
