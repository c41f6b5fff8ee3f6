//! `whimbrel passwd`, as an operator uses it.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

const MOSQUITTO: &str = "old:$7$101$241De0xaVfX1i3/d$\
    skU4joVczvAI789QkKvVOrs8TFyNavKlowgiaxanrr5GfDmyX3KsivcVtnTNZ37hbyPk2WOCak8p+1Lq9w6DEw==";

/// A folder that is removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder = std::env::temp_dir().join(format!("whimbrel-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    fn file(&self) -> PathBuf {
        self.0.join("users")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }

    /// Runs `whimbrel passwd COMMAND FILE ...` with `input`: exit code and stderr.
    fn passwd(&self, command: &str, args: &[&str], input: &str) -> (i32, String) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_whimbrel"))
            .args(["passwd", command])
            .arg(self.file())
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that does not read may be gone already.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        assert!(output.stdout.is_empty(), "{output:?}");
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn users_are_added_verified_changed_and_removed() {
    let folder = Folder::new("passwd");
    let fine = (0, String::new());
    assert_eq!(folder.passwd("add", &["ann", "--stdin"], "wonder land\n"), fine);
    let mode = fs::metadata(folder.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(folder.text().starts_with("ann:$argon2id$v=19$m=19456,t=2,p=1$"));
    assert_eq!(folder.passwd("verify", &["ann", "--stdin"], "wonder land"), fine);
    for (user, password) in [("ann", "wonder lane"), ("ann", "wonder land\n\n"), ("bob", "x")] {
        let (code, said) = folder.passwd("verify", &[user, "--stdin"], password);
        assert_eq!(code, 1, "{user}");
        assert_eq!(said, "Error: wrong password, or no such user\n");
    }

    let secret = folder.0.join("secret");
    fs::write(&secret, "other\r\n").unwrap();
    let secret = secret.display().to_string();
    let args = ["ann", "--scram", "--group", "ops", "--group", "staff", "--password-file", &secret];
    assert_eq!(folder.passwd("add", &args, ""), fine);
    let text = folder.text();
    assert!(text.contains(":$scram-sha-256$15000$") && text.contains(":$scram-sha-512$15000$"));
    assert!(text.ends_with(":@ops,staff\n") && text.lines().count() == 1, "{text}");
    assert_eq!(folder.passwd("verify", &["ann", "--stdin"], "other"), fine);

    // Keys of an old password do not stay; groups do.
    assert_eq!(folder.passwd("add", &["ann", "--stdin"], "third"), fine);
    assert!(!folder.text().contains("scram") && folder.text().ends_with(":@ops,staff\n"));

    assert_eq!(folder.passwd("remove", &["ann"], ""), fine);
    assert_eq!(folder.passwd("remove", &["ann"], "").0, 1);
    assert_eq!(folder.text(), "");
    assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 2, "nothing is left behind");
}

#[test]
fn lines_of_mosquitto_comments_and_the_files_mode_stay() {
    let folder = Folder::new("passwd-mosquitto");
    fs::write(folder.file(), format!("# ours\n{MOSQUITTO}\n")).unwrap();
    fs::set_permissions(folder.file(), fs::Permissions::from_mode(0o640)).unwrap();
    let fine = (0, String::new());
    assert_eq!(folder.passwd("verify", &["old", "--stdin"], "wonder land"), fine);
    assert_eq!(folder.passwd("add", &["new", "--stdin"], "x"), fine);
    assert!(folder.text().starts_with(&format!("# ours\n{MOSQUITTO}\nnew:$argon2id$")));
    let mode = fs::metadata(folder.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
}

#[test]
fn what_cannot_be_done_is_said_and_changes_nothing() {
    let folder = Folder::new("passwd-refused");
    fs::write(folder.file(), "ann:secret word\n").unwrap();
    let before = folder.text();
    let table: &[(&str, &[&str], &str, &str)] = &[
        ("add", &["bob", "--stdin"], "", "the password is empty"),
        ("add", &["bob"], "", "use --stdin or --password-file"),
        ("add", &["b:b", "--stdin"], "x", "a user name holds no `:`"),
        ("add", &["bob", "--group", "a,b", "--stdin"], "x", "a group is empty, too long"),
        ("add", &["bob", "--scram", "--stdin"], "a\u{7}b", "for SCRAM a password is text"),
        ("add", &["bob", "--password-file", "/nonexistent"], "", "/nonexistent: "),
        ("add", &["bob", "--stdin", "--password-file", "x"], "", "cannot be used with"),
        ("verify", &["ann", "--stdin"], "x", "line 1: "),
        ("add", &[], "", "whimbrel passwd --help"),
    ];
    for (command, args, input, wanted) in table {
        let (code, said) = folder.passwd(command, args, input);
        assert_eq!(code, 2, "{command} {args:?}: {said}");
        assert!(said.contains(wanted), "{command} {args:?}: {said}");
        assert!(!said.contains("secret word"), "{said}");
        assert_eq!(folder.text(), before);
    }
    // A broken line of another user is no obstacle, but said.
    let (code, said) = folder.passwd("add", &["bob", "--stdin"], "x");
    assert_eq!(code, 0, "{said}");
    assert!(said.starts_with("Warning: ") && said.contains("line 1: "), "{said}");

    // A new password mends the user's own line.
    assert_eq!(folder.passwd("add", &["ann", "--stdin"], "x").0, 0);
    assert_eq!(folder.passwd("verify", &["ann", "--stdin"], "x"), (0, String::new()));

    fs::write(folder.0.join("users.new"), "").unwrap();
    let (code, said) = folder.passwd("remove", &["bob"], "");
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("another `whimbrel passwd` is at work"), "{said}");
}
