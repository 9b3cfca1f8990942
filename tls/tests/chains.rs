//! Chains that lead through others: until when they hold, and through whom they may not lead.

#![allow(clippy::unwrap_used, reason = "this is a test: what is not there fails it")]

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use zue_tls::{Bundle, FileError, Leaf, Untrusted, Usage};

const HOUR: Duration = Duration::from_hours(1);
const NODE: &str = "spiffe://zue.io/test/ours/node";

/// An authority, perhaps one that another has signed.
struct Made {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

fn params(name: &str, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    let now = SystemTime::now();
    (params.not_before, params.not_after) = ((now - HOUR).into(), (now + life).into());
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

impl Made {
    fn new(name: &str, life: Duration, by: Option<&Self>) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = params(name, life);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = match by {
            Some(by) => params.signed_by(&key, &by.issuer),
            None => params.self_signed(&key),
        };
        let pem = pem.unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate with this identity, and its key.
    fn issue(&self, uri: &str, life: Duration) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = params("somebody", life);
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn bundle(&self) -> Bundle {
        Bundle::from_pem("bundle", &self.pem).unwrap()
    }
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

/// The time for which it holds from now on, about.
fn left(until: SystemTime) -> u64 {
    until.duration_since(SystemTime::now()).unwrap_or_default().as_secs().div_ceil(600) * 600
}

#[test]
fn a_chain_holds_no_longer_than_any_part_of_it_that_counts() {
    let root = Made::new("root", HOUR * 24, None);
    let middle = Made::new("middle", HOUR / 2, Some(&root));
    let (certificate, key) = middle.issue(NODE, HOUR);
    let past = Made::new("past", HOUR, Some(&root));
    let check = |chain: &[&Made]| {
        let chain: Vec<_> = chain.iter().map(|made| der(&made.pem)).collect();
        root.bundle().check(&der(&certificate), &chain, Usage::Client)
    };
    assert_eq!(left(check(&[&middle]).unwrap()), 1800);
    assert_eq!(left(check(&[&past, &middle, &root]).unwrap()), 1800, "what it does not need does not count");
    assert_eq!(check(&[]), Err(Untrusted::UnknownAuthority));
    // The same of one's own, and it is news when any of it is replaced.
    let of = |chain: &str| Leaf::from_pem(("certificate", &format!("{certificate}{chain}")), ("key", &key)).unwrap();
    assert_eq!((left(of(&middle.pem).not_after), left(of("").not_after)), (1800, 3600));
    assert_ne!(of(&middle.pem).sha256, of("").sha256);
    assert_eq!(of("").sha256, zue_tls::hex(&zue_tls::sha256(&der(&certificate))));
}

#[test]
fn whom_an_authority_of_clients_signs_is_never_a_node_even_where_a_peer_authority_has_signed_that_authority() {
    let root = Made::new("root", HOUR, None);
    let clients = Made::new("clients", HOUR, Some(&root));
    let mixed = |one: &Made, other: &Made| {
        let error = one.bundle().apart_from(&other.bundle()).map(drop).unwrap_err();
        assert!(matches!(error, FileError::Mixed { .. }), "{error}");
        error.to_string()
    };
    for (one, other) in [(&root, &clients), (&clients, &root)] {
        let told = mixed(one, other);
        assert!(told.contains("one has signed the other") && told.contains("have two authorities"), "{told}");
    }
    assert!(mixed(&root, &root).contains("hold the same authority"));
    // Who stands between the two is in neither file, and is seen in the chain.
    let between = Made::new("between", HOUR, Some(&root));
    let clients = Made::new("clients", HOUR, Some(&between));
    let (certificate, _) = clients.issue(NODE, HOUR);
    let check = |bundle: &Bundle| {
        bundle.check(&der(&certificate), &[der(&clients.pem), der(&between.pem)], Usage::Client).map(drop)
    };
    assert_eq!(check(&root.bundle()), Ok(()), "it would be one");
    assert_eq!(check(&root.bundle().apart_from(&clients.bundle()).unwrap()), Err(Untrusted::OtherAuthority));
    // A true node whose chain is as long is one.
    let (certificate, _) = between.issue(NODE, HOUR);
    let apart = root.bundle().apart_from(&clients.bundle()).unwrap();
    assert_eq!(apart.check(&der(&certificate), &[der(&between.pem)], Usage::Client).map(drop), Ok(()));
    // Authorities that both a third one has signed are apart.
    let (one, other) = (Made::new("peers", HOUR, Some(&root)), Made::new("clients", HOUR, Some(&root)));
    assert!(one.bundle().apart_from(&other.bundle()).is_ok());
}
