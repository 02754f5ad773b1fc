//! TLS as AWS's endpoints speak it: an RSA leaf under an intermediate under an authority.

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

/// Where Debian and Amazon Linux keep the authorities that they trust.
const SYSTEM_STORES: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// The server's side of TLS, and what a client needs to trust it.
pub(crate) struct Tls {
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) trust: TrustStores,
}

/// Two files, which are deleted when this is dropped.
#[derive(Debug)]
pub(crate) struct TrustStores {
    /// The authority by itself.
    pub(crate) authority: PathBuf,
    /// All that the system trusts, and the authority: reading it costs about what it costs on Lambda.
    pub(crate) system: PathBuf,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("trust", &self.trust).finish_non_exhaustive()
    }
}

impl Tls {
    /// Makes keys and certificates for 127.0.0.1. No session is resumed: AWS's endpoints are many hosts.
    pub(crate) fn new() -> Self {
        let root = CertifiedIssuer::self_signed(authority("the root of a fake AWS"), rsa());
        let root = root.expect("an authority can sign itself");
        let middle = CertifiedIssuer::signed_by(authority("the intermediate of a fake AWS"), rsa(), &root);
        let middle = middle.expect("an authority can sign another");
        let (key, leaf) = (rsa(), CertificateParams::new(["127.0.0.1".to_owned()]).expect("an address is a name"));
        let leaf = leaf.signed_by(&key, &middle).expect("an authority can sign");
        let chain = vec![leaf.der().clone(), middle.der().clone()];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("the provider knows TLS 1.3").with_no_client_auth().with_single_cert(chain, key);
        let mut config = config.expect("the key is that of the certificate");
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { acceptor: TlsAcceptor::from(Arc::new(config)), trust: TrustStores::write(&root.pem()) }
    }
}

impl TrustStores {
    fn write(authority: &str) -> Self {
        let system = system_store().and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
        Self { authority: file(authority), system: file(&format!("{system}\n{authority}")) }
    }
}

impl Drop for TrustStores {
    fn drop(&mut self) {
        for path in [&self.authority, &self.system] {
            let _ = fs::remove_file(path);
        }
    }
}

/// The file of all that the system trusts.
pub(crate) fn system_store() -> Option<&'static Path> {
    SYSTEM_STORES.into_iter().map(Path::new).find(|path| path.exists())
}

fn file(text: &str) -> PathBuf {
    let path = Path::new(&std::env::temp_dir()).join(format!("fake-aws-{}.pem", new_id()));
    fs::write(&path, text).expect("the folder for temporary files can be written to");
    path
}

fn rsa() -> KeyPair {
    KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).expect("keys can be made")
}

fn authority(name: &str) -> CertificateParams {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, name);
    authority
}
