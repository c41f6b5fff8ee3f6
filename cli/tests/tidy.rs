//! The layout of the workspace, kept by tests: who may depend on whom, how long a file may be,
//! and what the crates without I/O must not touch.
//!
//! Every rule is a function from text to findings, a test that the workspace has none, and a test
//! that the function finds what it is there to find.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Normal dependencies between our crates: `(crate, what it may use)`.
const ALLOWED_EDGES: &[(&str, &[&str])] = &[
    ("codec", &[]),
    ("protocol", &["codec"]),
    ("topics", &["codec"]),
    ("store", &["codec"]),
    ("scram", &[]),
    ("auth", &["scram", "topics"]),
    ("broker-core", &["codec", "protocol", "topics", "store", "auth"]),
    ("transport", &[]),
    ("broker", &["codec", "protocol", "topics", "store", "auth", "broker-core", "transport"]),
    ("client-core", &["codec", "protocol"]),
    ("client", &["codec", "topics", "scram", "client-core", "transport"]),
    ("cli", &["auth", "broker", "client", "codec", "store", "topics"]),
    ("conformance", &["codec"]),
    ("trials", &["client"]),
    ("simulator", &["codec", "protocol", "topics", "store", "broker-core", "client-core"]),
];

/// Crates that get time and bytes as parameters and hand out effects.
const SANS_IO: &[&str] =
    &["codec", "protocol", "topics", "scram", "auth", "broker-core", "client-core", "transport"];

/// What a crate without I/O must not name. Addresses without sockets are in `core::net`.
const IO_WORDS: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    "std::net",
    "std::thread",
    "std::fs",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "rand::",
];

/// Crates that a microcontroller uses.
const NO_STD: &[&str] = &["codec", "protocol", "client-core"];

/// Files that may say `unsafe`, each with the reason: `(path, reason)`.
const UNSAFE_ALLOWED: &[(&str, &str)] = &[
    ("topics/tests/memory.rs", "an allocator that counts bytes is an unsafe trait"),
    ("client-core/tests/memory.rs", "an allocator that counts is an unsafe trait"),
];

const FILE_LINES: usize = 800;
const LINE_COLUMNS: usize = 100;

#[test]
fn dependencies_point_down() {
    let found: Vec<String> = packages()
        .iter()
        .flat_map(|package| forbidden_edges(&package.name, &package.dependencies))
        .collect();
    assert_none(&found, "a crate may use only those that ALLOWED_EDGES lists for it");
}

#[test]
fn dependencies_point_down_can_fail() {
    assert_eq!(forbidden_edges("topics", &["codec".into()]), Vec::<String>::new());
    assert_eq!(forbidden_edges("codec", &["broker".into()]), ["codec -> broker"]);
    assert_eq!(forbidden_edges("new", &[]), ["new is not in ALLOWED_EDGES"]);
}

#[test]
fn files_are_short() {
    let found = in_all_files(|_, text| too_long(text));
    assert_none(&found, "split the file by what its parts are about");
}

#[test]
fn files_are_short_can_fail() {
    assert_eq!(too_long(&"x\n".repeat(FILE_LINES)), Vec::<String>::new());
    assert_eq!(too_long(&"x\n".repeat(FILE_LINES + 1)).len(), 1);
}

#[test]
fn tests_that_documents_name_exist() {
    let root = root();
    let text = fs::read_to_string(root.join("docs/security.md")).expect("it is there");
    let found: Vec<String> = named_tests(&text)
        .into_iter()
        .filter(|(file, test)| {
            let folders = ["cli/tests/security", "cli/tests"];
            let paths = folders.iter().map(|folder| root.join(folder).join(file));
            let mut texts = paths.filter_map(|path| fs::read_to_string(path).ok());
            !texts.any(|text| text.contains(&format!("#[test]\nfn {test}()")))
        })
        .map(|(file, test)| format!("{file}: {test}"))
        .collect();
    assert_none(&found, "docs/security.md names a test that is not there");
}

#[test]
fn tests_that_documents_name_exist_can_fail() {
    let text = "| a | `x.rs: one_two`, `tls/y.rs: three` | `z.rs` |";
    assert_eq!(named_tests(text), [("x.rs", "one_two"), ("tls/y.rs", "three")]);
}

/// File and name of each test in a text, written as `file.rs: name`.
fn named_tests(text: &str) -> Vec<(&str, &str)> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted
        .filter_map(|code| code.split_once(": "))
        .filter(|(file, _)| file.ends_with(".rs"))
        .collect()
}

#[test]
fn lines_are_short() {
    let found = in_all_files(|_, text| wide_lines(text));
    assert_none(&found, "break the line; only string literals and links may be longer");
}

#[test]
fn lines_are_short_can_fail() {
    let long = "x".repeat(LINE_COLUMNS);
    assert_eq!(wide_lines(&long), Vec::<String>::new());
    assert_eq!(wide_lines(&format!("// {long}")).len(), 1);
    assert_eq!(wide_lines(&format!("let text = \"{long}\";")), Vec::<String>::new());
    assert_eq!(wide_lines(&format!("// https://example.org/{long}")), Vec::<String>::new());
}

#[test]
fn sans_io_crates_touch_no_clock_socket_or_thread() {
    let found = in_sources(SANS_IO, io_words);
    assert_none(&found, "take `now` and bytes as parameters and hand out effects");
}

#[test]
fn sans_io_crates_touch_no_clock_socket_or_thread_can_fail() {
    assert_eq!(io_words("let now = Instant::now();"), ["line 1: Instant::now"]);
    assert_eq!(io_words("\nuse std::net::IpAddr;"), ["line 2: std::net"]);
    assert_eq!(io_words("use std::{fmt, thread};"), ["line 1: std::thread"]);
    assert_eq!(io_words("use std::{\n    io::Read,\n    net,\n};"), ["line 1: std::net"]);
    assert_eq!(io_words("fn f() { rand::random() }"), ["line 1: rand::"]);
    assert_eq!(io_words("operand::new() // std::net\n/* std::fs */"), Vec::<String>::new());
    assert_eq!(io_words("let s = \"std::net\"; let c = '\"';"), Vec::<String>::new());
    let in_test = "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { Instant::now(); } }\n";
    assert_eq!(io_words(in_test), Vec::<String>::new());
    assert_eq!(io_words(&format!("{in_test}use std::fs;")), ["line 4: std::fs"]);
}

#[test]
fn crates_for_microcontrollers_are_no_std() {
    let found =
        in_crate_roots(
            |name, text| {
                if NO_STD.contains(&name) { lacks_no_std(text) } else { Vec::new() }
            },
        );
    assert_none(&found, "a microcontroller must be able to use it");
}

#[test]
fn crates_for_microcontrollers_are_no_std_can_fail() {
    assert_eq!(lacks_no_std("#![no_std]"), Vec::<String>::new());
    assert_eq!(lacks_no_std("#![cfg_attr(not(test), no_std)]"), Vec::<String>::new());
    assert_eq!(lacks_no_std("//! Not #![no_std] at all.\nfn a() {}").len(), 1);
}

#[test]
fn unsafe_code_has_a_written_reason() {
    let found = in_all_files(|path, text| {
        let known = UNSAFE_ALLOWED.iter().any(|(file, _)| Path::new(file) == path);
        if known { Vec::new() } else { unsafe_words(text) }
    });
    assert_none(
        &found,
        "write it without `unsafe`, or add the file and a reason to UNSAFE_ALLOWED",
    );
    for (file, reason) in UNSAFE_ALLOWED {
        let text = fs::read_to_string(root().join(file)).unwrap_or_default();
        assert!(!unsafe_words(&text).is_empty(), "UNSAFE_ALLOWED: {file} needs it no longer");
        assert!(!reason.is_empty(), "UNSAFE_ALLOWED: {file} gives no reason");
    }
}

#[test]
fn unsafe_code_has_a_written_reason_can_fail() {
    assert_eq!(unsafe_words("fn a() { unsafe { b() } }"), ["line 1: unsafe"]);
    assert_eq!(unsafe_words("#![allow(unsafe_code)]"), ["line 1: unsafe_code"]);
    assert_eq!(unsafe_words("#![deny(unsafe_code)]\n// unsafe"), Vec::<String>::new());
    assert_eq!(unsafe_words("#![forbid(unsafe_code)]"), Vec::<String>::new());
}

#[test]
fn modules_say_what_they_are() {
    let all: Vec<&str> = ALLOWED_EDGES.iter().map(|(name, _)| *name).collect();
    let found = in_sources(&all, lacks_module_doc);
    assert_none(&found, "begin the file with `//!` and what the module is for");
}

#[test]
fn modules_say_what_they_are_can_fail() {
    assert_eq!(lacks_module_doc("//! Something.\nfn a() {}"), Vec::<String>::new());
    assert_eq!(lacks_module_doc("#![no_std]\n//! Something.\n"), Vec::<String>::new());
    assert_eq!(lacks_module_doc("/// A function.\nfn a() {}").len(), 1);
    assert_eq!(lacks_module_doc("//!\nfn a() {}").len(), 1);
}

#[test]
fn every_crate_is_seen() {
    let names: BTreeSet<String> = packages().into_iter().map(|package| package.name).collect();
    let listed: BTreeSet<String> =
        ALLOWED_EDGES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names, listed, "ALLOWED_EDGES and the members of the workspace differ");
    for name in SANS_IO.iter().chain(NO_STD) {
        assert!(!sources_of(name).is_empty(), "{name} has no sources");
    }
}

fn forbidden_edges(name: &str, dependencies: &[String]) -> Vec<String> {
    match ALLOWED_EDGES.iter().find(|(of, _)| *of == name) {
        None => vec![format!("{name} is not in ALLOWED_EDGES")],
        Some((_, allowed)) => dependencies
            .iter()
            .filter(|used| !allowed.contains(&used.as_str()))
            .map(|used| format!("{name} -> {used}"))
            .collect(),
    }
}

fn too_long(text: &str) -> Vec<String> {
    let lines = text.lines().count();
    if lines > FILE_LINES {
        vec![format!("{lines} lines, at most {FILE_LINES}")]
    } else {
        Vec::new()
    }
}

fn wide_lines(text: &str) -> Vec<String> {
    let code = bare(text);
    text.lines()
        .zip(code.lines())
        .enumerate()
        .filter(|(_, (line, _))| line.chars().count() > LINE_COLUMNS)
        .filter(|(_, (line, code))| !code.contains('"') && !line.contains("://"))
        .map(|(index, (line, _))| format!("line {}: {} columns", index + 1, line.chars().count()))
        .collect()
}

fn io_words(text: &str) -> Vec<String> {
    let code = without_tests(&bare(text));
    let mut found: Vec<String> = IO_WORDS.iter().flat_map(|word| places(&code, word)).collect();
    // `use std::{.., net, ..}` names the module as well.
    for (start, group) in code.match_indices("std::{") {
        let inside: &str = code[start + group.len()..].split(';').next().unwrap_or_default();
        for module in ["net", "thread", "fs"] {
            let mut names = inside.split(|c: char| !(c.is_alphanumeric() || c == '_'));
            if names.any(|name| name == module) {
                found.push(format!("line {}: std::{module}", line_of(&code, start)));
            }
        }
    }
    found
}

fn lacks_no_std(text: &str) -> Vec<String> {
    let code: String = bare(text).split_whitespace().collect();
    if code.contains("#![no_std]") || (code.contains("#![cfg_attr(") && code.contains(",no_std)]"))
    {
        Vec::new()
    } else {
        vec!["`#![no_std]` is missing".to_owned()]
    }
}

fn unsafe_words(text: &str) -> Vec<String> {
    let code = bare(text);
    let mut found = places(&code, "unsafe");
    let lint = "unsafe_code";
    if ["allow", "expect", "warn"].iter().any(|lax| code.contains(&format!("{lax}({lint}"))) {
        found.extend(places(&code, lint));
    }
    found
}

fn lacks_module_doc(text: &str) -> Vec<String> {
    let doc = text.lines().find_map(|line| line.strip_prefix("//!"));
    if doc.is_some_and(|first| !first.trim().is_empty()) {
        Vec::new()
    } else {
        vec!["no module documentation".to_owned()]
    }
}

/// Where `word` stands as a whole word, as `line N: word`.
fn places(code: &str, word: &str) -> Vec<String> {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word)
        .filter(|(start, _)| !code[..*start].ends_with(part_of_name))
        .filter(|(start, _)| {
            word.ends_with(':') || !code[start + word.len()..].starts_with(part_of_name)
        })
        .map(|(start, _)| format!("line {}: {word}", line_of(code, start)))
        .collect()
}

fn line_of(text: &str, offset: usize) -> usize {
    text[..offset].matches('\n').count() + 1
}

/// The code alone: comments become spaces, and what stands in string and character literals
/// becomes `"`; lines stay where they are.
fn bare(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (length, filler) = literal_or_comment(rest, out.chars().next_back());
        match filler {
            None => {
                out.push(first);
                rest = &rest[first.len_utf8()..];
            }
            Some(filler) => {
                let (skipped, tail) = rest.split_at(length);
                out.extend(skipped.chars().map(|c| if c == '\n' { c } else { filler }));
                rest = tail;
            }
        }
    }
    out
}

/// Bytes of the comment or literal that `rest` begins with, and what to write in its place.
fn literal_or_comment(rest: &str, before: Option<char>) -> (usize, Option<char>) {
    let in_name = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let after_hashes = rest.strip_prefix('r').map(|raw| raw.trim_start_matches('#'));
    if rest.starts_with("//") {
        (rest.find('\n').unwrap_or(rest.len()), Some(' '))
    } else if rest.starts_with("/*") {
        (block_comment(rest), Some(' '))
    } else if !in_name && let Some(raw) = after_hashes.filter(|raw| raw.starts_with('"')) {
        let hashes = rest.len() - raw.len() - 1;
        let close = format!("\"{}", "#".repeat(hashes));
        let end = raw[1..].find(&close).map_or(rest.len(), |at| hashes + 2 + at + close.len());
        (end, Some('"'))
    } else if rest.starts_with('"') {
        (quoted(rest, '"'), Some('"'))
    } else if rest.starts_with('\'') && is_character(rest) {
        (quoted(rest, '\''), Some('"'))
    } else {
        (0, None)
    }
}

fn block_comment(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(tail) = rest.get(at..).filter(|tail| !tail.is_empty()) {
        if tail.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if tail.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += tail.chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        if !escaped && c == quote {
            return at + 1;
        }
        escaped = !escaped && c == '\\';
    }
    rest.len()
}

/// A character literal rather than a lifetime.
fn is_character(rest: &str) -> bool {
    let mut chars = rest.chars().skip(1);
    match (chars.next(), chars.next()) {
        (Some('\\'), _) => true,
        (Some(_), second) => second == Some('\''),
        _ => false,
    }
}

/// The code without the items behind `#[cfg(test)]`; lines stay where they are.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(start) = rest.find(MARK) {
        let (kept, item) = rest.split_at(start);
        let length = item_length(item);
        out.push_str(kept);
        out.extend(item[..length].chars().filter(|c| *c == '\n'));
        rest = &item[length..];
    }
    out + rest
}

/// Bytes up to the end of the first item: its closing brace, or a `;` before any brace.
fn item_length(item: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in item.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth <= 1 => return at + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    item.len()
}

/// A member of the workspace; names without `whimbrel-`.
struct Package {
    name: String,
    dependencies: Vec<String>,
}

fn packages() -> Vec<Package> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let list = |value: &Value| value.as_array().cloned().expect("a list");
    let ours = |value: &Value| {
        value["name"].as_str().and_then(|name| name.strip_prefix("whimbrel-")).map(str::to_owned)
    };
    list(&metadata["packages"])
        .iter()
        .map(|package| Package {
            name: ours(package).expect("a crate is named whimbrel-<folder>"),
            dependencies: list(&package["dependencies"])
                .iter()
                .filter(|dependency| dependency["kind"].as_str() != Some("dev"))
                .filter_map(ours)
                .collect(),
        })
        .collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").to_owned()
}

/// Findings in every Rust file of the repository, each with the file's path.
fn in_all_files(rule: impl Fn(&Path, &str) -> Vec<String>) -> Vec<String> {
    let mut files = Vec::new();
    for folder in folders(&root()) {
        if folder.join("Cargo.toml").is_file() {
            rust_files(&folder, &mut files);
        }
    }
    assert!(!files.is_empty(), "no Rust files found");
    findings(&files, rule)
}

/// Findings in the sources, tests apart, of the named crates.
fn in_sources(crates: &[&str], rule: impl Fn(&str) -> Vec<String>) -> Vec<String> {
    let files: Vec<PathBuf> = crates.iter().flat_map(|name| sources_of(name)).collect();
    findings(&files, |_, text| rule(text))
}

fn in_crate_roots(rule: impl Fn(&str, &str) -> Vec<String>) -> Vec<String> {
    let files: Vec<PathBuf> = ALLOWED_EDGES
        .iter()
        .map(|(name, _)| root().join(name).join("src/lib.rs"))
        .filter(|file| file.is_file())
        .collect();
    findings(&files, |path, text| {
        rule(path.iter().next().and_then(|name| name.to_str()).unwrap_or_default(), text)
    })
}

/// The files of a crate below `src`, but for those that hold tests alone.
fn sources_of(name: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    rust_files(&root().join(name).join("src"), &mut files);
    files.retain(|file| {
        !file.iter().any(|part| part == "tests")
            && !file
                .file_stem()
                .is_some_and(|stem| stem == "tests" || stem.to_string_lossy().ends_with("_tests"))
    });
    files
}

fn findings(files: &[PathBuf], rule: impl Fn(&Path, &str) -> Vec<String>) -> Vec<String> {
    let root = root();
    let mut found = Vec::new();
    for file in files {
        let text = fs::read_to_string(file).expect("a source is readable UTF-8");
        let path = file.strip_prefix(&root).unwrap_or(file);
        found.extend(rule(path, &text).iter().map(|what| format!("{}: {what}", path.display())));
    }
    found
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                rust_files(&path, files);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn folders(parent: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).expect("a readable folder");
    entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect()
}

fn assert_none(found: &[String], advice: &str) {
    assert!(found.is_empty(), "{advice}:\n  {}", found.join("\n  "));
}
