//! What others wrote and we use: its licences and where it comes from. `deny.toml` says the same
//! to cargo-deny, which also knows advisories.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Licences that go with ours, by their SPDX names.
const LICENCES: &[&str] =
    &["Apache-2.0", "BlueOak-1.0.0", "BSD-3-Clause", "ISC", "MIT", "Unicode-3.0", "Zlib"];

/// The only place that a dependency may come from.
const SOURCE: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// All packages that end up in the binary or in a test on Linux.
fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    metadata["packages"].as_array().cloned().expect("a list")
}

/// What is wrong with a package, if something is.
fn fault(package: &Value) -> Option<String> {
    let (name, version) = (&package["name"], &package["version"]);
    let licence = package["license"].as_str().unwrap_or_default();
    if !allows(licence) {
        return Some(format!("{name} {version}: licence `{licence}`"));
    }
    let ours = package["name"].as_str().is_some_and(|name| name.starts_with("whimbrel-"));
    let source = package["source"].as_str();
    let expected = if ours { None } else { Some(SOURCE) };
    (source != expected).then(|| format!("{name} {version}: comes from {source:?}"))
}

/// Whether an SPDX expression can be met with [`LICENCES`] alone.
fn allows(expression: &str) -> bool {
    // An older way to write OR.
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = &words[..];
    any(&mut rest) && rest.is_empty()
}

fn any(rest: &mut &[&str]) -> bool {
    let mut met = all(rest);
    while let [word, after @ ..] = *rest
        && *word == "OR"
    {
        *rest = after;
        met |= all(rest);
    }
    met
}

fn all(rest: &mut &[&str]) -> bool {
    let mut met = one(rest);
    while let [word, after @ ..] = *rest
        && *word == "AND"
    {
        *rest = after;
        met &= one(rest);
    }
    met
}

fn one(rest: &mut &[&str]) -> bool {
    match *rest {
        ["(", inner @ ..] => {
            *rest = inner;
            let met = any(rest);
            let [")", after @ ..] = *rest else { return false };
            *rest = after;
            met
        }
        // An exception only permits more.
        [licence, "WITH", _, after @ ..] | [licence, after @ ..] => {
            *rest = after;
            LICENCES.contains(licence)
        }
        [] => false,
    }
}

#[test]
fn dependencies_have_licences_that_go_with_ours_and_come_from_crates_io() {
    let packages = packages();
    assert!(packages.len() > 50, "dependencies are missing");
    let faults: Vec<String> = packages.iter().filter_map(fault).collect();
    assert!(faults.is_empty(), "use something else, or decide on it here:\n{}", faults.join("\n"));
}

#[test]
fn expressions_of_licences_are_understood() {
    for good in [
        "MIT",
        "MIT/Apache-2.0",
        "GPL-3.0 OR MIT",
        "ISC AND (Apache-2.0 OR GPL-3.0)",
        "Apache-2.0 WITH LLVM-exception",
        "(MIT OR GPL-2.0) AND Unicode-3.0",
    ] {
        assert!(allows(good), "{good}");
    }
    for bad in [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "(MIT",
        "MIT)",
        "MIT AND",
        "ISC AND (GPL-3.0 OR AGPL-3.0)",
    ] {
        assert!(!allows(bad), "{bad}");
    }
}

#[test]
fn a_package_from_elsewhere_is_found() {
    let package = |name: &str, licence: &str, source: Option<&str>| {
        let source = source.map_or("null".into(), |source| format!("\"{source}\""));
        let text = format!(
            "{{\"name\": \"{name}\", \"version\": \"1.0.0\", \"license\": \"{licence}\", \
             \"source\": {source}}}"
        );
        fault(&serde_json::from_str(&text).expect("JSON"))
    };
    assert_eq!(package("a", "MIT", Some(SOURCE)), None);
    assert_eq!(package("whimbrel-a", "Apache-2.0", None), None);
    assert!(package("a", "MIT", Some("git+https://example.org/a")).is_some());
    assert!(package("a", "MIT", None).is_some(), "a folder that is not ours");
    assert!(package("whimbrel-a", "MIT", Some(SOURCE)).is_some(), "ours are not published");
    assert!(package("a", "SSPL-1.0", Some(SOURCE)).is_some());
}
