//! What an image says about the processes in it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::limits::{MAX_ARGS, MAX_ARGS_BYTES, MAX_PATH, MAX_USER};

/// The part of an image's configuration that reaches its guests. It comes from strangers, and
/// nothing of it is ever used on the host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageConfig {
    pub env: BTreeMap<String, String>,
    pub process: Process,
    /// For people; nothing depends on them.
    pub labels: BTreeMap<String, String>,
}

/// How a process of an image is run unless its caller says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Process {
    /// `name` or a number, then `:group` or `:` and a number where it has one; root without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// An absolute path of the guest; the user's home without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<String>,
    /// The program of the image and its first arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// The arguments that follow the entrypoint, or the whole command where there is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
}

/// What is wrong with an image's configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProcessError {
    #[error("Not a user: {0:?} (a name or a number, and ':' with a group's; at most {MAX_USER} bytes)")]
    User(String),
    #[error("Not an absolute path of at most {MAX_PATH} bytes: {0:?}")]
    WorkingDirectory(String),
    #[error("The {0} has too many words, a NUL, or more than {MAX_ARGS_BYTES} bytes")]
    Words(&'static str),
}

impl Process {
    /// Checks that it can be asked of a guest.
    ///
    /// # Errors
    /// The first field that is out of bounds.
    pub fn check(&self) -> Result<(), ProcessError> {
        if let Some(user) = &self.user {
            check_user(user)?;
        }
        if let Some(path) = &self.working_directory
            && (!path.starts_with('/') || path.len() > MAX_PATH || path.contains('\0'))
        {
            return Err(ProcessError::WorkingDirectory(shown(path)));
        }
        check_words("entrypoint", &self.entrypoint)?;
        check_words("command", &self.command)
    }
}

/// Checks the form of a user; whether the guest has him only the guest knows.
///
/// # Errors
/// [`ProcessError::User`].
pub fn check_user(user: &str) -> Result<(), ProcessError> {
    let word = |word: &str| {
        !word.is_empty()
            && !word.starts_with('-')
            && word
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-@$".contains(&b))
    };
    let (name, group) = user.split_once(':').map_or((user, None), |(n, g)| (n, Some(g)));
    let good = user.len() <= MAX_USER && word(name) && group.is_none_or(word);
    good.then_some(()).ok_or_else(|| ProcessError::User(shown(user)))
}

fn check_words(what: &'static str, words: &[String]) -> Result<(), ProcessError> {
    let bytes: usize = words.iter().map(|word| word.len() + 1).sum();
    let good =
        words.len() <= MAX_ARGS && bytes <= MAX_ARGS_BYTES && words.iter().all(|word| !word.contains('\0'));
    good.then_some(()).ok_or(ProcessError::Words(what))
}

fn shown(text: &str) -> String {
    text.chars().take(MAX_USER).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_image_says_is_held_to_its_form() {
        for good in ["root", "0", "1000:1000", "app:app", "www-data", "a.b:7"] {
            assert_eq!(check_user(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            ":",
            "a:",
            ":a",
            "-a",
            "a b",
            "a\0",
            "a:b:c",
            "ü",
            &"x".repeat(257),
        ] {
            assert!(check_user(bad).is_err(), "{bad:?}");
        }
        let directory = |path: &str| Process {
            working_directory: Some(path.to_owned()),
            ..Process::default()
        };
        assert_eq!(directory("/srv").check(), Ok(()));
        for bad in ["", "srv", "/a\0", &format!("/{}", "x".repeat(MAX_PATH))] {
            assert!(directory(bad).check().is_err(), "{bad:?}");
        }
        let command = |words: Vec<String>| Process {
            command: words,
            ..Process::default()
        };
        assert_eq!(command(vec![String::new(); MAX_ARGS]).check(), Ok(()));
        assert!(command(vec![String::new(); MAX_ARGS + 1]).check().is_err());
        assert!(command(vec!["x".repeat(MAX_ARGS_BYTES)]).check().is_err());
        assert!(command(vec!["a\0".into()]).check().is_err());
    }
}
