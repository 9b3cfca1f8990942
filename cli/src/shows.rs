//! Certificates and tokens that the command shows to servers, and the authorities that it believes.

use std::path::{Path, PathBuf};

use clap::Args;
use zue_client::{ClientConfig, Tls, Token};

use crate::Usage;

/// The flags of that; they hold no secret themselves.
#[derive(Clone, Debug, Args)]
pub(crate) struct Shows {
    /// The authority that signed the servers' certificates, in PEM; turns TLS on
    #[arg(long, global = true, env = "ZUE_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The client's certificate, in PEM
    #[arg(long, global = true, env = "ZUE_CERT", value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Its key, in PEM; comes before the command, since records have keys, too
    #[arg(id = "own_key", long = "key", env = "ZUE_KEY", value_name = "FILE")]
    key: Option<PathBuf>,
    /// A file with a token, instead of a certificate
    #[arg(long, global = true, env = "ZUE_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl Shows {
    /// The configuration with what they say.
    pub(crate) fn to_config(&self, config: ClientConfig) -> anyhow::Result<ClientConfig> {
        // A variable that is empty says nothing.
        let said = |path: &Option<PathBuf>| path.clone().filter(|path| !path.as_os_str().is_empty());
        let [ca, cert, key, token] = [&self.ca, &self.cert, &self.key, &self.token_file].map(said);
        let wrong = |text: &str| Err(Usage(text.to_owned()).into());
        let own: Option<(&Path, &Path)> = match (&cert, &key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) => {
                return wrong(
                    "--cert needs --key, the certificate's key, before the command (zue --cert FILE --key FILE …; ZUE_CERT, ZUE_KEY)",
                );
            }
            (None, Some(_)) => return wrong("--key needs --cert, the certificate of the key (ZUE_KEY, ZUE_CERT)"),
        };
        let Some(ca) = ca else {
            if own.is_none() && token.is_none() {
                return Ok(config);
            }
            return wrong(
                "--cert and --token-file need TLS: give --ca (ZUE_CA), the authority of the servers' certificates",
            );
        };
        if own.is_some() && token.is_some() {
            return wrong("--token-file and --cert are both given: show one (ZUE_TOKEN_FILE, ZUE_CERT)");
        }
        let token = token.map(|path| Token::file(&path)).transpose()?;
        Ok(ClientConfig { tls: Some(Tls::files(&ca, own)?), token, ..config })
    }
}
