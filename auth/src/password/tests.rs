//! What is read, what is refused, and that nothing tells a user who is there from one who is not.

use super::*;

/// Written by Debian's mosquitto_passwd 2.0.11 for the password `wonder land`.
const MOSQUITTO_SHA512: &str = "alice:$6$xQ3vmcWdypVRsZVe$\
    bA3l4/7HY89wmLCgpRn8b0Npx8tWcZYdCD9oeF67pkTxNL4R9ljBdRVwlfecEDZovCmWpzpjNA8igmb+xv3o8A==";
const MOSQUITTO_PBKDF2: &str = "alice:$7$101$241De0xaVfX1i3/d$\
    skU4joVczvAI789QkKvVOrs8TFyNavKlowgiaxanrr5GfDmyX3KsivcVtnTNZ37hbyPk2WOCak8p+1Lq9w6DEw==";
/// Written by argon2-cffi for the password `wonder land`: m=1024, t=1, p=1, 64 bytes of hash.
const ARGON2: &str = include_str!("tests/argon2id.txt");

fn file(text: &str) -> PasswordFile {
    PasswordFile::parse(text).expect("a file without faults")
}

fn fault(text: &str) -> String {
    let faults = PasswordFile::parse(text).expect_err("a fault");
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn files_of_mosquitto_are_read_as_they_are() {
    for line in [MOSQUITTO_SHA512, MOSQUITTO_PBKDF2, ARGON2] {
        let file = file(&format!("{}\r\n", line.trim_end()));
        assert_eq!(file.verify("alice", b"wonder land"), Some(vec![]), "{line}");
        assert_eq!(file.verify("alice", b"wonder lane"), None, "{line}");
        assert_eq!(file.verify("alice", b""), None, "{line}");
        assert_eq!(file.verify("bob", b"wonder land"), None, "{line}");
    }
}

#[test]
fn groups_and_scram_keys_stand_in_the_same_line() {
    let keys = StoredKeys::new(Mechanism::Sha256, "pencil", b"salt of 16 bytes", 4096);
    let keys = keys.expect("a fine password");
    let file = file(&format!("# users\n\n{MOSQUITTO_SHA512}:{keys}:@staff,ops\n"));
    assert_eq!(file.len(), 1);
    let groups = file.verify("alice", b"wonder land").expect("the password");
    assert_eq!(groups, ["staff".into(), "ops".into()]);
    assert_eq!(file.scram_keys("alice", Mechanism::Sha256), Some(&keys));
    assert_eq!(file.scram_keys("alice", Mechanism::Sha512), None);
    assert_eq!(file.usual_iterations(Mechanism::Sha256), 4096);
    assert_eq!(file.usual_iterations(Mechanism::Sha512), DEFAULT_ITERATIONS);
}

#[test]
fn each_fault_names_its_line_and_a_remedy() {
    let salt = "AAAAAAAAAAAAAAAAAAAAAA";
    let hash = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let table: &[(String, &str)] = &[
        ("ann".into(), "not `user:hash`"),
        ("ann:secret".into(), "must not stand here as it is"),
        ("ann:".into(), "not a password hash"),
        (":$6$a$b".into(), "user name is empty"),
        ("a\tb:$6$a$b".into(), "no control characters"),
        (format!("ann:$argon2i$v=19$m=1024,t=1,p=1${salt}${hash}"), "only the argon2id"),
        (format!("ann:$argon2id$v=16$m=1024,t=1,p=1${salt}${hash}"), "another version"),
        (format!("ann:$argon2id$v=19$t=1,m=1024,p=1${salt}${hash}"), "m=..,t=..,p=.."),
        (format!("ann:$argon2id$v=19$m=+1024,t=1,p=1${salt}${hash}"), "m=..,t=..,p=.."),
        (format!("ann:$argon2id$v=19$m=1024,t=1,p=1,x=1${salt}${hash}"), "m=..,t=..,p=.."),
        (format!("ann:$argon2id$v=19$m=4194304,t=1,p=1${salt}${hash}"), "costs too much"),
        (format!("ann:$argon2id$v=19$m=65536,t=4294967295,p=1${salt}${hash}"), "costs too much"),
        (format!("ann:$argon2id$v=19$m=65536,t=9,p=1${salt}${hash}"), "costs too much"),
        (format!("ann:$argon2id$v=19$m=65536,t=1,p=17${salt}${hash}"), "costs too much"),
        (format!("ann:$argon2id$v=19$m=8,t=1,p=2${salt}${hash}"), "8 times p"),
        (format!("ann:$argon2id$v=19$m=1024,t=1,p=1$*${hash}"), "the salt is not base64"),
        (format!("ann:$argon2id$v=19$m=1024,t=1,p=1${salt}$?"), "the hash is not base64"),
        (format!("ann:$argon2id$v=19$m=1024,t=1,p=1${salt}$AAAA"), "cut short"),
        (format!("ann:$argon2id$v=19$m=1024,t=1,p=1$AAAA${hash}"), "8 to 64 bytes"),
        (format!("ann:$7$1000001$AAAAAAAAAAAAAAAA${hash}="), "1 to 1000000"),
        (format!("ann:$7$0$AAAAAAAAAAAAAAAA${hash}="), "1 to 1000000"),
        (format!("ann:$7$99999999999999999999$AAAAAAAAAAAAAAAA${hash}="), "1 to 1000000"),
        (format!("ann:$6$AAAAAAAAAAAAAAAA${hash}="), "cut short"),
        ("ann:@staff".into(), "no password"),
        ("ann:@a:@b".into(), "join them"),
        ("ann:@a,,b".into(), "a group is empty"),
        ("ann:$scram-sha-1$4096$a$b$c".into(), "SHA-256 or SHA-512"),
        ("ann:$scram-sha-256$1$a$b$c".into(), "4096 to 1000000"),
        ("ann:$scram-sha-256$4096$a$b".into(), "not $scram-sha-256$"),
        ("ann:$scram-sha-256$4096$AAAAAAAAAAAAAAAA$AAAA$AAAA".into(), "no base64 of their length"),
    ];
    for (line, wanted) in table {
        let said = fault(&format!("# first\n{line}\n"));
        assert!(said.starts_with("line 2: "), "{line}: {said}");
        assert!(said.contains(wanted), "{line}: {said}");
        assert!(said.contains("; "), "no remedy for {line}: {said}");
        for secret in ["secret", salt, hash] {
            assert!(!said.contains(secret), "{said}");
        }
    }
}

#[test]
fn a_user_in_two_lines_is_a_fault() {
    let bob = MOSQUITTO_SHA512.replace("alice", "bob");
    let said = fault(&format!("{MOSQUITTO_SHA512}\n{bob}\n{MOSQUITTO_PBKDF2}\nx\n"));
    assert!(said.starts_with("line 3: the user stands in line 1 already"), "{said}");
    assert!(said.contains("\nline 4: "), "{said}");
}

#[test]
fn unknown_users_are_checked_against_one_of_the_file_always_the_same() {
    let bob = MOSQUITTO_PBKDF2.replace("alice", "bob");
    let file = file(&format!("{MOSQUITTO_SHA512}\n{bob}\n"));
    let draws = |file: &PasswordFile| -> Vec<u8> {
        (0..64).map(|n| keyed(&file.secret, "password", &n.to_string())[7] % 2).collect()
    };
    assert_eq!(draws(&file), draws(&file.clone()));
    assert!(draws(&file).contains(&0) && draws(&file).contains(&1));
    // The drawn user's password is none of an unknown user's.
    for n in 0..8 {
        assert_eq!(file.verify(&n.to_string(), b"wonder land"), None);
    }
    let empty = PasswordFile::parse("# nobody\n").expect("an empty file");
    assert_eq!(empty.verify("ann", b""), None);
}

#[test]
fn editing_keeps_comments_other_lines_and_groups() {
    let bob = MOSQUITTO_PBKDF2.replace("alice", "bob");
    let text = format!("# users\n{MOSQUITTO_SHA512}:@staff\n\n# more\n{bob}\nbroken line\n");
    let mut editor = FileEditor::new(&text);
    let new = |groups| NewUser { password: Hash::new(b"new", [7; 16]), scram: vec![], groups };
    assert_eq!(editor.set("alice", new(None)), Ok(true));
    assert_eq!(editor.set("eve", new(Some(vec!["ops".into()]))), Ok(false));
    let lines: Vec<String> = editor.text().lines().map(str::to_owned).collect();
    assert_eq!(lines[0], "# users");
    assert!(
        lines[1].starts_with("alice:$argon2id$v=19$m=19456,t=2,p=1$") && !lines[1].contains("$6$")
    );
    assert!(lines[1].ends_with(":@staff"), "{}", lines[1]);
    assert_eq!(lines[2..6], ["", "# more", &bob, "broken line"]);
    assert!(lines[6].starts_with("eve:$argon2id$") && lines[6].ends_with(":@ops"));
    assert_eq!(editor.remove("bob"), Ok(true));
    assert_eq!(editor.remove("bob"), Ok(false));
    let file = file(&editor.text().replace("broken line\n", ""));
    assert_eq!(file.verify("alice", b"new"), Some(vec!["staff".into()]));
    assert_eq!(file.verify("eve", b"new"), Some(vec!["ops".into()]));
    assert_eq!(file.len(), 2);
}

#[test]
fn editing_refuses_names_that_would_break_the_file() {
    let mut editor = FileEditor::new("");
    for name in ["", "a:b", "a\nb", "#a", "a\0"] {
        let new = NewUser { password: Hash::of_nobody(), scram: vec![], groups: None };
        assert!(editor.set(name, new).is_err(), "{name:?}");
    }
    for group in ["", "a b", "a,b", "a:b", "a\nb"] {
        let groups = Some(vec![group.into()]);
        let new = NewUser { password: Hash::of_nobody(), scram: vec![], groups };
        assert!(editor.set("ann", new).is_err(), "{group:?}");
    }
    assert_eq!(editor.text(), "");
    let twice = format!("{MOSQUITTO_SHA512}\n{MOSQUITTO_PBKDF2}\n");
    assert!(FileEditor::new(&twice).remove("alice").is_err());
}

#[test]
fn what_is_written_is_read_again() {
    for line in [MOSQUITTO_SHA512, MOSQUITTO_PBKDF2, ARGON2.trim_end()] {
        let (_, user) = parse_line(line).expect("a fine line");
        assert_eq!(format!("alice{user}"), line);
    }
}

#[test]
fn nothing_of_a_hash_is_in_debug_output() {
    let file = file(MOSQUITTO_SHA512);
    let shown = format!("{file:?} {:?} {:?}", file.user("alice"), FileEditor::new(ARGON2));
    assert!(!shown.contains("xQ3v") && !shown.contains("$6$") && !shown.contains("argon2id$"));
}
