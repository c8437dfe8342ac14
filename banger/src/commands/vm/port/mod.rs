//! `banger vm port …`: ports of a guest on the host's loopback.

mod add;
mod list;
mod remove;

use std::fmt;
use std::str::FromStr;

use clap::Subcommand;

use crate::error::Result;

#[derive(Debug, Subcommand)]
pub(crate) enum Port {
    Add(add::Add),
    #[command(visible_alias = "rm")]
    Remove(remove::Remove),
    #[command(visible_alias = "ls")]
    List(list::List),
}

/// What is to be published: a port of the guest, and the host's, 0 for any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mapping {
    host: u16,
    guest: u16,
}

impl Port {
    pub(crate) async fn run(self) -> Result<()> {
        match self {
            Self::Add(add) => add.run().await,
            Self::Remove(remove) => remove.run().await,
            Self::List(list) => list.run().await,
        }
    }
}

impl FromStr for Mapping {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (host, guest) = text.split_once(':').unwrap_or(("0", text));
        let host = if host.is_empty() { "0" } else { host };
        let port = |text: &str| text.parse::<u16>().ok();
        match (port(host), port(guest)) {
            (Some(host), Some(guest)) if guest > 0 => Ok(Self { host, guest }),
            _ => Err("write GUEST or HOST:GUEST, as 8080 or 3000:8080".to_owned()),
        }
    }
}

impl fmt::Display for Mapping {
    /// In docker's words: from where to where.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "127.0.0.1:{} -> {}", self.host, self.guest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_docker_s() {
        let read = |text: &str| text.parse::<Mapping>().map(|m| (m.host, m.guest));
        assert_eq!(read("8080"), Ok((0, 8080)));
        assert_eq!(read("3000:80"), Ok((3000, 80)));
        assert_eq!(read(":80"), Ok((0, 80)));
        for bad in [
            "",
            "0",
            "80:",
            "1:0",
            "65536",
            "a",
            "1:2:3",
            "-1",
            "127.0.0.1:1:2",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
