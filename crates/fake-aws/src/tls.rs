//! TLS with a certificate chain like that of AWS's endpoints: root authority, intermediate authority, RSA certificate.

use crate::ids::new_id;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::NoServerSessionStorage;

/// The CA bundles of Debian and Amazon Linux.
const SYSTEM_CA_BUNDLES: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// The TLS acceptor, and the trust stores for its clients.
pub(crate) struct Tls {
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) trust_stores: TrustStores,
}

/// Two PEM files. Dropping this deletes them.
#[derive(Debug)]
pub(crate) struct TrustStores {
    /// The root authority of the fake.
    pub(crate) authority: PathBuf,
    /// The authorities of the system and that of the fake. Parsing this takes about as long as parsing the bundle of Lambda.
    pub(crate) system_bundle: PathBuf,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("trust_stores", &self.trust_stores).finish_non_exhaustive()
    }
}

impl Tls {
    /// Generates keys and certificates for 127.0.0.1. Session resumption is disabled, because AWS's endpoints are many hosts
    /// that rarely share a session.
    pub(crate) fn new() -> Self {
        let root = CertifiedIssuer::self_signed(authority_params("the root of a fake AWS"), generate_rsa_key());
        let root = root.expect("the root signs itself");
        let intermediate =
            CertifiedIssuer::signed_by(authority_params("the intermediate of a fake AWS"), generate_rsa_key(), &root);
        let intermediate = intermediate.expect("the root signs the intermediate");
        let (key, leaf) = (
            generate_rsa_key(),
            CertificateParams::new(["127.0.0.1".to_owned()]).expect("an IP address is a valid subject"),
        );
        let leaf = leaf.signed_by(&key, &intermediate).expect("the intermediate signs the certificate");
        let chain = vec![leaf.der().clone(), intermediate.der().clone()];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("the provider supports TLS 1.3").with_no_client_auth().with_single_cert(chain, key);
        let mut config = config.expect("the key matches the certificate");
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { acceptor: TlsAcceptor::from(Arc::new(config)), trust_stores: TrustStores::write(&root.pem()) }
    }
}

impl TrustStores {
    fn write(authority: &str) -> Self {
        let system = system_ca_bundle().and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
        Self {
            authority: write_temporary_file(authority),
            system_bundle: write_temporary_file(&format!("{system}\n{authority}")),
        }
    }
}

impl Drop for TrustStores {
    fn drop(&mut self) {
        for path in [&self.authority, &self.system_bundle] {
            let _ = fs::remove_file(path);
        }
    }
}

/// Returns the CA bundle of this system.
pub(crate) fn system_ca_bundle() -> Option<&'static Path> {
    SYSTEM_CA_BUNDLES.into_iter().map(Path::new).find(|path| path.exists())
}

fn write_temporary_file(text: &str) -> PathBuf {
    let path = Path::new(&std::env::temp_dir()).join(format!("fake-aws-{}.pem", new_id()));
    fs::write(&path, text).expect("the temporary directory is writable");
    path
}

fn generate_rsa_key() -> KeyPair {
    KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).expect("RSA keys can be generated")
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
