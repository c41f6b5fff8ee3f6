//! `whimbrel explain` as a user starts it.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::process::{Command, Output};

const RULES: &str = "\
[[rule]]
allow = ['publish', 'subscribe']
topics = ['dev/%c/#', 'site/%{site}/+']
qos = 1

[[rule]]
allow = 'subscribe'
topics = '#'
group = 'ops'
address = '10.0.0.0/8'
";

/// A folder of its own for each test, removed at its end.
struct Files(PathBuf);

impl Files {
    fn new(test: &str) -> Files {
        let dir = std::env::temp_dir().join(format!("whimbrel-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("rules.toml"), RULES).unwrap();
        std::fs::write(dir.join("acl"), "user roger\ntopic read a/#\n").unwrap();
        std::fs::write(dir.join("bad.toml"), "[[rule]]\nalow = 'x'\n").unwrap();
        Files(dir)
    }

    fn explain(&self, words: &str) -> (Option<i32>, String, String) {
        let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_whimbrel"))
            .arg("explain")
            .args(words.split(' '))
            .current_dir(&self.0)
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code(), text(stdout), text(stderr))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_exit_code_is_the_answer() {
    let files = Files::new("explain-answers");
    for (words, code, part) in [
        ("--rules rules.toml --client d1 --publish dev/d1/x", 0, "allowed by rules.toml:1: allow"),
        ("--rules rules.toml --client d2 --publish dev/d1/x", 1, "the client id is d2"),
        ("--rules rules.toml --client d1 --publish dev/d1/x --qos 2", 1, "no more than QoS 1"),
        ("--rules rules.toml --claim site=n --subscribe site/n/+ --qos 2", 0, "with QoS 1"),
        ("--rules rules.toml --subscribe #", 1, "is for others (group)"),
        ("--rules rules.toml --group ops --address 10.1.1.1 --subscribe #", 0, "rules.toml:6"),
        ("--rules rules.toml --group ops --address 11.1.1.1 --subscribe #", 1, "(address)"),
        ("--acl-file acl --user roger --subscribe $share/g/a/+", 0, "acl:2: topic read a/#"),
        ("--acl-file acl --user roger --publish a", 1, "not about publishing"),
        ("--acl-file acl --publish a", 1, "denied: no rule allows it"),
    ] {
        let (exit, stdout, stderr) = files.explain(words);
        assert_eq!(exit, Some(code), "{words}: {stdout}{stderr}");
        assert!(stdout.contains(part), "{words}: {stdout}");
        assert_eq!(stderr, "", "{words}");
    }
}

#[test]
fn a_question_that_cannot_be_answered_is_2() {
    let files = Files::new("explain-errors");
    for (words, part) in [
        ("--publish a", "--rules"),
        ("--rules rules.toml", "--publish"),
        ("--rules rules.toml --publish a/+", "must not contain"),
        ("--rules rules.toml --subscribe a#", "whole last level"),
        ("--rules rules.toml --subscribe $share/g", "must follow"),
        ("--rules rules.toml --subscribe a --retain", "cannot be used with"),
        ("--rules rules.toml --publish a --qos 3", "3"),
        ("--rules rules.toml --publish a --method jwt", "no method"),
        ("--rules bad.toml --publish a", "bad.toml:2: `alow` is no key of a rule"),
        ("--rules nowhere.toml --publish a", "nowhere.toml"),
    ] {
        let (exit, stdout, stderr) = files.explain(words);
        assert_eq!((exit, stdout.as_str()), (Some(2), ""), "{words}: {stderr}");
        assert!(stderr.contains(part) && stderr.lines().count() == 1, "{words}: {stderr}");
    }
}
