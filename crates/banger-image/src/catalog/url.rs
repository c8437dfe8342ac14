//! Where a bundle is: in the web, or a file.

use std::fmt;
use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};

use reqwest::Url;
use serde::Deserialize;

/// Bytes of a url.
const MAX_URL: usize = 2048;

/// `https://…`, `file:///…`, or a file's name below the directory of the catalogue it stands
/// in. Plain HTTP is for this machine alone. None of them has a user, a password or a fragment.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct BundleUrl(Place);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Web(Url),
    /// An absolute path.
    File(PathBuf),
    /// Until the catalogue's directory is known.
    Relative(PathBuf),
}

/// What a url leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target<'a> {
    Web(&'a Url),
    File(&'a Path),
}

impl BundleUrl {
    pub(crate) fn target(&self) -> Target<'_> {
        match &self.0 {
            Place::Web(url) => Target::Web(url),
            Place::File(path) | Place::Relative(path) => Target::File(path),
        }
    }

    pub(crate) fn is_relative(&self) -> bool {
        matches!(self.0, Place::Relative(_))
    }

    /// Gives a relative name its directory.
    pub(super) fn resolve(&mut self, base: Option<&Path>) -> Result<(), String> {
        if let Place::Relative(name) = &self.0 {
            let base = base.filter(|base| base.is_absolute());
            let base =
                base.ok_or_else(|| format!("a relative url, which needs a directory: {}", name.display()))?;
            self.0 = Place::File(base.join(name));
        }
        Ok(())
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        // A parser of urls forgives all of these silently.
        if text.len() > MAX_URL || !text.bytes().all(|b| b.is_ascii_graphic() && b != b'\\') {
            return Err("at most 2048 visible characters of ASCII, without a backslash");
        }
        if let Some(path) = text.strip_prefix("file://") {
            return file(path).map(|path| Self(Place::File(path)));
        }
        if text.starts_with("https://") || text.starts_with("http://") {
            return web(text).map(|url| Self(Place::Web(url)));
        }
        let relative = Path::new(text);
        if text.contains(':') || !plain(relative) || relative.is_absolute() {
            return Err("https://…, file:///…, or the name of a file beside the catalogue");
        }
        Ok(Self(Place::Relative(relative.to_owned())))
    }
}

impl TryFrom<String> for BundleUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).map_err(|reason| {
            let shown: String = text.chars().take(200).collect();
            format!("Not where a bundle can be: {shown:?} ({reason})")
        })
    }
}

impl fmt::Display for BundleUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Web(url) => f.write_str(url.as_str()),
            Place::File(path) => write!(f, "file://{}", encode(path)),
            Place::Relative(path) => f.write_str(&encode(path)),
        }
    }
}

fn web(text: &str) -> Result<Url, &'static str> {
    // The parser would take the next part for the host.
    if text.contains(":///") {
        return Err("there is no host in it");
    }
    let url = Url::parse(text).map_err(|_| "not a url")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("without a user and a password");
    }
    if url.fragment().is_some() {
        return Err("without a fragment");
    }
    if url.scheme() == "http" && !is_loopback(&url) {
        return Err("plain HTTP is for this machine alone: use https");
    }
    Ok(url)
}

fn is_loopback(url: &Url) -> bool {
    // An address in brackets or in one of its odd forms was brought into its usual one.
    let host = url.host_str().unwrap_or_default();
    let address = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// The path of a file url (RFC 8089), whose host must be empty.
fn file(path: &str) -> Result<PathBuf, &'static str> {
    if path.contains(['?', '#']) {
        return Err("without a query and a fragment");
    }
    let path = PathBuf::from(decode(path).ok_or("its %-codes are not those of a path")?);
    if !path.is_absolute() || !plain(&path) {
        return Err("file:/// and the absolute path of a file, without '..'");
    }
    Ok(path)
}

/// Whether a path ends in a file's name and goes there straight.
fn plain(path: &Path) -> bool {
    let text = path.as_os_str().as_encoded_bytes();
    let dots = text
        .split(|&b| b == b'/')
        .any(|part| matches!(part, b"." | b".."));
    !dots && !text.ends_with(b"/") && matches!(path.components().next_back(), Some(Component::Normal(_)))
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let value = digit(bytes.next()?)? * 16 + digit(bytes.next()?)?;
        decoded.push(u8::try_from(value).ok().filter(|&byte| byte != 0)?);
    }
    String::from_utf8(decoded).ok()
}

fn encode(path: &Path) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~+:@,=".contains(&byte);
    let bytes = path.as_os_str().as_encoded_bytes();
    bytes
        .iter()
        .map(|&byte| match byte {
            byte if plain(byte) => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms_are_told_apart() {
        let parse = |text: &str| BundleUrl::parse(text).unwrap();
        for web in [
            "https://example.org/a.tar.zst",
            "https://example.org:8443/a?token=1",
            "http://localhost:5000/a",
            "http://127.0.0.1/a",
            "http://[::1]:80/a",
        ] {
            assert!(matches!(parse(web).0, Place::Web(_)), "{web}");
        }
        assert_eq!(
            parse("file:///srv/my%20images/a").0,
            Place::File("/srv/my images/a".into())
        );
        assert_eq!(
            parse("file:///srv/my%20images/ä".replace('ä', "%C3%A4").as_str()).to_string(),
            "file:///srv/my%20images/%C3%A4"
        );
        let mut relative = parse("sub/a.tar.zst");
        assert!(relative.resolve(None).is_err());
        assert!(relative.resolve(Some(Path::new("there"))).is_err());
        relative.resolve(Some(Path::new("/srv"))).unwrap();
        assert_eq!(relative.target(), Target::File(Path::new("/srv/sub/a.tar.zst")));
        assert_eq!(relative.to_string(), "file:///srv/sub/a.tar.zst");
    }

    #[test]
    fn tricks_are_refused() {
        for bad in [
            "",
            "/etc/passwd",
            "../a",
            "a/../../b",
            "./a",
            "a/",
            "a/.",
            "ftp://example.org/a",
            "HTTPS://example.org/a",
            "javascript:1",
            "C:/a",
            "https://",
            "https:///a",
            "https:example.org/a",
            "https://user@example.org/a",
            "https://user:secret@example.org/a",
            "https://example.org/a#b",
            "https://exa mple.org/a",
            "https://example.org\\@evil.org/a",
            "https://example.org/a\n",
            "\thttps://example.org/a",
            "http://example.org/a",
            "http://localhost.example.org/a",
            "http://127.0.0.1.example.org/a",
            "http://127.0.0.1@example.org/a",
            "http://192.168.1.1/a",
            "http://[::ffff:10.0.0.1]/a",
            "http://0.0.0.0/a",
            "file://host/a",
            "file:///",
            "file:///a/",
            "file:///a/../b",
            "file:///a/%2e%2e/b",
            "file:///a%00b",
            "file:///a%zz",
            "file:///a%",
            "file:///a?b",
            "file:a",
            &format!("https://example.org/{}", "x".repeat(MAX_URL)),
        ] {
            let refused = BundleUrl::try_from(bad.to_owned());
            assert!(
                refused.as_ref().is_err_and(|text| text.len() < 500),
                "{bad}: {refused:?}"
            );
        }
    }
}
