//! The identity of a client, and its checks of the server: TLS, and tokens.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tonic::codegen::http::HeaderValue;
use tonic::service::Interceptor;
use tonic::{Request, Status};
use zue_proto::status_of;
use zue_proto::v1::{self, Outcome, Reason};
use zue_tls::{Dial, DialError, read_text};

/// The greatest length of a token.
const TOKEN_BYTES_MAX: usize = 4096;

/// TLS, as a client has it.
#[derive(Clone, Debug)]
pub struct Tls(pub(crate) Dial);

impl Tls {
    /// As this configuration of rustls says, which offers `h2` by ALPN.
    pub fn config(config: Arc<zue_tls::rustls::ClientConfig>) -> Self {
        Self(Dial::with(config))
    }

    /// By files in PEM, read again for each connection: `ca` holds whose signature is believed of servers; `own` is a certificate and its
    /// key, to be shown to them. Without a certificate a server has to have the name that was asked for; with one, being a node of its
    /// cluster is enough.
    ///
    /// # Errors
    /// When the files cannot be used.
    pub fn files(ca: &Path, own: Option<(&Path, &Path)>) -> Result<Self, DialError> {
        Dial::client(ca, own).map(Self)
    }
}

/// A token, shown with every call; only ever over TLS.
#[derive(Clone)]
pub struct Token(Arc<dyn Fn() -> Result<HeaderValue, String> + Send + Sync>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// A token that can be none. It says nothing of it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no token: {0}")]
pub struct BadToken(String);

impl Token {
    /// Always this one.
    ///
    /// # Errors
    /// When it can be none.
    pub fn text(text: &str) -> Result<Self, BadToken> {
        let header = header(text).map_err(BadToken)?;
        Ok(Self(Arc::new(move || Ok(header.clone()))))
    }

    /// A token from this file, which is read again for each call. Appends share one: that is seldom.
    ///
    /// # Errors
    /// When it says none now.
    pub fn file(path: &Path) -> Result<Self, BadToken> {
        let file = TokenFile { path: path.to_owned(), known: Mutex::default() };
        file.now().map_err(BadToken)?;
        Ok(Self(Arc::new(move || file.now())))
    }

    /// A token from this function; it is asked for each call, and should have an answer at hand.
    pub fn provider(provide: impl Fn() -> Result<String, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(move || header(&provide()?)))
    }
}

fn header(token: &str) -> Result<HeaderValue, String> {
    let token = token.trim();
    if token.is_empty() || token.len() > TOKEN_BYTES_MAX || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("one of 1 to {TOKEN_BYTES_MAX} letters, digits and signs without spaces is expected"));
    }
    let mut header = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| "it fits in no header".to_owned())?;
    // It is left out where headers are shown.
    header.set_sensitive(true);
    Ok(header)
}

struct TokenFile {
    path: PathBuf,
    /// Its content when it was whole last.
    known: Mutex<Option<HeaderValue>>,
}

impl TokenFile {
    /// The file is short, and is read in place.
    fn now(&self) -> Result<HeaderValue, String> {
        let read = read_text(&self.path).map_err(|error| {
            let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
            format!("{error}{}", source.unwrap_or_default())
        });
        let header = read.and_then(|bytes| {
            let text = String::from_utf8(bytes).map_err(|_| "it is no text".to_owned());
            text.and_then(|text| header(&text)).map_err(|why| format!("{}: {why}", self.path.display()))
        });
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match header {
            Ok(header) => Ok(known.insert(header).clone()),
            // A file that is being replaced is whole a moment later.
            Err(why) => known.clone().ok_or(why),
        }
    }
}

/// Adds the token to every call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bearer(pub(crate) Option<Token>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let Some(Token(provide)) = &self.0 else { return Ok(request) };
        let header = provide().map_err(|why| {
            let message = format!("there is no token to show: {why}");
            let (reason, outcome) = (Reason::Unauthenticated.into(), Outcome::NotAppended.into());
            status_of(v1::Error { reason, outcome, message, ..v1::Error::default() })
        })?;
        request.metadata_mut().as_mut().insert("authorization", header);
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(token: &Token) -> Result<String, String> {
        token.0().map(|header| header.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_token_is_shown_with_every_call_and_nowhere_else() {
        let token = Token::text(" secret\n").unwrap();
        assert_eq!(shown(&token).unwrap(), "Bearer secret");
        let request = Bearer(Some(token.clone())).call(Request::new(())).unwrap();
        assert!(!format!("{token:?} {request:?} {:?}", Bearer(Some(token.clone()))).contains("secret"));
        for text in ["", " ", "two words", "schlüssel", &"x".repeat(4097)] {
            let error = Token::text(text).unwrap_err().to_string();
            assert!(text.trim().is_empty() || !error.contains(text), "{error}");
        }
        let broken = Token::provider(|| Err("the vault is shut".to_owned()));
        let refused = Bearer(Some(broken)).call(Request::new(())).unwrap_err();
        let error = zue_proto::error_of(&refused).unwrap();
        assert_eq!((error.reason(), error.outcome()), (Reason::Unauthenticated, Outcome::NotAppended));
        assert!(error.message.contains("the vault is shut"), "{error:?}");
    }

    #[test]
    fn a_tokens_file_is_read_again_and_kept_while_it_is_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        assert!(Token::file(&path).unwrap_err().to_string().contains("token cannot be read"));
        std::fs::write(&path, "one\n").unwrap();
        let token = Token::file(&path).unwrap();
        assert_eq!(shown(&token).unwrap(), "Bearer one");
        std::fs::write(&path, "two\n").unwrap();
        assert_eq!(shown(&token).unwrap(), "Bearer two");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(shown(&token).unwrap(), "Bearer two");
    }
}
