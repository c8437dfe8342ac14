//! What listens in a guest, for the bus. A terminal shows it, so that nothing in it may move
//! the cursor or hide what follows.

use banger_bus::ListeningPort;
use banger_model::figures::{ListeningSocket, Scheme};

/// The guest's words, cleaned.
pub(crate) fn rows(sockets: Vec<ListeningSocket>) -> Vec<ListeningPort> {
    let row = |it: ListeningSocket| {
        (
            it.protocol.as_str().to_owned(),
            it.address.to_string(),
            it.port,
            it.pid,
            clean(&it.process),
            clean(&it.command),
            it.scheme.map_or("", Scheme::as_str).to_owned(),
        )
    };
    sockets.into_iter().map(row).collect()
}

/// Without control characters and those that change the direction of text or have no width.
fn clean(text: &str) -> String {
    let hides = |c: char| {
        c.is_control()
            || matches!(
                c,
                '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                    | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
            )
    };
    text.chars()
        .map(|c| if hides(c) { char::REPLACEMENT_CHARACTER } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_model::figures::Transport;

    #[test]
    fn a_hostile_name_moves_no_cursor() {
        let socket = ListeningSocket {
            protocol: Transport::Udp,
            address: std::net::Ipv6Addr::LOCALHOST.into(),
            port: 53,
            pid: 1,
            process: "a\x1b[2J".into(),
            command: "näme \u{202e}txt.exe\n".into(),
            scheme: None,
        };
        let rows = rows(vec![socket]);
        let (protocol, address, port, _, process, command, scheme) = &rows[0];
        assert_eq!((protocol.as_str(), address.as_str(), *port), ("udp", "::1", 53));
        assert_eq!(process, "a\u{fffd}[2J");
        assert_eq!(command, "näme \u{fffd}txt.exe\u{fffd}");
        assert_eq!(scheme, "");
    }
}
