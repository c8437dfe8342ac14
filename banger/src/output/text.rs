//! Text from guests and files on the way to a terminal: a terminal obeys what it is sent.

/// Takes escape sequences and control characters out; line breaks and tabs become blanks.
pub(crate) fn plain(text: &str) -> String {
    let mut sanitizer = Sanitizer::new(false);
    let bytes: Vec<u8> = sanitizer.feed(text.as_bytes());
    let clean = String::from_utf8_lossy(&bytes);
    clean
        .chars()
        .filter(|c| !matches!(c, '\u{80}'..='\u{9f}'))
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// Shows every character that is not printed, as `\n`, `\u{1b}` or the marks that turn the
/// direction of writing, by its escape sequence; a backslash is two, so nothing is ambiguous.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\'' | '"' => out.push(c),
            _ => out.extend(c.escape_debug()),
        }
    }
    out
}

/// A filter for a stream: text, line breaks, tabs and, where wanted, colours (SGR) pass; every
/// other control character and sequence (ECMA-48) does not. Sequences may be cut anywhere.
#[derive(Debug)]
pub(crate) struct Sanitizer {
    colours: bool,
    state: State,
    /// The parameters of the sequence that is being read, bounded.
    parameters: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Text,
    Escape,
    /// Between `ESC [` and the final byte.
    Csi,
    /// A command string (OSC, DCS, APC, PM, SOS), until BEL or ST.
    String,
    /// In a command string after ESC: ST, or something new.
    StringEscape,
    /// One more byte belongs to a character set's designation.
    Charset,
    /// After 0xC2: U+0080 to U+009F are controls too.
    C2,
}

const MAX_PARAMETERS: usize = 32;

impl Sanitizer {
    pub(crate) fn new(colours: bool) -> Self {
        Self {
            colours,
            state: State::Text,
            parameters: Vec::new(),
        }
    }

    /// What of the next bytes may be shown.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            self.step(byte, &mut out);
        }
        out
    }

    fn step(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.state = match self.state {
            State::Text => text(byte, out),
            State::Escape => escape(byte, &mut self.parameters),
            State::Csi => self.csi(byte, out),
            State::String => match byte {
                0x07 | 0x18 | 0x1a => State::Text,
                0x1b => State::StringEscape,
                _ => State::String,
            },
            State::StringEscape if byte == b'\\' => State::Text,
            State::StringEscape => escape(byte, &mut self.parameters),
            State::Charset => State::Text,
            State::C2 => match byte {
                0x80..=0x9f => State::Text,
                0xa0..=0xbf => {
                    out.extend([0xc2, byte]);
                    State::Text
                }
                _ => text(byte, out),
            },
        };
    }

    fn csi(&mut self, byte: u8, out: &mut Vec<u8>) -> State {
        match byte {
            b'm' => {
                let sgr = self.parameters.len() < MAX_PARAMETERS
                    && self
                        .parameters
                        .iter()
                        .all(|b| b.is_ascii_digit() || b";:".contains(b));
                if self.colours && sgr {
                    out.extend(b"\x1b[");
                    out.extend(&self.parameters);
                    out.push(b'm');
                }
                State::Text
            }
            0x40..=0x7e => State::Text,
            0x1b => State::Escape,
            // Cancels the sequence.
            0x18 | 0x1a => State::Text,
            // A sequence that a line break cuts is no sequence: nothing is to be hidden by it.
            b'\n' => text(byte, out),
            _ => {
                if self.parameters.len() < MAX_PARAMETERS {
                    self.parameters.push(byte);
                }
                State::Csi
            }
        }
    }
}

fn text(byte: u8, out: &mut Vec<u8>) -> State {
    match byte {
        0x1b => State::Escape,
        0xc2 => State::C2,
        b'\n' | b'\t' => {
            out.push(byte);
            State::Text
        }
        0x00..=0x1f | 0x7f => State::Text,
        _ => {
            out.push(byte);
            State::Text
        }
    }
}

fn escape(byte: u8, parameters: &mut Vec<u8>) -> State {
    match byte {
        b'[' => {
            parameters.clear();
            State::Csi
        }
        b']' | b'P' | b'X' | b'^' | b'_' => State::String,
        0x20..=0x2f => State::Charset,
        0x1b => State::Escape,
        _ => State::Text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(colours: bool, text: &[u8]) -> String {
        let mut whole = Sanitizer::new(colours);
        let at_once = whole.feed(text);
        let mut bytewise = Sanitizer::new(colours);
        let in_pieces: Vec<u8> = text.iter().flat_map(|&b| bytewise.feed(&[b])).collect();
        assert_eq!(at_once, in_pieces);
        String::from_utf8_lossy(&at_once).into_owned()
    }

    #[test]
    fn only_text_and_colours_pass() {
        for (input, expected) in [
            (&b"a\tb\r\nc"[..], "a\tb\nc"),
            (b"\x1b[1;31mred\x1b[0m", "\x1b[1;31mred\x1b[0m"),
            (b"\x1b[2J\x1b[Hclean", "clean"),
            (b"\x1b]0;title\x07x", "x"),
            (b"\x1b]52;c;ZXZpbA==\x1b\\x", "x"),
            (b"\x1bP+q544e\x1b\\x", "x"),
            (b"\x1b(Bx\x1bc", "x"),
            (b"\x1b[?25lx\x1b[>4;2mx", "xx"),
            (b"a\x08\x07\x7f\x00b", "ab"),
            ("\u{9b}31mü\u{a0}€".as_bytes(), "31mü\u{a0}€"),
            (b"\x1b[31\nnext", "\nnext"),
        ] {
            assert_eq!(shown(true, input), expected, "{input:?}");
        }
        assert_eq!(shown(false, b"\x1b[1;31mred\x1b[0m"), "red");
    }

    #[test]
    fn what_is_not_printed_is_escaped() {
        for (text, expected) in [
            ("it's \"ü\" €", "it's \"ü\" €"),
            ("a\x1b[2J\n\0\u{9b}b", r"a\u{1b}[2J\n\0\u{9b}b"),
            ("\u{202e}evil\u{2066}\u{200b}", r"\u{202e}evil\u{2066}\u{200b}"),
            (r"C:\n", r"C:\\n"),
        ] {
            assert_eq!(escaped(text), expected);
        }
    }

    #[test]
    fn endless_sequences_keep_nothing() {
        let mut sanitizer = Sanitizer::new(true);
        assert!(
            sanitizer
                .feed(&[b"\x1b[".as_slice(), &[b'1'; 100_000]].concat())
                .is_empty()
        );
        assert!(sanitizer.parameters.len() <= MAX_PARAMETERS);
        assert_eq!(sanitizer.feed(b"mx"), b"x");
    }
}
