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
use whatsapp_webhook::{routes::CATCH_ALL, signature};

/// The routes of the default template.
const ROUTES: [&str; 9] = [
    "account_review_update",
    "account_update",
    "business_capability_update",
    "message_template_status_update",
    "messages",
    "messages.statuses",
    "phone_number_name_update",
    "phone_number_quality_update",
    "security",
];

fn events() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../events")
}

fn samples() -> Vec<Sample> {
    Sample::load_all(&events()).unwrap()
}

/// Formats the route of a fragment as the table does.
fn format_route(fragment: &Fragment) -> String {
    let route = fragment.route(|route| ROUTES.contains(&route));
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
    let routes: BTreeSet<_> = samples()
        .iter()
        .flat_map(|sample| Expected::of(sample).fragments)
        .map(|fragment| fragment.route(|route| ROUTES.contains(&route)))
        .collect();

    assert_eq!(routes, ROUTES.into_iter().chain([CATCH_ALL]).map(str::to_owned).collect());
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

    let computed: BTreeSet<_> = samples()
        .iter()
        .map(|sample| {
            let expected = Expected::of(sample);
            let mut routes: Vec<String> = Vec::new();
            for route in expected.fragments.iter().map(format_route) {
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
}
