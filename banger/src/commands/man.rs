//! `banger man`: for packagers.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory};

use crate::cli::Cli;
use crate::error::{Error, Result};

/// Write the manual pages into a directory
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Where to write; it is made when it is missing
    directory: PathBuf,
}

impl Man {
    pub(crate) fn run(&self) -> Result<()> {
        fs::create_dir_all(&self.directory)
            .map_err(|e| Error::io(format!("Cannot make {:?}", self.directory), e))?;
        let mut root = Cli::command().disable_help_subcommand(true);
        root.build();
        pages(&root, "banger", &self.directory)
    }
}

/// One page for each command, named as git does it: `banger-vm-run.1`.
fn pages(command: &Command, name: &str, directory: &Path) -> Result<()> {
    let page = command
        .clone()
        .name(name.to_owned())
        .display_name(name.to_owned());
    let mut text = Vec::new();
    clap_mangen::Man::new(page)
        .date("")
        .manual("banger")
        .render(&mut text)
        .map_err(Error::Output)?;
    let file = directory.join(format!("{name}.1"));
    fs::write(&file, unfilled(&String::from_utf8_lossy(&text)))
        .map_err(|e| Error::io(format!("Cannot write {file:?}"), e))?;
    for sub in command
        .get_subcommands()
        .filter(|sub| !sub.is_hide_set() && sub.get_name() != "help")
    {
        pages(sub, &format!("{name}-{}", sub.get_name()), directory)?;
    }
    Ok(())
}

/// Keeps the lines of the examples, which a manual page otherwise fills like any paragraph.
fn unfilled(page: &str) -> String {
    let Some((before, examples)) = page.split_once(".SH EXTRA\n") else {
        return page.to_owned();
    };
    let (examples, after) = match examples.find("\n.SH ") {
        Some(end) => examples.split_at(end + 1),
        None => (examples, ""),
    };
    format!("{before}.SH EXAMPLES\n.nf\n{examples}.fi\n{after}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_its_page() {
        let dir = tempfile::tempdir().unwrap();
        let man = Man {
            directory: dir.path().join("man1"),
        };
        man.run().unwrap();
        let run = fs::read_to_string(dir.path().join("man1/banger-vm-run.1")).unwrap();
        assert!(
            run.contains(".TH banger-vm-run 1") && run.contains("\\-\\-rm"),
            "{run}"
        );
        let pull = fs::read_to_string(dir.path().join("man1/banger-image-pull.1")).unwrap();
        let (_, examples) = pull.split_once(".SH EXAMPLES\n.nf\nExamples:\n").unwrap();
        let (examples, _) = examples.split_once("\n.fi\n").unwrap();
        assert!(examples.contains("\n  {\"event\":\"result\""), "{pull}");
        assert!(dir.path().join("man1/banger.1").exists());
        assert!(!dir.path().join("man1/banger-man.1").exists());
    }
}
