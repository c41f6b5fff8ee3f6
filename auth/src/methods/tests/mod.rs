//! Each method as a step of a chain: whom it knows, and how exchanges go.

mod ace;
mod token;

use super::*;
use crate::password::{FileEditor, Hash, NewUser};
use crate::scram::StoredKeys;
use crate::scram::client::Client;
use crate::{Certificate, Proof, Secret};

fn file() -> Arc<PasswordFile> {
    let mut editor = FileEditor::new("");
    let keys =
        |mechanism| StoredKeys::new(mechanism, "pencil", &[5; 16], 4096).expect("a fine password");
    let new = NewUser {
        password: Hash::new(b"pencil", [1; 16]),
        scram: vec![keys(Mechanism::Sha256), keys(Mechanism::Sha512)],
        groups: Some(vec!["staff".into()]),
    };
    editor.set("ann", new).expect("a fine name");
    Arc::new(PasswordFile::parse(&editor.text()).expect("a file without faults"))
}

fn attempt() -> Attempt {
    Attempt {
        client_id: "c".into(),
        user_name: None,
        password: None,
        method: None,
        data: None,
        listener: 0,
        address: None,
        proof: None,
        exchange: None,
        current: None,
    }
}

fn secret(bytes: &[u8]) -> Option<Secret> {
    Some(Secret(bytes.into()))
}

fn login(user: &str, password: &str) -> Attempt {
    let password = secret(password.as_bytes());
    Attempt { user_name: Some(user.into()), password, ..attempt() }
}

fn decided(outcome: MethodOutcome) -> Outcome {
    match outcome {
        MethodOutcome::Decided(outcome) => outcome,
        MethodOutcome::NotMine => panic!("not decided"),
    }
}

fn accepted(outcome: Outcome) -> (Arc<Principal>, Option<Vec<u8>>) {
    match outcome {
        Outcome::Accepted { principal, data } => (principal, data),
        other => panic!("not accepted: {other:?}"),
    }
}

fn refusal(outcome: Outcome) -> Refused {
    match outcome {
        Outcome::Refused(refused) => refused,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn the_password_method_knows_the_users_of_its_file() {
    let method = PasswordMethod::new(file());
    let certificate = Certificate { identity: Some("device".into()), ..Default::default() };
    let proof = Proof { certificate: Some(certificate), ..Default::default() };
    let fine = Attempt { proof: Some(Arc::new(proof)), ..login("ann", "pencil") };
    let (principal, data) = accepted(decided(method.verify(&fine)));
    assert_eq!((&*principal.name, principal.method), ("ann", Method::Password));
    assert_eq!(principal.groups, ["staff".into()]);
    assert_eq!(principal.certificate.as_deref(), Some("device"));
    assert_eq!(data, None);

    for other in [
        login("bob", "pencil"),
        attempt(),
        Attempt { method: Some("OAUTH2-JWT".into()), ..login("ann", "pencil") },
    ] {
        assert!(matches!(method.verify(&other), MethodOutcome::NotMine), "{other:?}");
    }
}

#[test]
fn user_name_oracle_a_wrong_password_and_an_unknown_user_get_the_same_refusal() {
    let method = PasswordMethod::new(file());
    let known = refusal(decided(method.verify(&login("ann", "wrong"))));
    let unknown = refusal(method.refuse(&login("bob", "wrong")));
    assert_eq!(known.refusal, Refusal::BadUserNameOrPassword);
    assert_eq!((known.refusal, &known.detail), (unknown.refusal, &unknown.detail));
    let nameless = refusal(method.refuse(&attempt()));
    assert_eq!(nameless.refusal, Refusal::BadUserNameOrPassword);
}

#[test]
fn re_authentication_as_somebody_else_is_refused() {
    let method = PasswordMethod::new(file());
    let current = |name| Some(Arc::new(Principal::new(name, Method::Scram)));
    let same = Attempt { current: current("ann"), ..login("ann", "pencil") };
    accepted(decided(method.verify(&same)));
    let other = Attempt { current: current("bob"), ..login("ann", "pencil") };
    assert_eq!(refusal(decided(method.verify(&other))).refusal, Refusal::NotAuthorized);
}

/// The outcome of the last step of an exchange.
fn scram(method: &ScramMethod, mechanism: Mechanism, user: &str, password: &str) -> Outcome {
    let (client, first) = Client::new(mechanism, user, password, "abc").expect("a client");
    let begun = scram_step(method, mechanism, None, &first);
    let Outcome::Continue { exchange, data } = begun else { panic!("{begun:?}") };
    let (expectation, last) = client.answer(&data).expect("a server-first");
    let outcome = scram_step(method, mechanism, Some(exchange), &last);
    if let Outcome::Accepted { data, .. } = &outcome {
        let data = data.as_deref().expect("server-final");
        assert_eq!(expectation.check(data), Ok(()));
    }
    outcome
}

fn scram_step(
    method: &ScramMethod,
    mechanism: Mechanism,
    exchange: Option<Exchange>,
    data: &[u8],
) -> Outcome {
    let attempt = Attempt {
        method: Some(mechanism.name().into()),
        data: secret(data),
        exchange,
        ..attempt()
    };
    decided(method.verify(&attempt, &[8; 32]))
}

#[test]
fn scram_accepts_who_knows_the_password() {
    let method = ScramMethod::new(file(), [7; 32]);
    for mechanism in [Mechanism::Sha256, Mechanism::Sha512] {
        let (principal, _) = accepted(scram(&method, mechanism, "ann", "pencil"));
        assert_eq!((&*principal.name, principal.method), ("ann", Method::Scram));
        assert_eq!(principal.groups, ["staff".into()]);
    }
    assert!(matches!(method.verify(&login("ann", "pencil"), &[8; 32]), MethodOutcome::NotMine));
}

#[test]
fn scram_user_name_oracle_unknown_users_are_refused_like_wrong_passwords() {
    let method = ScramMethod::new(file(), [7; 32]);
    let wrong = refusal(scram(&method, Mechanism::Sha256, "ann", "pencils"));
    let unknown = refusal(scram(&method, Mechanism::Sha256, "bob", "pencils"));
    assert_eq!(wrong.refusal, Refusal::BadUserNameOrPassword);
    assert_eq!(wrong.data.as_deref(), Some(&b"e=invalid-proof"[..]));
    let told = |refused: &Refused| (refused.refusal, refused.detail.clone(), refused.data.clone());
    assert_eq!(told(&wrong), told(&unknown));

    let salt = |user: &str, method: &ScramMethod| {
        let first = format!("n,,n={user},r=abc");
        match scram_step(method, Mechanism::Sha256, None, first.as_bytes()) {
            Outcome::Continue { data, .. } => {
                let text = String::from_utf8(data).expect("text");
                text.split_once(",s=").expect("a salt").1.to_owned()
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(salt("bob", &method), salt("bob", &method), "stable for a user");
    assert_eq!(salt("bob", &method), salt("bob", &ScramMethod::new(file(), [7; 32])));
    assert_ne!(salt("bob", &method), salt("eve", &method), "another for another");
    assert_ne!(salt("bob", &method), salt("bob", &ScramMethod::new(file(), [6; 32])));
    assert_eq!(salt("bob", &method).len(), salt("ann", &method).len());
}

#[test]
fn scram_may_begin_with_the_method_alone() {
    let method = ScramMethod::new(file(), [7; 32]);
    let begun = scram_step(&method, Mechanism::Sha256, None, b"");
    let Outcome::Continue { exchange, data } = begun else { panic!("{begun:?}") };
    assert!(data.is_empty());
    let first = b"n,,n=ann,r=abc";
    let outcome = scram_step(&method, Mechanism::Sha256, Some(exchange), first);
    assert!(matches!(outcome, Outcome::Continue { .. }), "{outcome:?}");
    let begun = scram_step(&method, Mechanism::Sha256, None, b"");
    let Outcome::Continue { exchange, .. } = begun else { panic!("{begun:?}") };
    let refused = refusal(scram_step(&method, Mechanism::Sha256, Some(exchange), b""));
    assert_eq!(refused.refusal, Refusal::ProtocolError, "not for ever");
}

#[test]
fn scram_refuses_another_user_name_in_connect() {
    let method = ScramMethod::new(file(), [7; 32]);
    let with = |name: &str| Attempt {
        user_name: Some(name.into()),
        method: Some("SCRAM-SHA-256".into()),
        data: secret(b"n,,n=ann,r=abc"),
        ..attempt()
    };
    let refused = refusal(decided(method.verify(&with("bob"), &[8; 32])));
    assert_eq!(refused.refusal, Refusal::BadUserNameOrPassword);
    let outcome = decided(method.verify(&with("ann"), &[8; 32]));
    assert!(matches!(outcome, Outcome::Continue { .. }));
}

#[test]
fn scram_refuses_an_exchange_that_changes_its_mechanism_or_is_of_another_method() {
    let method = ScramMethod::new(file(), [7; 32]);
    let begun = scram_step(&method, Mechanism::Sha256, None, b"n,,n=ann,r=abc");
    let Outcome::Continue { exchange, .. } = begun else { panic!("{begun:?}") };
    for exchange in [exchange, Exchange(Box::new(1))] {
        let outcome = scram_step(&method, Mechanism::Sha512, Some(exchange), b"c=biws,r=a,p=");
        assert_eq!(refusal(outcome).refusal, Refusal::ProtocolError);
    }
}
