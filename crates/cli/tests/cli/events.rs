//! The samples of `events/` are what their names, their table and their signatures say.

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

/// The eight fields of the first page of Meta's, and the kinds that are split off.
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

fn all() -> Vec<Sample> {
    Sample::load_all(&events()).unwrap()
}

/// A row of the table: what the sample is answered, and where it lands.
fn told(fragment: &Fragment) -> String {
    let route = fragment.route(|route| ROUTES.contains(&route));
    match fragment.unrouted_reason(&route) {
        Some(reason) => format!("`{route}` ({reason})"),
        None => format!("`{route}`"),
    }
}

#[test]
fn every_signature_is_fresh() {
    for sample in all() {
        assert_eq!(sign::sign_event(&sample, APP_SECRET), sample.text, "{}", sample.name);
    }
}

#[test]
fn only_what_meta_signed_passes_the_function_s_own_check() {
    for sample in all().iter().filter(|sample| sample.method == "POST") {
        let header = sample.headers.get(signature::HEADER).map(String::as_bytes);
        let verdict = signature::verify([APP_SECRET], &sample.body, header);
        assert_eq!(verdict.is_ok(), sample.signer() == Signer::Meta, "{}", sample.name);
    }
}

#[test]
fn bodies_are_as_meta_writes_them() {
    for sample in all() {
        let body = String::from_utf8(sample.body).unwrap();
        assert!(body.is_ascii(), "{}: literally not ASCII", sample.name);
        assert!(!body.replace("\\/", "").contains('/'), "{}: a slash that is not escaped", sample.name);
    }
}

#[test]
fn every_route_has_a_sample() {
    let routes: BTreeSet<_> = all()
        .iter()
        .flat_map(|sample| Expected::of(sample).fragments)
        .map(|fragment| fragment.route(|route| ROUTES.contains(&route)))
        .collect();

    assert_eq!(routes, ROUTES.into_iter().chain([CATCH_ALL]).map(str::to_owned).collect());
}

#[test]
fn the_table_says_of_every_sample_what_comes_of_it() {
    let readme = fs::read_to_string(events().join("README.md")).unwrap();
    let rows: Vec<Vec<_>> = readme
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let table: BTreeSet<_> = rows.iter().map(|row| (row[0].to_owned(), row[2].to_owned(), row[3].to_owned())).collect();

    let computed: BTreeSet<_> = all()
        .iter()
        .map(|sample| {
            let expected = Expected::of(sample);
            let mut landings: Vec<String> = Vec::new();
            for landing in expected.fragments.iter().map(told) {
                if !landings.contains(&landing) {
                    landings.push(landing);
                }
            }
            let landing = if landings.is_empty() { "-".to_owned() } else { landings.join(", ") };
            (format!("`{}.json`", sample.name), expected.status.to_string(), landing)
        })
        .collect();
    assert_eq!(table, computed);
    assert_eq!(rows.len(), computed.len());
}
