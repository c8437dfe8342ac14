//! What the guest's agent tells of the guest on request: one SSH subsystem for each question,
//! one JSON document as the answer. All of it is the guest's word.

use serde::{Deserialize, Serialize};

/// The subsystem that answers with a list of [`ListeningSocket`].
pub const SOCKETS_SUBSYSTEM: &str = "sockets@banger.org";
/// The subsystem that answers with a [`GuestMemory`].
pub const MEMORY_SUBSYSTEM: &str = "memory@banger.org";
/// The longest answer in bytes.
pub const MAX_ANSWER: usize = 1 << 20;
/// Sockets of one answer.
pub const MAX_SOCKETS: usize = 512;
/// A process's name in bytes; Linux has at most 15.
pub const MAX_PROCESS_NAME: usize = 64;
/// A process's command line in bytes, as far as it is told.
pub const MAX_COMMAND_LINE: usize = 512;

/// A socket that waits for connections or datagrams.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListeningSocket {
    pub protocol: Transport,
    /// What it is bound to.
    pub address: std::net::IpAddr,
    pub port: u16,
    /// Who has it open; 0 when that cannot be told.
    pub pid: u32,
    pub process: String,
    /// The arguments with a space between them.
    pub command: String,
    pub scheme: Option<Scheme>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    Tcp,
    Udp,
}

/// What a socket's process speaks, by what it answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    Http,
    Https,
}

/// The guest's memory, as its kernel counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestMemory {
    pub total_bytes: u64,
    pub available_bytes: u64,
}

impl Transport {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl Scheme {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_an_answer_are_fixed() {
        let socket = ListeningSocket {
            protocol: Transport::Tcp,
            address: std::net::Ipv6Addr::UNSPECIFIED.into(),
            port: 443,
            pid: 7,
            process: "nginx".into(),
            command: "nginx -g".into(),
            scheme: Some(Scheme::Https),
        };
        let text = serde_json::to_string(&socket).unwrap();
        assert_eq!(
            text,
            r#"{"protocol":"tcp","address":"::","port":443,"pid":7,"process":"nginx","command":"nginx -g","scheme":"https"}"#
        );
        assert_eq!(serde_json::from_str::<ListeningSocket>(&text).unwrap(), socket);
        assert_eq!(Transport::Udp.as_str(), "udp");
        assert_eq!(Scheme::Http.as_str(), "http");
    }
}
