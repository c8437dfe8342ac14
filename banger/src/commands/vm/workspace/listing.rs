//! `--dry-run`: what would go into a guest.

use std::io::{self, Read};
use std::os::fd::OwnedFd;

use banger_bus::WorkspaceOptions;
use serde_json::json;
use zbus::wire::OwnedFd as WireFd;

use super::SHALLOW;
use crate::client::{Client, done};
use crate::error::{Error, Result};
use crate::output::{self, Progress};

/// How the list is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A line each; odd names in quotes, as git does it.
    Lines,
    /// A NUL after each, and every name as it is.
    Null,
    Json,
}

/// Lists the files on standard output; the mode and the notes are for people.
pub(crate) async fn show(
    client: &Client,
    directory: &str,
    options: WorkspaceOptions,
    form: Form,
    progress: &Progress,
) -> Result<()> {
    let mode = options.mode.clone().unwrap_or_else(|| SHALLOW.to_owned());
    let (reader, writer) = io::pipe().map_err(|e| Error::io("Cannot make a pipe", e))?;
    // A thread reads: the daemon must never wait for a full pipe.
    let reading = tokio::task::spawn_blocking(move || read(reader));
    let notes = list(client, directory, options, writer.into(), progress).await?;
    let list = reading
        .await
        .map_err(|e| Error::io("Cannot read the list", io::Error::other(e)))?
        .map_err(|e| Error::io("Cannot read the list", e))?;
    let names = || {
        list.split(|&byte| byte == 0)
            .filter(|name| !name.is_empty())
            .map(shown)
    };
    match form {
        Form::Null => output::data(&list)?,
        Form::Lines => output::data(names().map(|name| name + "\n").collect::<String>().as_bytes())?,
        Form::Json => {
            let files: Vec<String> = names().collect();
            return output::json(&json!({ "mode": mode, "files": files, "notes": notes }));
        }
    }
    progress.note(&format!(
        "mode: {}, {} files; nothing was made",
        output::plain(&mode),
        names().count()
    ));
    super::tell(&notes, progress);
    Ok(())
}

/// Asks whether the repository can be used at all, before a VM is made for it.
pub(crate) async fn check(client: &Client, directory: &str, options: WorkspaceOptions) -> Result<()> {
    let nowhere = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/null")
        .map_err(|e| Error::io("Cannot open \"/dev/null\"", e))?;
    list(client, directory, options, nowhere.into(), &Progress::Quiet).await?;
    Ok(())
}

/// Runs the job, and gives its notes.
async fn list(
    client: &Client,
    directory: &str,
    options: WorkspaceOptions,
    output: OwnedFd,
    progress: &Progress,
) -> Result<Vec<String>> {
    let manager = client.manager().await?;
    let call = manager.list_workspace(directory.to_owned(), options, WireFd::from(output));
    // The call holds the pipe's end until the daemon has it.
    let ended = Box::pin(client.run_job(progress.view(""), call)).await?;
    Ok(done(ended)?.names)
}

fn read(mut reader: impl Read) -> io::Result<Vec<u8>> {
    let mut list = Vec::new();
    reader.read_to_end(&mut list)?;
    Ok(list)
}

/// A name in a line: in double quotes with escape sequences where it has control characters,
/// quotes, backslashes or what is no UTF-8, as git writes it with core.quotePath off.
fn shown(name: &[u8]) -> String {
    let mut out = String::with_capacity(name.len());
    let mut odd = false;
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            odd |= push(c, &mut out);
        }
        for byte in chunk.invalid() {
            odd = true;
            out.push_str(&format!("\\{byte:03o}"));
        }
    }
    if odd { format!("\"{out}\"") } else { out }
}

/// Writes a character, and says whether it needs quotes around all.
fn push(c: char, out: &mut String) -> bool {
    let letter = match c {
        '"' | '\\' => Some(c),
        '\u{7}' => Some('a'),
        '\u{8}' => Some('b'),
        '\t' => Some('t'),
        '\n' => Some('n'),
        '\u{b}' => Some('v'),
        '\u{c}' => Some('f'),
        '\r' => Some('r'),
        _ => None,
    };
    if let Some(letter) = letter {
        out.extend(['\\', letter]);
        return true;
    }
    // Marks that turn the direction of writing would disguise a name.
    let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if c.is_control() || turns {
        for byte in c.encode_utf8(&mut [0; 4]).bytes() {
            out.push_str(&format!("\\{byte:03o}"));
        }
        return true;
    }
    out.push(c);
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_names_are_quoted_as_git_does() {
        for (name, expected) in [
            (&b"src/main.c"[..], "src/main.c"),
            ("für mich".as_bytes(), "für mich"),
            (b"a\nb\t\"c\"\\", r#""a\nb\t\"c\"\\""#),
            (b"\xff\x1b[2J", r#""\377\033[2J""#),
            ("\u{202e}x".as_bytes(), r#""\342\200\256x""#),
            (b"\x7f\x01\xc2\x9b", r#""\177\001\302\233""#),
        ] {
            assert_eq!(shown(name), expected);
        }
    }
}
