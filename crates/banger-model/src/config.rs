//! `config.toml`: every key optional, unknown keys and bad values refused with their line.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::limits::{MAX_FILE_NAME, MAX_FILE_SYNC, MAX_PATH};
use crate::name::ImageName;
use crate::size::Size;
use crate::spec::EngineChoice;

/// The owner's configuration. `docs/config.md` lists every key; a test holds it to this type.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The image of `vm run` and `vm create` without `--image`; `debian-bookworm` by default.
    pub default_image_name: Option<ImageName>,
    /// A private key of the owner, OpenSSH's format. Without it a key is made in the state directory.
    pub ssh_key_path: Option<HostPath>,
    /// `auto`, `qemu` or `firecracker`.
    pub engine: Option<EngineChoice>,
    /// `auto`, `user` or `system`.
    pub mode: Option<ModeChoice>,
    /// The Debian mirror of kernels and recipes; `http://deb.debian.org/debian` by default.
    pub debian_mirror: Option<Url>,
    /// What the cache of fetched layers may hold after a pull; 10G by default.
    pub oci_cache_size: Option<SizeText>,
    /// Where names of VMs are answered, for resolvers that are configured by hand; a port of the
    /// kernel's choice by default.
    pub names_port: Option<UserPort>,
    pub vm_defaults: VmDefaults,
    /// What every guest gets of the owner's files, at each of its starts.
    pub file_sync: FileSyncs,
}

/// Who launches VMs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModeChoice {
    /// The helper where it is installed and lets the owner, else the owner's daemon.
    #[default]
    Auto,
    /// The owner's daemon, without privilege.
    User,
    /// The helper, or nobody.
    System,
}

/// `[vm_defaults]`: what a VM gets when nobody says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VmDefaults {
    /// Virtual CPUs.
    pub vcpu: Option<u32>,
    /// Memory, as `2G`.
    pub memory: Option<SizeText>,
    /// Root disk, as `8G`.
    pub disk_size: Option<SizeText>,
}

/// One `[[file_sync]]`: a file or a directory of the owner's, and where guests have it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSync {
    pub host: HostPath,
    pub guest: GuestPath,
    /// Of a file; a directory's files keep theirs.
    #[serde(default)]
    pub mode: FileMode,
}

/// All `[[file_sync]]` entries: few, and none of them at or below another's place.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "Vec<FileSync>")]
pub struct FileSyncs(Vec<FileSync>);

/// A path below root's home in a guest, written as `~/…` or `/root/…`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct GuestPath(String);

/// The permissions of a file, written as octal digits; 0600 by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct FileMode(u32);

/// An absolute path, or one below the home directory written as `~/…`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct HostPath(String);

/// An `http` or `https` address without user, query or fragment.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Url(String);

/// A [`Size`] written as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct SizeText(pub Size);

/// A port that needs no privilege, from 1024 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u16")]
pub struct UserPort(u16);

/// A configuration that was refused; the text names the line and the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl Config {
    /// Reads a configuration.
    ///
    /// # Errors
    /// On the first unknown key or bad value; the message has line, column and excerpt.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|e| ConfigError(e.to_string().trim_end().to_owned()))
    }
}

impl HostPath {
    /// The absolute path, with `~/` replaced.
    pub fn resolve(&self, home: &Path) -> PathBuf {
        match self.0.strip_prefix("~/") {
            Some(below) => home.join(below),
            None => PathBuf::from(&self.0),
        }
    }
}

impl TryFrom<String> for HostPath {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if (text.starts_with('/') || text.starts_with("~/")) && !text.contains('\0') {
            Ok(Self(text))
        } else {
            Err(format!("Not an absolute path: {text:?} (start it with / or ~/)"))
        }
    }
}

impl FileSyncs {
    pub fn entries(&self) -> &[FileSync] {
        &self.0
    }
}

impl TryFrom<Vec<FileSync>> for FileSyncs {
    type Error = String;

    fn try_from(entries: Vec<FileSync>) -> Result<Self, Self::Error> {
        if entries.len() > MAX_FILE_SYNC {
            return Err(format!(
                "Too many [[file_sync]] entries: {} (at most {MAX_FILE_SYNC})",
                entries.len()
            ));
        }
        for (at, one) in entries.iter().enumerate() {
            for other in &entries[at + 1..] {
                let (a, b) = (one.guest.below_home(), other.guest.below_home());
                if Path::new(a).starts_with(b) || Path::new(b).starts_with(a) {
                    return Err(format!(
                        "Two [[file_sync]] entries for one place: ~/{a} and ~/{b}"
                    ));
                }
            }
        }
        Ok(Self(entries))
    }
}

impl GuestPath {
    /// The path below root's home, without empty parts.
    pub fn below_home(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for GuestPath {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let below = text.strip_prefix("~/").or(text.strip_prefix("/root/"));
        let parts: Vec<&str> = below.unwrap_or_default().split('/').collect();
        let good = |part: &&str| !matches!(*part, "" | "." | "..") && part.len() <= MAX_FILE_NAME;
        if parts.iter().all(good) && text.len() <= MAX_PATH && !text.contains('\0') {
            Ok(Self(parts.join("/")))
        } else {
            Err(format!(
                "Not a path below root's home: {text:?} (start it with ~/ or /root/, without . and ..)"
            ))
        }
    }
}

impl FileMode {
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl Default for FileMode {
    fn default() -> Self {
        Self(0o600)
    }
}

impl TryFrom<String> for FileMode {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let octal = matches!(text.len(), 3 | 4) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
        let bits = u32::from_str_radix(&text, 8)
            .ok()
            .filter(|bits| octal && *bits <= 0o777);
        bits.map(Self).ok_or_else(|| {
            format!("Not the mode of a file: {text:?} (write octal digits, as \"0600\", at most \"0777\")")
        })
    }
}

impl Url {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Url {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let rest = text.strip_prefix("http://").or(text.strip_prefix("https://"));
        // What apt would read as an option, an option list or a second word has no place here.
        let good = rest.is_some_and(|rest| {
            rest.starts_with(|c: char| c.is_ascii_alphanumeric())
                && rest
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || ".:/-_~%".contains(c))
        });
        if good {
            Ok(Self(text))
        } else {
            Err(format!("Not a mirror address: {text:?} (write http://HOST/PATH)"))
        }
    }
}

impl UserPort {
    pub const fn number(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for UserPort {
    type Error = String;

    fn try_from(port: u16) -> Result<Self, Self::Error> {
        if port >= 1024 {
            Ok(Self(port))
        } else {
            Err(format!("Not a port of a user's: {port} (1024 to 65535)"))
        }
    }
}

impl TryFrom<String> for SizeText {
    type Error = crate::size::ParseSizeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_optional() {
        assert_eq!(Config::parse(""), Ok(Config::default()));
        let config = Config::parse("engine = \"qemu\"\n[vm_defaults]\nvcpu = 2\nmemory = \"2G\"\n").unwrap();
        assert_eq!(config.engine, Some(EngineChoice::Qemu));
        assert_eq!(config.vm_defaults.memory, Some(SizeText(Size::from_mib(2048))));
    }

    fn entry(host: &str, guest: &str, mode: &str) -> String {
        format!("[[file_sync]]\nhost = {host:?}\nguest = {guest:?}\nmode = {mode:?}\n")
    }

    #[test]
    fn files_for_guests_are_read() {
        let text = format!(
            "[[file_sync]]\nhost = \"~/.netrc\"\nguest = \"~/.netrc\"\n{}",
            entry("/etc/x", "/root/.config/x", "0644")
        );
        let config = Config::parse(&text).unwrap();
        let read: Vec<_> = config
            .file_sync
            .entries()
            .iter()
            .map(|entry| {
                (
                    entry.host.resolve(Path::new("/h")),
                    entry.guest.below_home(),
                    entry.mode.bits(),
                )
            })
            .collect();
        assert_eq!(
            read,
            [
                ("/h/.netrc".into(), ".netrc", 0o600),
                ("/etc/x".into(), ".config/x", 0o644)
            ]
        );
        let many: String = (0..=MAX_FILE_SYNC)
            .map(|n| entry("/a", &format!("~/{n}"), "600"))
            .collect();
        let error = Config::parse(&many).unwrap_err().to_string();
        assert!(error.contains("at most 64"), "{error}");
    }

    #[test]
    fn unknown_keys_and_bad_values_name_their_line() {
        for (text, line, word) in [
            ("\nengin = \"qemu\"", "line 2", "engin"),
            ("engine = \"xen\"", "line 1", "xen"),
            ("mode = \"root\"", "line 1", "root"),
            ("[vm_defaults]\nmemory = \"2X\"", "line 2", "2X"),
            ("ssh_key_path = \"keys/id\"", "line 1", "keys/id"),
            ("debian_mirror = \"http://a b\"", "line 1", "a b"),
            ("default_image_name = \"../x\"", "line 1", "../x"),
            ("file_sync = 3", "line 1", "file_sync"),
            (
                "[file_sync]\nhost = \"/a\"\nguest = \"~/a\"",
                "line 1",
                "sequence",
            ),
            ("\n[[file_sync]]\nhost = \"/a\"", "line 2", "guest"),
            ("[[file_sync]]\nguest = \"~/a\"", "line 1", "host"),
            (&entry("a", "~/a", "0600"), "line 2", "Not an absolute path"),
            (&entry("/a", "a", "0600"), "line 3", "\"a\""),
            (&entry("/a", "~", "0600"), "line 3", "\"~\""),
            (&entry("/a", "~/", "0600"), "line 3", "\"~/\""),
            (&entry("/a", "/etc/a", "0600"), "line 3", "/etc/a"),
            (&entry("/a", "~/../a", "0600"), "line 3", "~/../a"),
            (&entry("/a", "/root/a//b", "0600"), "line 3", "a//b"),
            (&entry("/a", "~/a", "rw"), "line 4", "rw"),
            (&entry("/a", "~/a", "4755"), "line 4", "4755"),
            (&entry("/a", "~/a", "+600"), "line 4", "+600"),
            (
                "[[file_sync]]\nhost = \"/a\"\nguest = \"~/a\"\nmode = 600",
                "line 4",
                "600",
            ),
            (
                &format!("{}{}", entry("/a", "~/a", "600"), entry("/b", "/root/a/b", "600")),
                "line 1",
                "one place",
            ),
            (&entry("/a", "~/a", "600").repeat(2), "line 1", "~/a"),
        ] {
            let error = Config::parse(text).unwrap_err().to_string();
            assert!(error.contains(line) && error.contains(word), "{error}");
        }
    }
}
