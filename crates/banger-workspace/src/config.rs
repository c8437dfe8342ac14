//! A configuration of git as data. git parses it, from its standard input: it reads neither the
//! repository nor what the text includes.

use std::path::{Path, PathBuf};

use crate::Cancel;
use crate::error::{Error, Result};
use crate::git::{Git, Reach};
use crate::read;

const LIMIT: usize = 4 << 20;

/// Keys in lower case (the middle part as it is written), each with its values.
#[derive(Debug, Clone, Default)]
pub(crate) struct Config {
    entries: Vec<(String, Option<String>)>,
}

/// Where the owner's own settings are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owner {
    pub home: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`; `.config` of the home without it.
    pub config_home: Option<PathBuf>,
}

impl Owner {
    /// As this process's environment has it.
    pub fn of_environment() -> Self {
        let absolute = |name| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|p| p.is_absolute())
        };
        Self {
            home: absolute("HOME"),
            config_home: absolute("XDG_CONFIG_HOME"),
        }
    }

    fn config_file(&self, name: &str) -> Option<PathBuf> {
        let home = || self.home.as_ref().map(|home| home.join(".config"));
        Some(self.config_home.clone().or_else(home)?.join("git").join(name))
    }

    /// The owner's own (global) configuration of git.
    pub(crate) fn config(&self, git: &Git, cancel: &Cancel) -> Result<Config> {
        let files = [
            self.config_file("config"),
            self.home.as_ref().map(|home| home.join(".gitconfig")),
        ];
        let mut all = Config::default();
        for file in files.into_iter().flatten() {
            all.add(git, &file, cancel)?;
        }
        Ok(all)
    }

    /// The patterns that the owner ignores everywhere.
    pub(crate) fn excludes(&self, config: &Config) -> Result<Vec<u8>> {
        let named = config
            .get("core.excludesfile")
            .and_then(|path| self.expanded(path));
        let file = named.or_else(|| self.config_file("ignore"));
        let bytes = file.map(|file| read::small(&file, LIMIT)).transpose()?;
        Ok(bytes.flatten().unwrap_or_default())
    }

    fn expanded(&self, path: &str) -> Option<PathBuf> {
        match path.strip_prefix("~/") {
            Some(rest) => Some(self.home.as_ref()?.join(rest)),
            None => Some(PathBuf::from(path)).filter(|path| path.is_absolute()),
        }
    }
}

impl Config {
    pub(crate) fn of_repository(
        git: &Git,
        git_dir: &Path,
        common_dir: &Path,
        cancel: &Cancel,
    ) -> Result<Self> {
        let mut config = Self::default();
        config.add(git, &common_dir.join("config"), cancel)?;
        if config.flag("extensions.worktreeconfig") == Some(true) {
            config.add(git, &git_dir.join("config.worktree"), cancel)?;
        }
        Ok(config)
    }

    fn add(&mut self, git: &Git, file: &Path, cancel: &Cancel) -> Result<()> {
        let Some(text) = read::small(file, LIMIT)? else {
            return Ok(());
        };
        if text.trim_ascii().is_empty() {
            return Ok(());
        }
        let reach = Reach::default();
        let done = git
            .command(
                Path::new("/"),
                &reach,
                cancel,
                ["config", "--file", "-", "--no-includes", "-z", "--list"],
            )
            // No repository is looked for.
            .env("GIT_DIR", "/dev/null")
            .input(text)
            .status()?;
        if done.code != Some(0) {
            return Err(Error::Damaged {
                path: file.to_owned(),
                what: "git cannot read it".to_owned(),
            });
        }
        self.entries
            .extend(done.stdout.split(|&b| b == 0).filter_map(entry));
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn of_entries(entries: &[(&str, &str)]) -> Self {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), Some((*value).to_owned()));
        Self {
            entries: entries.iter().map(owned).collect(),
        }
    }

    /// The last value of a key.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        let mut of_key = self.entries.iter().rev().filter(|(name, _)| name == key);
        of_key.next()?.1.as_deref()
    }

    /// A boolean; a key without a value means yes.
    pub(crate) fn flag(&self, key: &str) -> Option<bool> {
        let (_, value) = self.entries.iter().rev().find(|(name, _)| name == key)?;
        let Some(value) = value else {
            return Some(true);
        };
        match value.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Some(true),
            "false" | "no" | "off" | "0" | "" => Some(false),
            _ => None,
        }
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|(name, _)| name.as_str())
    }

    /// The names of the keys of a section, without it.
    pub(crate) fn section<'a>(&'a self, section: &'a str) -> impl Iterator<Item = &'a str> {
        self.names()
            .filter_map(move |name| name.strip_prefix(section)?.strip_prefix('.'))
    }
}

/// `key\nvalue`, or `key` alone. What is not UTF-8 is no key that is asked for.
fn entry(bytes: &[u8]) -> Option<(String, Option<String>)> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| !text.is_empty())?;
    Some(match text.split_once('\n') {
        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
        None => (text.to_owned(), None),
    })
}
