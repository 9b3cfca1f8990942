//! Replacements that a person asks for, by annotation. Pure.

use crate::crd::security::{Tls, TlsMode};

/// Set on a ZueCluster, it has certificates replaced; it is taken away once that has begun.
pub const ROTATE_ANNOTATION: &str = "zue.io/rotate";

/// The replacements that are asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rotate {
    /// The certificates of the nodes, of the operator and of the clients.
    pub certificates: bool,
    /// The authority of the peers, and then what it signs.
    pub peer_ca: bool,
    /// That of the clients.
    pub client_ca: bool,
}

/// Reads the annotation, or says what is wrong with it and what it may be.
pub fn parse(text: &str) -> Result<Rotate, String> {
    let mut asked = Rotate::default();
    for word in text.split(',').map(str::trim) {
        match word {
            "certificates" => asked.certificates = true,
            "peer-ca" => asked.peer_ca = true,
            "client-ca" => asked.client_ca = true,
            _ => {
                let word: String = word.chars().take(60).collect();
                return Err(format!(
                    "{ROTATE_ANNOTATION} asks for {word:?}: certificates, peer-ca and client-ca can be replaced, several by commas"
                ));
            }
        }
    }
    Ok(asked)
}

/// The same, or why it cannot be done for a cluster in that mode.
pub fn allowed(rotate: Rotate, tls: &Tls, mode: TlsMode) -> Result<Rotate, String> {
    let others = [
        (rotate.peer_ca, &tls.secret_name, "peer-ca", "secretName"),
        (rotate.client_ca, &tls.client_ca_secret_name, "client-ca", "clientCaSecretName"),
    ];
    for (is_asked, named, word, field) in others {
        if let Some(secret) = named.as_ref().filter(|_| is_asked) {
            return Err(format!(
                "{ROTATE_ANNOTATION} asks for {word}: put a new authority into Secret {secret}, which spec.tls.{field} names"
            ));
        }
    }
    if mode == TlsMode::Off {
        return Err(format!("{ROTATE_ANNOTATION}: with tls.mode Off there are no certificates"));
    }
    Ok(rotate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_named_and_nothing_else_is_taken() {
        assert_eq!(parse("certificates"), Ok(Rotate { certificates: true, ..Rotate::default() }));
        let both = Rotate { peer_ca: true, client_ca: true, ..Rotate::default() };
        assert_eq!(parse("peer-ca, client-ca"), Ok(both));
        for wrong in ["", "peer-ca,", "all", &"x".repeat(9000)] {
            let said = parse(wrong).unwrap_err();
            assert!(said.contains("can be replaced") && said.len() < 300, "{said}");
        }
    }
}
