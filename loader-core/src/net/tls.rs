//! TLS on top of a connection. It ends in the process of the extension's engine, so that what servers
//! send is read in there and the work is the extension's.

use std::io;
use std::sync::{Arc, OnceLock};

use quadriga_abi::{Bytes, Error, ErrorCode};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use super::{Connection, PATIENCE};

/// Whom one extension's TLS believes: the authorities of Mozilla's list, and those that its host adds.
pub(crate) struct Trust {
    /// The added ones, in PEM.
    pub(crate) added: Bytes,
    /// Made when it is first needed. No two extensions share one, because it remembers sessions.
    client: OnceLock<Result<TlsConnector, Error>>,
}

impl Trust {
    pub(crate) fn new(added: Bytes) -> Self {
        Self { added, client: OnceLock::new() }
    }

    /// Does the handshake of a client with the host of this name, which its certificate must be for.
    pub(crate) async fn secure(
        &self,
        connection: Connection,
        host: &str,
        port: u16,
    ) -> Result<Connection, Insecure> {
        let client = self.client.get_or_init(|| client(&self.added)).clone()?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(bare.to_owned()).map_err(|_| {
            let message = format!("{host:?} is no name that a certificate can be for");
            Error::new(ErrorCode::InvalidArguments, message)
        })?;
        let shaken = tokio::time::timeout(PATIENCE, client.connect(name, connection)).await;
        let late = || {
            let message = format!("{host}:{port} did not answer in TLS in {} s", PATIENCE.as_secs());
            Error::new(ErrorCode::ConnectionFailed, message)
        };
        let stream = shaken.map_err(|_| late())?.map_err(|error| refused(host, port, &error))?;
        Ok(Connection::new(stream))
    }
}

/// Why there is no TLS on a connection.
#[derive(Debug, Clone)]
pub struct Insecure {
    /// As an error of the contract: `connection_failed`, or why the host cut the connection.
    pub error: Error,
    /// The server showed a certificate that was not accepted.
    pub certificate: bool,
}

impl From<Error> for Insecure {
    fn from(error: Error) -> Self {
        Self { error, certificate: false }
    }
}

impl From<Insecure> for Error {
    fn from(insecure: Insecure) -> Self {
        insecure.error
    }
}

fn client(added: &[u8]) -> Result<TlsConnector, Error> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for certificate in certificates(added)? {
        roots.add(certificate).map_err(|error| unreadable(&error))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::new(ErrorCode::Internal, format!("there is no TLS: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config).into())
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| unreadable(&error))
}

fn unreadable(error: &dyn std::fmt::Display) -> Error {
    let message = format!("the policy's trusted certificates cannot be read: {error}");
    Error::new(ErrorCode::InvalidArguments, message)
}

/// Whether a policy's certificates can be used.
pub(crate) fn check(pem: &str) -> Result<(), Error> {
    let none = !pem.trim().is_empty() && certificates(pem.as_bytes())?.is_empty();
    if none {
        Err(unreadable(&"no certificate in PEM is in there"))
    } else {
        client(pem.as_bytes()).map(drop)
    }
}

/// Why there is no TLS with a host, and what to do.
fn refused(host: &str, port: u16, error: &io::Error) -> Insecure {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let (problem, hint) = match tls {
        None if error.kind() == io::ErrorKind::UnexpectedEof => ("ended the connection", ""),
        // The connection's own error, or the host's.
        None => return Connection::error(error).into(),
        Some(rustls::Error::InvalidMessage(_)) => ("does not speak TLS", "is it http:// ?"),
        Some(rustls::Error::InvalidCertificate(problem)) => match problem {
            CertificateError::UnknownIssuer => (
                "has a certificate that nobody signed whom this host trusts",
                "the host can add who signed it to its policy's trusted certificates",
            ),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                ("has a certificate for other names", "connect by a name that it is for")
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                ("has a certificate that has expired", "have the server get a new one")
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                ("has a certificate that is not valid yet", "compare the clocks")
            }
            _ => ("has a certificate that cannot be used", ""),
        },
        Some(_) => ("and this client agree on no TLS", ""),
    };
    let said = tls.map(|tls| format!(" ({tls})")).unwrap_or_default();
    let failed = Error::new(ErrorCode::ConnectionFailed, format!("{host}:{port} {problem}{said}"));
    Insecure {
        error: if hint.is_empty() { failed } else { failed.with_hint(hint) },
        certificate: matches!(tls, Some(rustls::Error::InvalidCertificate(_))),
    }
}
