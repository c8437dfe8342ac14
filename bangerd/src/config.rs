//! The owner's configuration file, read when it is needed: an edit counts from the next call on.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use banger_bus::{Error, ErrorKind, Result};
use banger_model::limits::MAX_CONFIG_BYTES;
use banger_model::{Config, Dirs, ImageName};

/// The image of a VM for which nobody says otherwise.
const DEFAULT_IMAGE: &str = "debian-bookworm";

/// Where the configuration is.
#[derive(Debug, Clone)]
pub(crate) struct ConfigFile {
    path: PathBuf,
}

impl ConfigFile {
    pub(crate) fn new(dirs: &Dirs) -> Self {
        Self {
            path: dirs.config_file(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads it; one that is not there is empty.
    ///
    /// # Errors
    /// [`ErrorKind::BadConfig`] with the line.
    pub(crate) fn read(&self) -> Result<Config> {
        let refused = |reason: &str| {
            Err(Error::new(
                ErrorKind::BadConfig,
                format!("Bad configuration {}: {reason}", self.path.display()),
            ))
        };
        let mut text = String::new();
        let read =
            File::open(&self.path).and_then(|file| file.take(MAX_CONFIG_BYTES + 1).read_to_string(&mut text));
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Config::default()),
            Err(error) => return refused(&error.to_string()),
            Ok(length) if length as u64 > MAX_CONFIG_BYTES => {
                return refused(&format!("it has more than {MAX_CONFIG_BYTES} bytes"));
            }
            Ok(_) => {}
        }
        match Config::parse(&text) {
            Ok(config) => Ok(config),
            Err(error) => refused(&error.to_string()),
        }
    }
}

/// The image of a VM for which nobody says otherwise, and where that comes from.
///
/// # Panics
/// Never: the built-in name is valid, as a test shows.
pub(crate) fn default_image(config: &Config) -> (ImageName, &'static str) {
    match &config.default_image_name {
        Some(name) => (name.clone(), "default_image_name"),
        None => (
            DEFAULT_IMAGE.parse().expect("the built-in name is valid"),
            "built in",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_file_is_refused_with_its_line_and_a_missing_one_is_empty() {
        let home = tempfile::tempdir().unwrap();
        let file = ConfigFile {
            path: home.path().join("config.toml"),
        };
        assert_eq!(file.read(), Ok(Config::default()));
        assert_eq!(default_image(&file.read().unwrap()).0.as_str(), DEFAULT_IMAGE);
        std::fs::write(&file.path, "\nengin = 1\n").unwrap();
        let error = file.read().unwrap_err();
        assert_eq!(error.kind, ErrorKind::BadConfig);
        assert!(error.message.contains("line 2") && error.message.contains("config.toml"));
        std::fs::write(&file.path, " ".repeat(2 << 20)).unwrap();
        assert_eq!(file.read().unwrap_err().kind, ErrorKind::BadConfig);
    }
}
