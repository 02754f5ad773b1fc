//! For any header: `verify` does not panic, and it agrees with an HMAC that is implemented from its definition.
#![no_main]

use std::fmt::Write as _;

use libfuzzer_sys::{
    arbitrary::{self, Arbitrary},
    fuzz_target,
};
use sha2::{Digest, Sha256};
use whatsapp_ingress_fuzz::signature::{SignatureError, sign, verify};

#[derive(Debug, Arbitrary)]
struct Request<'a> {
    secrets: Vec<&'a str>,
    header: Header<'a>,
    body: &'a [u8],
}

/// A header: missing, arbitrary, or a valid one with edits.
#[derive(Debug, Arbitrary)]
enum Header<'a> {
    Missing,
    Any(&'a [u8]),
    AfterScheme(&'a [u8]),
    Signed { secret: usize, edits: Vec<Edit> },
}

#[derive(Debug, Arbitrary)]
enum Edit {
    Flip { at: u8, bits: u8 },
    Upper { at: u8 },
    Insert { at: u8, byte: u8 },
    Remove { at: u8 },
    Truncate { at: u8 },
}

fuzz_target!(|request: Request<'_>| {
    let header = header(&request);
    let expected = expected(&request, header.as_deref());
    assert_eq!(verify(request.secrets.iter().copied(), request.body, header.as_deref()), expected);
    for secret in &request.secrets {
        let header = sign(secret, request.body);
        assert_eq!(header, signed(secret, request.body));
        assert_eq!(verify(request.secrets.iter().copied(), request.body, Some(header.as_bytes())), Ok(()));
    }
});

fn header(request: &Request<'_>) -> Option<Vec<u8>> {
    match &request.header {
        Header::Missing => None,
        Header::Any(bytes) => Some(bytes.to_vec()),
        Header::AfterScheme(bytes) => Some([b"sha256=", *bytes].concat()),
        Header::Signed { secret, edits } => {
            // With one of the secrets, or with an unknown one.
            let secret = request.secrets.get(secret % (request.secrets.len() + 1)).copied().unwrap_or("unknown");
            Some(edits.iter().fold(signed(secret, request.body).into_bytes(), apply_edit))
        }
    }
}

fn apply_edit(mut header: Vec<u8>, edit: &Edit) -> Vec<u8> {
    let index = |at: u8| usize::from(at) % header.len().max(1);
    match *edit {
        Edit::Insert { at, byte } => header.insert(usize::from(at) % (header.len() + 1), byte),
        _ if header.is_empty() => {}
        Edit::Flip { at, bits } => {
            let at = index(at);
            header[at] ^= bits;
        }
        Edit::Upper { at } => {
            let at = index(at);
            header[at].make_ascii_uppercase();
        }
        Edit::Remove { at } => drop(header.remove(index(at))),
        Edit::Truncate { at } => header.truncate(index(at)),
    }
    header
}

fn expected(request: &Request<'_>, header: Option<&[u8]>) -> Result<(), SignatureError> {
    let Some(header) = header else { return Err(SignatureError::Missing) };
    let is_digest = header.len() == 71 && header[7..].iter().all(u8::is_ascii_hexdigit);
    if !is_digest || header[..7] != *b"sha256=" {
        return Err(SignatureError::Malformed);
    }
    let matches = |secret: &&str| signed(secret, request.body).as_bytes() == header.to_ascii_lowercase();
    if request.secrets.iter().any(matches) { Ok(()) } else { Err(SignatureError::Mismatch) }
}

/// Makes the header from the definition in RFC 2104: H(K ⊕ opad, H(K ⊕ ipad, text)).
fn signed(secret: &str, body: &[u8]) -> String {
    let mut key = [0; 64];
    if secret.len() > key.len() {
        key[..32].copy_from_slice(&Sha256::digest(secret));
    } else {
        key[..secret.len()].copy_from_slice(secret.as_bytes());
    }
    let keyed = |pad: u8| Sha256::new().chain_update(key.map(|byte| byte ^ pad));
    let inner = keyed(0x36).chain_update(body).finalize();
    let digest = keyed(0x5c).chain_update(inner).finalize();
    digest.iter().fold("sha256=".to_owned(), |mut header, byte| {
        write!(header, "{byte:02x}").expect("writing to a string succeeds");
        header
    })
}
