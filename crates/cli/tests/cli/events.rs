//! Checks the samples of `events/`: their signatures, their escapes, and the table of their README.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use ingress_tools::meta::{
    expect::Expected,
    samples::{APP_SECRET, Sample, Signer},
    sign,
};
use oracle::Fragment;
use serde_json::Value;
use whatsapp_webhook::{routes::CATCH_ALL, signature};

/// Meta's fields, with the routes that have a queue by default. A test compares them with the template.
const FIELDS: &str = include_str!("../../../../docs/fields.json");

/// Returns the routes that have a queue by default.
fn routes() -> BTreeSet<String> {
    let fields: Value = serde_json::from_str(FIELDS).unwrap();
    let routes = fields["fields"].as_array().unwrap().iter().flat_map(|field| field["queues"].as_array().unwrap());
    routes.map(|route| route.as_str().unwrap().to_owned()).collect()
}

fn events() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../events")
}

fn samples() -> Vec<Sample> {
    Sample::load_all(&events()).unwrap()
}

/// Formats the route of a fragment as the table does.
fn format_route(fragment: &Fragment, routes: &BTreeSet<String>) -> String {
    let route = fragment.route(|route| routes.contains(route));
    match fragment.unrouted_reason(&route) {
        Some(reason) => format!("`{route}` ({reason})"),
        None => format!("`{route}`"),
    }
}

#[test]
fn every_signature_is_up_to_date() {
    for sample in samples() {
        assert_eq!(sign::sign_event(&sample, APP_SECRET), sample.text, "{}", sample.name);
    }
}

#[test]
fn only_samples_signed_by_meta_are_verified() {
    for sample in samples().iter().filter(|sample| sample.method == "POST") {
        let header = sample.headers.get(signature::HEADER).map(String::as_bytes);
        let result = signature::verify([APP_SECRET], &sample.body, header);
        assert_eq!(result.is_ok(), sample.signer() == Signer::Meta, "{}", sample.name);
    }
}

#[test]
fn bodies_are_escaped_as_meta_does() {
    for sample in samples() {
        let body = String::from_utf8(sample.body).unwrap();
        assert!(body.is_ascii(), "{}: not ASCII", sample.name);
        assert!(!body.replace("\\/", "").contains('/'), "{}: unescaped slash", sample.name);
    }
}

#[test]
fn every_route_has_a_sample() {
    let mut routes = routes();
    let sampled: BTreeSet<_> = samples()
        .iter()
        .flat_map(|sample| Expected::of(sample).fragments)
        .map(|fragment| fragment.route(|route| routes.contains(route)))
        .collect();

    routes.insert(CATCH_ALL.to_owned());
    assert_eq!(sampled, routes);
}

#[test]
fn readme_has_the_result_of_every_sample() {
    let readme = fs::read_to_string(events().join("README.md")).unwrap();
    let rows: Vec<Vec<_>> = readme
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let table: BTreeSet<_> = rows.iter().map(|row| (row[0].to_owned(), row[2].to_owned(), row[3].to_owned())).collect();

    let configured = routes();
    let computed: BTreeSet<_> = samples()
        .iter()
        .map(|sample| {
            let expected = Expected::of(sample);
            let mut routes: Vec<String> = Vec::new();
            for route in expected.fragments.iter().map(|fragment| format_route(fragment, &configured)) {
                if !routes.contains(&route) {
                    routes.push(route);
                }
            }
            let routes = if routes.is_empty() { "-".to_owned() } else { routes.join(", ") };
            (format!("`{}.json`", sample.name), expected.status.to_string(), routes)
        })
        .collect();
    assert_eq!(table, computed);
    assert_eq!(rows.len(), computed.len());
    // The output of `make run` that the project's README shows.
    let summary = format!("\nall {} as expected\n", computed.len());
    assert!(include_str!("../../../../README.md").contains(&summary), "README.md has another number than {summary:?}");
}
