//! The name of an image in a registry, by the grammar of docker's `distribution/reference`.

use std::fmt;
use std::str::FromStr;

use banger_model::ImageName;

use super::error::shown;
use crate::digest::Digest;

/// `[host[:port]/]repository[:tag][@digest]`, with docker's defaults filled in: `docker.io`,
/// `library/` and `latest`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    host: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is no reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Not an image reference: {text} ({reason})")]
pub struct ReferenceError {
    /// Escaped and cut.
    text: String,
    reason: &'static str,
}

/// The longest host and repository together.
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;
const HUB: &str = "docker.io";
/// Where the hub's registry really is.
const HUB_REGISTRY: &str = "registry-1.docker.io";
const OFFICIAL: &str = "library/";
const LATEST: &str = "latest";

impl Reference {
    /// The host, and the port where one is named: `docker.io`, `localhost:5000`. In lower case.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The host that is asked.
    pub fn registry(&self) -> &str {
        if self.host == HUB {
            HUB_REGISTRY
        } else {
            &self.host
        }
    }

    /// As `library/alpine`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Without a digest there is always one.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What a manifest is asked for by: the digest where there is one, as docker does.
    pub(super) fn selector(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.as_deref().unwrap_or(LATEST).to_owned(),
        }
    }

    /// The short form in which docker shows it: `alpine:3.20`, `owner/name:1`,
    /// `ghcr.io/owner/name:1`, `alpine@sha256:…`.
    pub fn familiar(&self) -> ImageName {
        self.short()
            .parse()
            .expect("a reference is only made of what has a name")
    }

    /// A repository of the hub that looks like one of another host keeps the hub's name.
    fn short(&self) -> String {
        let full = self.to_string();
        if self.host != HUB || split_host(&self.repository).1 != self.repository {
            return full;
        }
        let text = &full[HUB.len() + 1..];
        match text.strip_prefix(OFFICIAL) {
            Some(name) if !self.repository[OFFICIAL.len()..].contains('/') => name.to_owned(),
            _ => text.to_owned(),
        }
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        if text.contains("://") {
            return Err("leave the scheme away");
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(parse_digest(digest)?)),
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            // A colon before a slash is that of a port.
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !valid_tag(tag)) {
            return Err("a tag is 1 to 128 of a-z, A-Z, 0-9, '_', '.' and '-'");
        }
        let (host, path) = split_host(name);
        if !valid_host(host) {
            return Err("the host is not one, or its port");
        }
        if !path.split('/').all(valid_component) {
            return Err(
                "a repository is words of a-z and 0-9, with '.', '_', '__' or '-' inside and '/' between",
            );
        }
        let host = match host.to_ascii_lowercase() {
            host if host == "index.docker.io" => HUB.to_owned(),
            host => host,
        };
        if host == HUB && is_identifier(path) {
            return Err("64 hexadecimal digits are no name");
        }
        let official = if host == HUB && !path.contains('/') {
            OFFICIAL
        } else {
            ""
        };
        let repository = format!("{official}{path}");
        if host.len() + 1 + repository.len() > MAX_NAME {
            return Err("the name is longer than 255 characters");
        }
        let tag = match (tag, digest) {
            (None, None) => Some(LATEST),
            (tag, _) => tag,
        };
        let reference = Self {
            host,
            repository,
            tag: tag.map(str::to_owned),
            digest,
        };
        match reference.short().parse::<ImageName>() {
            Ok(_) => Ok(reference),
            Err(_) => Err("it is longer than 255 characters"),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text).map_err(|reason| ReferenceError {
            text: shown(text),
            reason,
        })
    }
}

/// The full form, as `docker.io/library/alpine:3.20`.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// The first part is a host when it looks like one: docker's rule, but for capital letters
/// alone, which would be lost with the next reading.
fn split_host(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host.eq_ignore_ascii_case("localhost") => {
            (host, path)
        }
        _ => (HUB, name),
    }
}

fn valid_host(host: &str) -> bool {
    let (name, port) = match host.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (host, None),
    };
    let label = |label: &str| {
        let bytes = label.as_bytes();
        matches!(bytes, [first, .., last] if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric())
            | matches!(bytes, [only] if only.is_ascii_alphanumeric())
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
    };
    let digits = |port: &str| port.bytes().all(|b| b.is_ascii_digit());
    name.split('.').all(label)
        && port.is_none_or(|port| digits(port) && port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// One word of a repository: runs of letters and digits, with one '.', one or two '_', or any
/// number of '-' between them.
fn valid_component(word: &str) -> bool {
    let run = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = matches!(word.as_bytes(), [first, ..] if run(*first)) && word.bytes().last().is_some_and(run);
    ends && word
        .split(|c: char| c.is_ascii() && run(c as u8))
        .all(|between| matches!(between, "" | "." | "_" | "__") || between.bytes().all(|b| b == b'-'))
}

fn valid_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = tag.as_bytes();
    bytes.first().is_some_and(|&b| word(b))
        && bytes.len() <= MAX_TAG
        && bytes.iter().all(|&b| word(b) || b == b'.' || b == b'-')
}

fn parse_digest(text: &str) -> Result<Digest, &'static str> {
    text.parse()
        .map_err(|_| "a digest is sha256: and 64 of 0-9 and a-f")
}

/// What docker takes for an image's own id.
fn is_identifier(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn defaults_are_dockers() {
        for (text, full, short) in [
            ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("alpine:3.20", "docker.io/library/alpine:3.20", "alpine:3.20"),
            (
                "docker.io/alpine:3.20",
                "docker.io/library/alpine:3.20",
                "alpine:3.20",
            ),
            (
                "docker.io/library/alpine:3.20",
                "docker.io/library/alpine:3.20",
                "alpine:3.20",
            ),
            ("index.docker.io/a/b", "docker.io/a/b:latest", "a/b:latest"),
            ("owner/x:1", "docker.io/owner/x:1", "owner/x:1"),
            ("library/a/b:1", "docker.io/library/a/b:1", "library/a/b:1"),
            ("ghcr.io/o/x:1", "ghcr.io/o/x:1", "ghcr.io/o/x:1"),
            ("GHCR.io/o/x", "ghcr.io/o/x:latest", "ghcr.io/o/x:latest"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            (
                "localhost:5000/x",
                "localhost:5000/x:latest",
                "localhost:5000/x:latest",
            ),
            (
                "127.0.0.1:5000/a/b:1",
                "127.0.0.1:5000/a/b:1",
                "127.0.0.1:5000/a/b:1",
            ),
            (
                "localhost:5000",
                "docker.io/library/localhost:5000",
                "localhost:5000",
            ),
            (
                "docker.io/ghcr.io/x:1",
                "docker.io/ghcr.io/x:1",
                "docker.io/ghcr.io/x:1",
            ),
            (
                "docker.io/localhost/x:1",
                "docker.io/localhost/x:1",
                "docker.io/localhost/x:1",
            ),
            (
                "a__b/c---d.e_f:_T.-",
                "docker.io/a__b/c---d.e_f:_T.-",
                "a__b/c---d.e_f:_T.-",
            ),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), full);
            assert_eq!(reference.familiar().as_str(), short);
            assert_eq!(full.parse(), Ok(reference.clone()));
            assert_eq!(short.parse(), Ok(reference));
        }
    }

    #[test]
    fn a_repository_with_the_hubs_own_name_keeps_its_name() {
        let reference: Reference = "docker.io/docker.io/a/b".parse().unwrap();
        assert_eq!(reference.repository(), "docker.io/a/b");
        let short = reference.familiar();
        assert_eq!(short.as_str(), "docker.io/docker.io/a/b:latest");
        assert_eq!(short.as_str().parse(), Ok(reference));
    }

    #[test]
    fn a_digest_wins_over_a_tag() {
        let reference: Reference = format!("alpine:3.20@{DIGEST}").parse().unwrap();
        assert_eq!(reference.familiar().as_str(), format!("alpine:3.20@{DIGEST}"));
        assert_eq!(reference.selector(), DIGEST);
        let reference: Reference = format!("alpine@{DIGEST}").parse().unwrap();
        assert_eq!(reference.tag(), None);
        assert_eq!(
            reference.to_string(),
            format!("docker.io/library/alpine@{DIGEST}")
        );
        assert_eq!(reference.registry(), "registry-1.docker.io");
    }

    #[test]
    fn tricks_are_refused() {
        let long = "x".repeat(256);
        let tag = format!("a:{}", "x".repeat(129));
        for bad in [
            "",
            " ",
            "/",
            ":",
            "@",
            "a:",
            "a@",
            ":tag",
            "/a",
            "a/",
            "a//b",
            "../a",
            "a/../b",
            "a/..",
            "a/./b",
            ".a",
            "a.",
            "-a",
            "a-",
            "_a",
            "a___b",
            "a..b",
            "a._b",
            "A/b",
            "owner/X",
            "alpine:3.20 ",
            " alpine",
            "alpine\n",
            "alpine:\u{661}",
            "alpine:täg",
            "\u{430}lpine",
            "a%2e%2e/b",
            "a\\b",
            "a\0",
            "a?b",
            "a#b",
            "https://ghcr.io/o/x",
            "docker://alpine",
            "oci:alpine:1:2",
            "user@ghcr.io/o/x",
            "user:pass@ghcr.io/o/x",
            "ghcr.io:0/x",
            "ghcr.io:65536/x",
            "ghcr.io:+1/x",
            "ghcr.io:/x",
            "ghcr.io:5000:5000/x",
            "ghcr..io/x",
            "-ghcr.io/x",
            "ghcr.io-/x",
            ".ghcr.io/x",
            "[::1]:5000/x",
            "a_b.example/x",
            "alpine@sha256:00",
            &format!("alpine@{}", DIGEST.replace("sha256", "sha512")),
            &format!("alpine@{}", DIGEST.to_uppercase()),
            &format!("alpine@{DIGEST}@{DIGEST}"),
            &format!("alpine@{DIGEST}:tag"),
            &DIGEST[7..],
            &long,
            &tag,
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad:?}");
        }
    }
}
