//! Keys and certificates of a control plane.

use std::path::Path;

use anyhow::{Context as _, Result};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};

/// The files of a control plane's keys, in a directory of their own.
pub const CA: &str = "ca.crt";
/// The apiserver's certificate.
pub const SERVING_CERT: &str = "apiserver.crt";
/// The apiserver's key.
pub const SERVING_KEY: &str = "apiserver.key";
/// The key that signs the tokens of service accounts.
pub const ACCOUNT_KEY: &str = "service-account.key";
/// Its public half.
pub const ACCOUNT_PUB: &str = "service-account.pub";

/// Makes a certificate authority, a serving certificate for loopback and a key pair for service accounts.
///
/// # Errors
/// If a file cannot be written.
pub fn make(directory: &Path) -> Result<()> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.distinguished_name.push(DnType::CommonName, "konductor test authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;

    let names = ["127.0.0.1", "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
    let mut serving = CertificateParams::new(names.map(str::to_owned).to_vec())?;
    serving.distinguished_name.push(DnType::CommonName, "kube-apiserver");
    serving.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let serving_key = KeyPair::generate()?;
    let serving = serving.signed_by(&serving_key, &authority)?;

    let accounts = KeyPair::generate()?;

    std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    for (name, text) in [
        (CA, authority.pem()),
        (SERVING_CERT, serving.pem()),
        (SERVING_KEY, serving_key.serialize_pem()),
        (ACCOUNT_KEY, accounts.serialize_pem()),
        (ACCOUNT_PUB, accounts.public_key_pem()),
    ] {
        write_private(&directory.join(name), &text)?;
    }
    Ok(())
}

/// Writes a file that only its owner can read.
///
/// # Errors
/// If it cannot be written.
pub fn write_private(path: &Path, text: &str) -> Result<()> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    std::fs::File::options()
        .create(true)
        .write(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}
