//! Verifying a node's certificate: by this machine's roots, the provider's own CA, or a pinned fingerprint. Every
//! refusal names the fingerprint that was seen, so that a person can compare it.

use std::fmt::Write as _;
use std::sync::Arc;

use hypervisor::{Error, Result};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};

use crate::config::Tls;

/// TLS settings for requests and consoles.
pub(crate) fn config(tls: &Tls) -> Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let rule = match tls {
        Tls::SystemRoots => {
            let system = rustls_platform_verifier::Verifier::new(Arc::clone(&provider));
            TrustRule::Chain(Arc::new(
                system.map_err(|e| Error::Invalid(format!("this machine's CA certificates: {e}")))?,
            ))
        }
        Tls::Ca { pem } => TrustRule::Chain(authority(pem, &provider)?),
        Tls::Fingerprint { sha256 } => TrustRule::Pinned(pins(sha256)?),
    };
    let verifier = Arc::new(Verifier { rule, provider: Arc::clone(&provider) });
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let versions = versions.map_err(|e| Error::Invalid(format!("can't set up TLS: {e}")))?;
    Ok(versions.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

fn authority(pem: &str, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>> {
    let bad = |e: &dyn std::fmt::Display| Error::Invalid(format!("the CA certificate can't be read: {e}"));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.map_err(|e| bad(&e))?).map_err(|e| bad(&e))?;
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
    Ok(verifier.map_err(|e| bad(&e))?)
}

/// Parses fingerprints: hexadecimal with or without colons, separated by commas.
fn pins(text: &str) -> Result<Vec<[u8; 32]>> {
    let bad = || Error::Invalid(format!("{text:?} is not a SHA-256 fingerprint: 32 bytes in hexadecimal"));
    let one = |text: &str| {
        let digits: String = text.chars().filter(|c| !matches!(c, ':' | ' ')).collect();
        if digits.len() != 64 || !digits.is_ascii() {
            return Err(bad());
        }
        let mut pin = [0; 32];
        for (byte, at) in pin.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&digits[at..at + 2], 16).map_err(|_| bad())?;
        }
        Ok(pin)
    };
    text.split(',').map(one).collect()
}

/// A certificate's SHA-256, in Proxmox VE's notation.
fn fingerprint(certificate: &CertificateDer<'_>) -> ([u8; 32], String) {
    let digest: [u8; 32] = Sha256::digest(certificate.as_ref()).into();
    let mut text = String::with_capacity(95);
    for byte in digest {
        let _ = write!(text, "{}{byte:02X}", if text.is_empty() { "" } else { ":" });
    }
    (digest, text)
}

#[derive(Debug)]
enum TrustRule {
    Chain(Arc<dyn ServerCertVerifier>),
    Pinned(Vec<[u8; 32]>),
}

#[derive(Debug)]
struct Verifier {
    rule: TrustRule,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let (digest, text) = fingerprint(end_entity);
        match &self.rule {
            TrustRule::Chain(chain) => {
                chain.verify_server_cert(end_entity, intermediates, name, ocsp, now).map_err(|error| {
                    rustls::Error::General(format!(
                        "the certificate is not trusted ({error}); its SHA-256 fingerprint is {text}"
                    ))
                })
            }
            TrustRule::Pinned(pins) if pins.contains(&digest) => Ok(ServerCertVerified::assertion()),
            TrustRule::Pinned(_) => Err(rustls::Error::General(format!(
                "the certificate is not the pinned one; its SHA-256 fingerprint is {text}"
            ))),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_as_people_write_them() {
        let (digest, text) = fingerprint(&CertificateDer::from(b"x".to_vec()));
        assert_eq!(text.len(), 95);
        assert_eq!(pins(&text).unwrap(), [digest]);
        assert_eq!(pins(&format!("{}, {text}", text.replace(':', "").to_lowercase())).unwrap(), [digest, digest]);
        for bad in ["", "AB:CD", &text.replace(['A', '0'], "G"), &format!("{text},")] {
            assert!(pins(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_authority_must_be_a_certificate() {
        assert!(config(&Tls::Ca { pem: "nothing".to_owned() }).is_err());
        assert!(config(&Tls::SystemRoots).is_ok());
    }
}
