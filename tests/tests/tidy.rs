//! The source keeps the rules that it sets itself.

#![allow(clippy::indexing_slicing, reason = "this is a test: what is not there fails it")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use zue_settings::NodeConfig;

const LINES_MAX: usize = 400;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The Rust files of the project: path below its root, and text.
fn sources() -> Vec<(String, String)> {
    let listed =
        Command::new("git").args(["ls-files", "-co", "--exclude-standard", "*.rs"]).current_dir(root()).output();
    let listed = String::from_utf8(listed.expect("git runs").stdout).expect("paths are text");
    let read = |path: &str| std::fs::read_to_string(root().join(path)).ok().map(|text| (path.to_owned(), text));
    let sources: Vec<_> = listed.lines().filter_map(read).collect();
    assert!(sources.len() > 50, "only {} files were found", sources.len());
    sources
}

/// The number of a file's lines besides its tests, whoever may use those.
fn lines(text: &str) -> usize {
    let openings = ["#[cfg(test)]\nmod tests {", "#[cfg(test)]\npub(crate) mod tests {"];
    let besides = openings.iter().fold(text, |text, opening| text.split(opening).next().unwrap_or_default());
    besides.lines().count()
}

#[test]
fn every_file_says_what_it_is_for_and_is_short() {
    let is_test = |path: &str| path.contains("/tests/") || path.ends_with("tests.rs");
    let problem = |(path, text): &(String, String)| {
        let silent = !text.starts_with("//!");
        let long = !is_test(path) && lines(text) > LINES_MAX;
        (silent || long).then(|| format!("{path}: {} lines", lines(text)))
    };
    assert_eq!(sources().iter().filter_map(problem).collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn no_test_is_left_out_and_no_stub_is_left_in() {
    let marks = [concat!("#[", "ignore"), concat!("to", "do!("), concat!("unimple", "mented!("), concat!("FIX", "ME")];
    let problem = |(path, text): &(String, String)| {
        let found: Vec<_> = marks.iter().filter(|mark| text.contains(**mark)).collect();
        (!found.is_empty()).then(|| format!("{path}: {found:?}"))
    };
    assert_eq!(sources().iter().filter_map(problem).collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn no_file_holds_both_sides_of_a_merge() {
    let found =
        Command::new("git").args(["grep", "-lE", "^(<{7}|>{7}) "]).current_dir(root()).output().expect("git runs");
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}

/// Whoever prints an error prints its sources behind it: one that is in the text already would be told twice.
#[test]
fn no_error_says_what_its_source_says() {
    let is_told_twice = |(before, line): (&str, &str)| {
        let first_is_told = before.contains("#[error(") && before.contains("{0");
        let named = line.contains("#[error(") && line.contains("{source");
        named || (first_is_told && (line.contains("(#[source]") || line.contains("(#[from]")))
    };
    let problem = |(path, text): &(String, String)| {
        let pairs = text.lines().zip(text.lines().skip(1));
        let found: Vec<&str> = pairs.filter(|pair| is_told_twice(*pair)).map(|(_, line)| line.trim()).collect();
        (!found.is_empty() && !path.ends_with("tidy.rs")).then(|| format!("{path}: {found:?}"))
    };
    assert_eq!(sources().iter().filter_map(problem).collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn the_crates_depend_on_each_other_in_one_direction() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let uses = |package: &str| -> Vec<String> {
        let packages = metadata["packages"].as_array().expect("packages");
        let package =
            packages.iter().find(|one| one["name"] == package).unwrap_or_else(|| panic!("no package {package}"));
        let dependencies = package["dependencies"].as_array().expect("dependencies").iter();
        let normal = dependencies.filter(|dependency| dependency["kind"].is_null());
        normal.filter_map(|dependency| dependency["name"].as_str().map(str::to_owned)).collect()
    };
    // With all that lies behind them, within the workspace.
    let reached = |package: &str| -> BTreeSet<String> {
        let (mut found, mut left) = (BTreeSet::new(), vec![package.to_owned()]);
        while let Some(next) = left.pop() {
            for dependency in uses(&next) {
                let is_ours = dependency.starts_with("zue-");
                if found.insert(dependency.clone()) && is_ours {
                    left.push(dependency);
                }
            }
        }
        found
    };
    for (package, never) in [
        ("zue-core", &["zue-", "tokio", "tonic", "kube", "bytes"][..]),
        ("zue-log", &["zue-proto", "zue-node", "zue-client", "tokio", "tonic", "kube"]),
        ("zue-backup", &["zue-proto", "zue-node", "zue-client", "zue-telemetry", "tonic", "kube", "reqwest"]),
        ("zue-engine", &["zue-proto", "zue-node", "zue-client", "zue-telemetry", "tokio", "tonic", "kube"]),
        ("zue-proto", &["zue-log", "zue-node", "zue-client", "zue-settings", "kube"]),
        ("zue-settings", &["zue-log", "zue-engine", "zue-node", "zue-proto", "tonic", "kube"]),
        ("zue-controller", &["zue-log", "zue-node", "zue-client", "zue-operator", "kube"]),
        ("zue-node", &["zue-client", "zue-operator", "kube", "k8s-openapi"]),
        ("zue-client", &["zue-log", "zue-node", "zue-controller", "zue-operator", "kube", "k8s-openapi"]),
        ("zue-cli", &["zue-operator", "kube", "k8s-openapi"]),
        ("zue-operator", &["zue-log", "zue-engine", "zue-node", "zue-client"]),
        ("zue-telemetry", &["zue-", "tokio", "tonic", "kube"]),
        ("zue-tls", &["zue-", "tonic", "kube"]),
    ] {
        for dependency in reached(package) {
            assert!(!never.iter().any(|name| dependency.starts_with(name)), "{package} must not know {dependency}");
        }
    }
    // The wire checks what arrives by the types of the rules, and the log shares its bytes. Those in between know neither.
    for (package, never) in [("zue-client", "zue-core"), ("zue-engine", "bytes")] {
        assert!(!uses(package).contains(&never.to_owned()), "{package} must not use {never}");
    }
}

#[test]
fn an_image_is_built_from_every_crate() {
    let read = |file: &str| std::fs::read_to_string(root().join(file)).expect("it is there");
    let (manifest, ignored) = (read("Cargo.toml"), read(".dockerignore"));
    let members = manifest.split("\nmembers = [").nth(1).and_then(|list| list.split(']').next()).expect("a list");
    let members: Vec<&str> = members.split(',').map(|member| member.trim().trim_matches('"')).collect();
    assert!(members.len() > 10, "{members:?}");
    for member in members {
        let folder = member.split('/').next().unwrap_or(member);
        assert!(ignored.lines().any(|line| line == format!("!{folder}")), ".dockerignore leaves {folder} out");
    }
}

#[test]
fn the_readme_names_every_setting_with_its_default() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("there is a README");
    let NodeConfig { log, replication, limits, tls, access, backup, .. } = NodeConfig::default();
    let sections = serde_json::json!({"log": log, "replication": replication, "limits": limits, "tls": tls, "access": access, "backup": backup});
    for (section, settings) in sections.as_object().expect("sections") {
        for (name, default) in settings.as_object().expect("settings") {
            let default = default.as_str().map_or_else(|| default.to_string(), str::to_owned);
            let row = format!("| `{section}.{name}` | {default} |");
            assert!(readme.contains(&row), "the README lacks {row}");
        }
    }
}

/// A program that runs for long must not end because nobody takes what it says: these macros panic then, and so does a logger of
/// its own. `zue_telemetry` says and logs instead.
#[test]
fn what_the_programs_say_cannot_end_them() {
    let ways = ["print!(", "println!(", "dbg!(", "tracing_subscriber::", "log_internal_errors(true)"];
    let is_tool = |path: &str| ["tests/", "fuzz/"].iter().any(|folder| path.starts_with(folder));
    let is_test = |path: &str| path.contains("/tests/") || path.contains("/benches/") || path.contains("/examples/");
    let problem = |(path, text): &(String, String)| {
        if is_tool(path) || is_test(path) || path.ends_with("tests.rs") || path.ends_with("build.rs") {
            return None;
        }
        let allowed = |way: &str| path.starts_with("telemetry/") && way == "tracing_subscriber::";
        let source = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
        let found: Vec<_> = code.filter(|line| ways.iter().any(|way| line.contains(way) && !allowed(way))).collect();
        (!found.is_empty()).then(|| format!("{path}: {found:?}"))
    };
    assert_eq!(sources().iter().filter_map(problem).collect::<Vec<_>>(), Vec::<String>::new());
}
