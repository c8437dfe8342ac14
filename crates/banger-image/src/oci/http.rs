//! HTTP as a registry client needs it: TLS unless the registry is on this machine, redirects
//! that carry no credentials away, bodies with bounds.

use std::error::Error as _;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RANGE};
use reqwest::{Client, ClientBuilder, Method, Response, StatusCode, Url, redirect};

use super::error::{OciError, shown};

const USER_AGENT: &str = concat!("banger/", env!("CARGO_PKG_VERSION"));
const CONNECT_TIME: Duration = Duration::from_secs(20);
/// The longest silence of a server.
const IDLE_TIME: Duration = Duration::from_secs(60);
/// What a manifest, a token or a configuration may take altogether.
pub(super) const SMALL_TIME: Duration = Duration::from_secs(120);
const MAX_REDIRECTS: usize = 10;
const LOCALHOST: &str = "localhost";

/// Connections of one pull; they belong to its runtime.
#[derive(Debug)]
pub(super) struct Http {
    /// Plain HTTP to this machine is allowed.
    insecure: bool,
    tls: OnceLock<Client>,
    plain: OnceLock<Client>,
}

/// A request that can be sent again.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) accept: Option<HeaderValue>,
    /// Bytes from this one on.
    pub(super) from: u64,
    /// Sent to the host of `url` alone.
    pub(super) authorization: Option<HeaderValue>,
    /// A form, sent with POST.
    pub(super) form: Option<String>,
    /// The whole exchange takes at most [`SMALL_TIME`].
    pub(super) small: bool,
}

impl Request {
    pub(super) fn get(url: Url) -> Self {
        Self {
            method: Method::GET,
            url,
            accept: None,
            from: 0,
            authorization: None,
            form: None,
            small: true,
        }
    }
}

impl Http {
    pub(super) fn new(insecure: bool) -> Self {
        Self {
            insecure,
            tls: OnceLock::new(),
            plain: OnceLock::new(),
        }
    }

    /// The address of a registry, `https://HOST/v2/`; with `--insecure` that of plain HTTP.
    ///
    /// # Errors
    /// [`OciError::InsecureHost`].
    pub(super) fn base(&self, host: &str) -> Result<Url, OciError> {
        let scheme = if self.insecure { "http" } else { "https" };
        let url = Url::parse(&format!("{scheme}://{host}/v2/"))
            .map_err(|error| OciError::malformed(format!("host {}", shown(host)), error.to_string()))?;
        self.check(&url)?;
        Ok(url)
    }

    /// Whether this address may be asked at all.
    pub(super) fn check(&self, url: &Url) -> Result<(), OciError> {
        match url.scheme() {
            "https" => Ok(()),
            "http" if self.insecure && is_local(url) => Ok(()),
            _ => Err(OciError::InsecureHost { host: host_of(url) }),
        }
    }

    /// Sends a request, and follows redirects. The status of the answer is not looked at.
    ///
    /// # Errors
    /// [`OciError::Unreachable`], [`OciError::Tls`], [`OciError::Redirect`].
    pub(super) async fn send(&self, request: &Request) -> Result<Response, OciError> {
        let mut url = request.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            self.check(&url)?;
            let response = self.send_once(request, &url).await?;
            let Some(next) = redirected(request, &response) else {
                return Ok(response);
            };
            url = next_url(&url, next)?;
            if url.scheme() != "https" && self.check(&url).is_err() {
                return Err(bad_redirect(&request.url, "it leads to plain HTTP"));
            }
        }
        Err(bad_redirect(
            &request.url,
            &format!("it is the {}th in a row", MAX_REDIRECTS + 1),
        ))
    }

    async fn send_once(&self, request: &Request, url: &Url) -> Result<Response, OciError> {
        let mut headers = HeaderMap::new();
        if let Some(accept) = &request.accept {
            headers.insert(ACCEPT, accept.clone());
        }
        if request.from > 0 {
            headers.insert(RANGE, HeaderValue::from(RangeFrom(request.from)));
        }
        if let Some(authorization) = &request.authorization
            && same_origin(&request.url, url)
        {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let mut builder = self
            .client(url)?
            .request(request.method.clone(), url.clone())
            .headers(headers);
        if request.small {
            builder = builder.timeout(SMALL_TIME);
        }
        if let Some(form) = &request.form {
            builder = builder
                .header("Content-Type", "application/x-www-form-urlencoded")
                .body(form.clone());
        }
        builder.send().await.map_err(|error| network(url, error))
    }

    fn client(&self, url: &Url) -> Result<&Client, OciError> {
        let (cell, plain) = match url.scheme() {
            "https" => (&self.tls, false),
            _ => (&self.plain, true),
        };
        if let Some(client) = cell.get() {
            return Ok(client);
        }
        let client = build(plain).map_err(|source| OciError::Client { source })?;
        Ok(cell.get_or_init(|| client))
    }
}

/// The value of a `Range` header (RFC 9110, 14.2).
struct RangeFrom(u64);

impl From<RangeFrom> for HeaderValue {
    fn from(RangeFrom(from): RangeFrom) -> Self {
        Self::try_from(format!("bytes={from}-")).expect("digits are a header's value")
    }
}

fn build(plain: bool) -> reqwest::Result<Client> {
    // Whoever was first has set the same one: nothing else here speaks TLS.
    _ = rustls::crypto::ring::default_provider().install_default();
    let builder = ClientBuilder::new()
        .user_agent(USER_AGENT)
        .redirect(redirect::Policy::none())
        .referer(false)
        .connect_timeout(CONNECT_TIME)
        .read_timeout(IDLE_TIME);
    if plain {
        // A proxy would see what is meant for this machine alone. Without a TLS of its own, the
        // certificates of the system would be read for nothing.
        let unused = rustls::ClientConfig::builder()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        builder
            .tls_backend_preconfigured(unused)
            .no_proxy()
            .dns_resolver(Arc::new(Local))
            .build()
    } else {
        builder.https_only(true).build()
    }
}

/// Resolves names of this machine alone, so that no name server sends plain HTTP elsewhere.
struct Local;

impl Resolve for Local {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            if found.is_empty() || found.iter().any(|address| !address.ip().is_loopback()) {
                let reason = "localhost is not this machine";
                return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, reason).into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is one of this machine, by what it says.
fn is_local(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == LOCALHOST || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Where an answer sends its reader. A form is not sent on: it has a secret.
fn redirected<'a>(request: &Request, response: &'a Response) -> Option<&'a HeaderValue> {
    let follows = matches!(
        response.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    response
        .headers()
        .get(LOCATION)
        .filter(|_| follows && request.form.is_none())
}

fn next_url(from: &Url, location: &HeaderValue) -> Result<Url, OciError> {
    let location = location.to_str().map_err(|_| bad_redirect(from, "no address"))?;
    let next = from
        .join(location)
        .map_err(|_| bad_redirect(from, "no address"))?;
    if !next.username().is_empty() || next.password().is_some() {
        return Err(bad_redirect(from, "it has credentials of its own"));
    }
    if from.scheme() == "https" && next.scheme() != "https" {
        return Err(bad_redirect(from, "it leads to plain HTTP"));
    }
    Ok(next)
}

pub(super) fn same_origin(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme()
        && one.host_str() == other.host_str()
        && one.port_or_known_default() == other.port_or_known_default()
}

/// The host and the port of an address, for people.
pub(super) fn host_of(url: &Url) -> String {
    let host = shown(url.host_str().unwrap_or_default());
    url.port().map_or(host.clone(), |port| format!("{host}:{port}"))
}

fn bad_redirect(from: &Url, reason: &str) -> OciError {
    OciError::Redirect {
        host: host_of(from),
        reason: reason.to_owned(),
    }
}

/// What a failed exchange means.
pub(super) fn network(url: &Url, error: reqwest::Error) -> OciError {
    let host = host_of(url);
    let source = error.without_url();
    match of_tls(&source) {
        Some(rustls::Error::InvalidMessage(_)) => OciError::NotTls { host, source },
        Some(_) => OciError::Tls { host, source },
        None => OciError::Unreachable { host, source },
    }
}

/// What TLS itself says is wrong.
fn of_tls(error: &reqwest::Error) -> Option<&rustls::Error> {
    let mut next = error.source();
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        // What an I/O error wraps is not its source: its source is that of what it wraps.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}

/// Reads a body of at most `limit` bytes.
///
/// # Errors
/// [`OciError::TooLarge`]; [`OciError::BrokenOff`], after which it can be asked for again.
pub(super) async fn body(mut response: Response, what: &str, limit: usize) -> Result<Vec<u8>, OciError> {
    let too_large = || OciError::TooLarge {
        what: what.to_owned(),
        limit: format!("{} KiB", limit >> 10),
    };
    if response
        .content_length()
        .is_some_and(|bytes| bytes > limit as u64)
    {
        return Err(too_large());
    }
    let host = host_of(response.url());
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(piece)) if body.len() + piece.len() > limit => return Err(too_large()),
            Ok(Some(piece)) => body.extend_from_slice(&piece),
            Ok(None) => return Ok(body),
            Err(_) => return Err(OciError::BrokenOff { host }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine() {
        let http = Http::new(true);
        for good in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.9.9.9"] {
            assert_eq!(http.base(good).unwrap().scheme(), "http");
        }
        for bad in [
            "ghcr.io",
            "localhost.example",
            "10.0.0.1",
            "127.0.0.1.nip.io",
            "0.0.0.0",
        ] {
            let error = http.base(bad).unwrap_err();
            assert!(matches!(error, OciError::InsecureHost { .. }), "{bad}: {error}");
        }
        let http = Http::new(false);
        assert_eq!(http.base("localhost:5000").unwrap().scheme(), "https");
        let plain = Url::parse("http://localhost/").unwrap();
        assert!(http.check(&plain).is_err());
    }

    #[test]
    fn redirects_are_held_to_tls() {
        let from = Url::parse("https://a.example/v2/").unwrap();
        let next = |to: &str| next_url(&from, &HeaderValue::try_from(to).unwrap());
        assert_eq!(next("/x").unwrap().as_str(), "https://a.example/x");
        assert!(next("https://b.example/x").is_ok());
        for bad in [
            "http://a.example/x",
            "http://localhost/x",
            "https://user:pass@b.example/",
            "file:///etc/passwd",
            "https://",
        ] {
            assert!(matches!(next(bad), Err(OciError::Redirect { .. })), "{bad}");
        }
        let plain = Url::parse("http://a.example/").unwrap();
        assert!(!same_origin(&from, &plain));
        assert!(same_origin(
            &from,
            &Url::parse("https://a.example:443/y").unwrap()
        ));
        assert!(!same_origin(
            &from,
            &Url::parse("https://a.example:444/y").unwrap()
        ));
    }
}
