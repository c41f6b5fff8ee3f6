//! Completions and man pages, as the programs that read them see them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn whimbrel(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_whimbrel")).args(words).output().expect("it runs")
}

fn text(words: &[&str]) -> String {
    let output = whimbrel(words);
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// A folder that is removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let name = format!("whimbrel-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        Folder(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn is_installed(program: &str) -> bool {
    let quiet = Command::new(program).arg("--version").stdout(Stdio::null()).status();
    quiet.is_ok_and(|status| status.success())
}

/// What bash offers for the last of these words.
fn completed(script: &Path, words: &[&str]) -> Vec<String> {
    let program = r#"
        set -u
        source "$1"; shift
        COMP_WORDS=("$@")
        COMP_CWORD=$(($# - 1))
        COMPREPLY=()
        _whimbrel whimbrel "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", program, "bash"]).arg(script).arg("whimbrel").args(words);
    let output = bash.output().expect("bash runs");
    assert!(output.stderr.is_empty(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").lines().map(String::from).collect()
}

#[test]
fn bash_completes_commands_flags_and_values() {
    let folder = Folder::new("bash");
    let script = folder.0.join("whimbrel");
    std::fs::write(&script, text(&["completions", "bash"])).expect("a file");
    for (words, expected) in [
        (&["pu"][..], &["pub"][..]),
        (&["sh"], &["shell"]),
        (&["pub", "--cafi"], &["--cafile"]),
        (&["pub", "--host", "x", "--mess"], &["--message"]),
        (&["sub", "--retained"], &["--retained-only"]),
        (&["shell", "--will-p"], &["--will-payload"]),
        (&["passwd", "a"], &["add"]),
        (&["completions", "z"], &["zsh"]),
    ] {
        assert_eq!(completed(&script, words), expected, "{words:?}");
    }
    let key = folder.0.join("client-key.pem");
    std::fs::write(&key, "").expect("a file");
    let begun = folder.0.join("client-k").display().to_string();
    assert_eq!(completed(&script, &["pub", "--key", &begun]), [key.display().to_string()]);
}

#[test]
fn every_shell_has_a_script() {
    for (shell, check) in [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")] {
        let script = text(&["completions", shell]);
        assert!(script.contains("retained-only"), "{shell}");
        if is_installed(shell) {
            let folder = Folder::new(&format!("script-{shell}"));
            let file = folder.0.join("script");
            std::fs::write(&file, script).expect("a file");
            let output = Command::new(shell).arg(check).arg(&file).output().expect("it runs");
            assert!(output.status.success() && output.stderr.is_empty(), "{shell}: {output:?}");
        }
    }
    for shell in ["elvish", "powershell"] {
        assert!(text(&["completions", shell]).contains("retained-only"), "{shell}");
    }
    let output = whimbrel(&["completions", "tcsh"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{said}");
    assert!(said.contains("[possible values: bash, elvish, fish, powershell, zsh]"), "{said}");
}

/// `--flag`s of a help text.
fn flags(help: &str) -> BTreeSet<String> {
    help.lines()
        .map(str::trim_start)
        .filter(|line| line.starts_with('-'))
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with("--")))
        .filter_map(|word| word.split(['=', '[', ',', '.']).next().map(str::to_owned))
        .collect()
}

#[test]
fn man_pages_have_all_commands_and_flags() {
    let folder = Folder::new("man");
    let dir = folder.0.join("new/man1");
    let listed = text(&["man", &dir.display().to_string()]);
    let pages: BTreeSet<PathBuf> = listed.lines().map(PathBuf::from).collect();
    let commands = ["broker", "pub", "sub", "rr", "shell", "bench", "certs", "store", "passwd"];
    for command in commands {
        let page = dir.join(format!("whimbrel-{command}.1"));
        assert!(pages.contains(&page), "{command}: {listed}");
        let page = std::fs::read_to_string(page).expect("a page");
        let help = text(&[command, "--help"]);
        let flags = flags(&help);
        assert!(flags.contains("--help"), "{help}");
        for flag in flags {
            let escaped = flag.replace('-', r"\-");
            assert!(page.contains(&escaped), "whimbrel-{command}.1 lacks {flag}");
        }
    }
    let main = std::fs::read_to_string(dir.join("whimbrel.1")).expect("a page");
    for command in commands {
        assert!(main.contains(&format!(r"whimbrel\-{command}(1)")), "{command}");
    }
    assert!(pages.contains(&dir.join("whimbrel-passwd-add.1")), "{listed}");
    assert!(!listed.contains("help"), "{listed}");
    for page in pages.iter().filter(|_| is_installed("groff")) {
        let mut groff = Command::new("groff");
        let output = groff.args(["-man", "-Tutf8", "-ww", "-z"]).arg(page).output();
        let output = output.expect("groff runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{}: {said}", page.display());
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_told() {
    let output = whimbrel(&["man", "/dev/null/man"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("/dev/null/man") && said.contains("give another DIR"), "{said}");
}
