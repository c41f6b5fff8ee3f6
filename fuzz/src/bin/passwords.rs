//! Any text as a password file, and changes to it that leave all else as it is. No password is
//! checked: what that may cost is bounded, but not little.
#![no_main]

use libfuzzer_sys::fuzz_target;
use whimbrel_auth::password::{FileEditor, Hash, NewUser, PasswordFile};

fuzz_target!(|text: &str| {
    let before = PasswordFile::parse(text);
    let new = || NewUser { password: Hash::of_nobody(), scram: vec![], groups: None };
    let mut editor = FileEditor::new(text);
    let lines = editor.text().lines().count();
    let Ok(was_there) = editor.set("new user", new()) else {
        assert!(before.is_err(), "a user can be set in every file that can be read");
        return;
    };
    assert_eq!(editor.text().lines().count(), lines + usize::from(!was_there));
    let Ok(before) = before else { return };
    let with = PasswordFile::parse(&editor.text()).expect("one good line more");
    assert_eq!(with.len(), before.len() + usize::from(!was_there));
    assert!(with.user("new user").is_some());
    assert_eq!(editor.remove("new user"), Ok(true));
    let without = PasswordFile::parse(&editor.text()).expect("as before");
    assert_eq!(without.len(), with.len() - 1);
});
