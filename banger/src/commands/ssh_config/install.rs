//! `--install` and `--uninstall`.

use banger_model::{Dirs, ssh_config};

use super::block::{self, Made};
use super::file::ConfigFile;
use super::{own, text, unreadable};
use crate::client::Client;
use crate::error::{Error, Result};
use crate::output;

/// Has the owner's configuration include banger's file.
pub(super) async fn install(client: &Client, dirs: &Dirs) -> Result<()> {
    let path = dirs.ssh_config();
    let include = ssh_config::include(&path).map_err(|error| unreadable(&error))?;
    // The daemon writes it when it starts; one that could not has logged why.
    if !path.exists() {
        let text = text(client, dirs).await?;
        let written = super::file::create(&path, text.as_bytes());
        written.map_err(|e| Error::io(format!("Cannot write {path:?}"), e))?;
    }
    let file = ConfigFile::read(&own()?).map_err(|error| by_hand(error, &include))?;
    let made = file.would_make();
    let Some(bytes) = block::with(file.bytes(), &include, made).map_err(|problem| file.refuse(&problem))?
    else {
        return output::line("~/.ssh/config: includes banger's file already; ssh NAME.vm works");
    };
    file.write(&bytes).map_err(|error| by_hand(error, &include))?;
    output::line("~/.ssh/config: includes banger's file now; ssh NAME.vm works")
}

/// Takes the block out again.
pub(super) fn uninstall() -> Result<()> {
    let file = ConfigFile::read(&own()?)?;
    let found = block::without(file.bytes()).map_err(|problem| file.refuse(&problem))?;
    let Some((rest, made)) = found else {
        return output::line("~/.ssh/config: nothing of banger's is in it");
    };
    if rest.is_empty() && made != Made::Nothing {
        file.remove(made == Made::Directory)?;
    } else {
        file.write(&rest)?;
    }
    output::line("~/.ssh/config: banger's lines are gone")
}

/// The way out where the file is somebody else's to change.
fn by_hand(error: Error, include: &str) -> Error {
    match error {
        Error::Refused(text) => Error::Refused(format!(
            "{text}\nOr put this line before all others yourself: Include {include}"
        )),
        error => error,
    }
}
