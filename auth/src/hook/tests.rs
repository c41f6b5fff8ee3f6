//! Tests of the hook with a service that a test plays.

use std::cell::RefCell;

use super::*;
use crate::Outcome;

/// Gives its answers in turn and remembers what it was asked.
#[derive(Default)]
struct Service {
    answers: RefCell<Vec<Result<&'static str, &'static str>>>,
    asked: RefCell<Vec<Value>>,
}

impl Post for Service {
    fn post_json(&self, _: &HookConfig, body: &str) -> Result<Vec<u8>, FetchError> {
        self.asked.borrow_mut().push(serde_json::from_str(body).expect("JSON"));
        let answer = self.answers.borrow_mut().pop().expect("it was not to be asked");
        answer.map(|text| text.as_bytes().to_vec()).map_err(|why| FetchError(why.into()))
    }
}

fn service(answer: Result<&'static str, &'static str>) -> Service {
    let service = Service::default();
    service.answers.borrow_mut().push(answer);
    service
}

fn method(cache_s: u64) -> HookMethod {
    HookMethod::new(HookConfig {
        url: "http://localhost/".into(),
        authorization: None,
        timeout_ms: 1000,
        cache_s,
        cache_entries: 2,
        max_failures: 2,
        pause_s: 10,
    })
}

fn attempt(name: &str) -> Attempt {
    Attempt {
        client_id: "c".into(),
        user_name: Some(name.into()),
        password: Some(Secret((*b"secret").into())),
        method: None,
        data: None,
        listener: 0,
        address: Some("[::ffff:192.0.2.1]:9".parse().expect("an address")),
        proof: None,
        exchange: None,
        current: None,
    }
}

fn accepted(outcome: MethodOutcome) -> std::sync::Arc<Principal> {
    match outcome {
        MethodOutcome::Decided(Outcome::Accepted { principal, .. }) => principal,
        other => panic!("not accepted but {other:?}"),
    }
}

fn refusal(outcome: MethodOutcome) -> Refusal {
    match outcome {
        MethodOutcome::Decided(Outcome::Refused(refused)) => refused.refusal,
        other => panic!("not refused but {other:?}"),
    }
}

#[test]
fn the_answer_says_who_the_client_is_and_what_it_may_do() {
    let service = service(Ok(r#"{"result": "allow", "user": "ann", "groups": ["g"],
        "claims": {"site": ["a", "b"], "n": 7, "deep": {"x": 1}},
        "permissions": [{"action": "all", "filter": "t/#", "qos": 1}], "expires_in_s": 60}"#));
    let principal = accepted(method(0).verify(&attempt("x"), 1000, &service));
    assert_eq!((&*principal.name, principal.method), ("ann", Method::Http));
    assert_eq!(principal.expires_s, Some(1060));
    let claims: Vec<_> = principal.claims.iter().map(|(n, v)| (&**n, &**v)).collect();
    assert_eq!(claims, [("n", "7"), ("site", "a"), ("site", "b")]);
    let permissions = principal.permissions.as_ref().expect("permissions");
    assert_eq!(permissions.len(), 2);
    assert!(permissions.iter().all(|p| p.qos == 1 && p.retain && &*p.filter == "t/#"));
    let asked = service.asked.borrow();
    assert_eq!(asked[0]["password"], "secret");
    assert_eq!(asked[0]["address"], "192.0.2.1");
}

#[test]
fn deny_refuses_and_ignore_leaves_it_to_others() {
    let deny = service(Ok(r#"{"result": "deny"}"#));
    assert_eq!(refusal(method(0).verify(&attempt("x"), 0, &deny)), Refusal::NotAuthorized);
    let ignore = service(Ok(r#"{"result": "ignore"}"#));
    let outcome = method(0).verify(&attempt("x"), 0, &ignore);
    assert!(matches!(outcome, MethodOutcome::NotMine));
}

#[test]
fn whatever_goes_wrong_refuses() {
    for answer in [
        Err("no route"),
        Ok(""),
        Ok("{}"),
        Ok("allow"),
        Ok(r#"{"result": "Allow"}"#),
        Ok(r#"{"result": "allow", "permissions": "all"}"#),
        Ok(r#"{"result": "allow", "user": "a\u0000b"}"#),
        Ok(r#"{"result": "allow", "permissions": [{"action": "own", "filter": "x"}]}"#),
    ] {
        let outcome = method(0).verify(&attempt("x"), 0, &service(answer));
        assert_eq!(refusal(outcome), Refusal::Unavailable, "{answer:?}");
    }
}

#[test]
fn after_failures_in_a_row_nobody_is_asked_for_a_while() {
    let method = method(0);
    for _ in 0..2 {
        method.verify(&attempt("x"), 100, &service(Err("down")));
    }
    let silent = Service::default();
    assert_eq!(refusal(method.verify(&attempt("x"), 109, &silent)), Refusal::Unavailable);
    let up = service(Ok(r#"{"result": "allow"}"#));
    accepted(method.verify(&attempt("x"), 110, &up));
    // One failure alone does not stop it.
    method.verify(&attempt("x"), 111, &service(Err("down")));
    accepted(method.verify(&attempt("x"), 112, &service(Ok(r#"{"result": "allow"}"#))));
}

#[test]
fn an_answer_is_kept_for_its_time_and_its_question() {
    let method = method(30);
    let allow = Ok(r#"{"result": "allow"}"#);
    accepted(method.verify(&attempt("x"), 100, &service(allow)));
    accepted(method.verify(&attempt("x"), 129, &Service::default()));
    accepted(method.verify(&attempt("x"), 130, &service(allow)));
    // Another password is another question.
    let mut other = attempt("x");
    other.password = Some(Secret((*b"guess").into()));
    let deny = service(Ok(r#"{"result": "deny"}"#));
    assert_eq!(refusal(method.verify(&other, 131, &deny)), Refusal::NotAuthorized);
    assert_eq!(refusal(method.verify(&other, 132, &Service::default())), Refusal::NotAuthorized);
    // More answers than there is room for are not kept.
    accepted(method.verify(&attempt("y"), 133, &service(allow)));
    accepted(method.verify(&attempt("y"), 133, &service(allow)));
}
