//! What system mode needs of a machine.

use std::path::Path;

use rustix::process::geteuid;

use super::units;
use crate::error::{Error, Result};

/// The oldest systemd whose scopes and units have what is used.
const SYSTEMD: u32 = 252;
/// Where programs may be that only administrators have on their PATH.
const SBIN: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// Refuses everybody but root.
pub(super) fn root(what: &str) -> Result<()> {
    if geteuid().is_root() {
        return Ok(());
    }
    Err(Error::refused(
        format!("Only root can {what} system mode"),
        "Run the same with sudo",
    ))
}

/// Whether this machine's service manager is systemd (sd_booted(3)).
pub(super) fn has_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Refuses a machine on which system mode cannot work, and names everything that is missing.
pub(super) async fn check() -> Result<()> {
    if !has_systemd() {
        return Err(Error::refused(
            "System mode needs systemd, which does not run here",
            "Without it banger works in user mode: `banger vm run`",
        ));
    }
    let mut missing = Vec::new();
    let version = units::run("systemctl", &["--version"]).await?;
    match parse_version(&version) {
        Some(version) if version >= SYSTEMD => {}
        Some(version) => missing.push(format!("systemd {SYSTEMD} or newer (here: {version})")),
        None => missing.push(format!("systemd {SYSTEMD} or newer")),
    }
    if !SBIN.iter().any(|dir| Path::new(dir).join("nft").is_file()) {
        missing.push("nft (package nftables)".to_owned());
    }
    if !Path::new("/usr/share/polkit-1/actions/org.freedesktop.policykit.policy").is_file() {
        missing.push("polkit (package polkitd)".to_owned());
    }
    if !Path::new("/dev/net/tun").exists() {
        missing.push("/dev/net/tun (kernel module tun)".to_owned());
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(Error::refused(
        format!("Missing for system mode: {}", missing.join(", ")),
        "Install what is missing, then try again; nothing was changed",
    ))
}

/// The number in `systemd 252 (252.39-1~deb12u2)`.
fn parse_version(text: &str) -> Option<u32> {
    let word = text.split_whitespace().nth(1)?;
    let digits = word.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_says_its_version() {
        for (text, version) in [
            ("systemd 252 (252.39-1~deb12u2)\n+PAM", Some(252)),
            ("systemd 258.1 (258.1-2)", Some(258)),
            ("systemd 260~rc1 (260)", Some(260)),
            ("systemd", None),
            ("", None),
        ] {
            assert_eq!(parse_version(text), version, "{text:?}");
        }
    }
}
