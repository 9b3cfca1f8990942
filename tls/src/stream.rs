//! A connection with or without TLS, of either side.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::AlertDescription;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

/// So much of what has come is taken at once, in bytes; `CONNECTION_BYTES_MAX` counts it. rustls alone asks for 4 KiB at a time, each with
/// a call to the kernel.
const READ_AHEAD: usize = 32 << 10;

/// The stream below TLS.
pub type Wire = BufReader<TcpStream>;

/// A connection as TLS is to be spoken over it.
pub fn wire(stream: TcpStream) -> Wire {
    BufReader::with_capacity(READ_AHEAD, stream)
}

/// A connection.
#[derive(Debug)]
pub enum Stream {
    /// As it goes over the wire.
    Plain(TcpStream),
    /// With TLS.
    Tls(Box<TlsStream<Wire>>),
}

impl Stream {
    /// The certificates that the other side has shown: its own, and the chain to its authority; none without TLS, or if it has shown
    /// nothing.
    pub fn certificates(&self) -> Option<&[CertificateDer<'static>]> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(tls) => tls.get_ref().1.peer_certificates(),
        }
    }
}

macro_rules! either {
    ($this:expr, $stream:ident => $body:expr) => {
        match &mut *$this {
            Stream::Plain($stream) => {
                let $stream = Pin::new($stream);
                $body
            }
            Stream::Tls($stream) => {
                let $stream = Pin::new($stream.as_mut());
                $body
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_read(cx, buf)).map_err(refused)
    }
}

/// An alert on one's own certificate in words, and of a kind that nothing else has on a connection: whoever passes it on keeps no more.
fn refused(error: io::Error) -> io::Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::AlertReceived(alert)) if is_of_certificate(*alert) => {
            let why = format!(
                "it does not believe the certificate that it was shown ({alert:?}): show one of its cluster (zue --cert FILE --key FILE)"
            );
            io::Error::new(io::ErrorKind::PermissionDenied, why)
        }
        _ => error,
    }
}

fn is_of_certificate(alert: AlertDescription) -> bool {
    use AlertDescription as Of;
    matches!(
        alert,
        Of::BadCertificate
            | Of::UnsupportedCertificate
            | Of::CertificateRevoked
            | Of::CertificateExpired
            | Of::CertificateUnknown
            | Of::UnknownCA
            | Of::AccessDenied
            | Of::CertificateRequired
    )
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_shutdown(cx))
    }
}
