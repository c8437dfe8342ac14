//! What host and guest say to each other in a session of the agent's file service: an SSH
//! subsystem, root's alone. The client sends one line of JSON, a [`Request`], and then the data
//! that the request announces; the answer comes on the standard output. On failure the exit
//! status is 1, and standard error has one line of JSON, a [`Failure`].
//!
//! Lists of paths are bytes, each path ended by a NUL, so that any name of Linux fits. Streams of
//! files are those of `banger-files`.

use serde::{Deserialize, Serialize};

/// The name of the subsystem.
pub const SUBSYSTEM: &str = "agent@banger.org";
/// A request's line in bytes, its newline included.
pub const MAX_REQUEST: usize = 16 << 10;
/// A list of paths that follows a request, in bytes.
pub const MAX_LIST: u64 = 256 << 20;
/// An answer that is one JSON document, in bytes.
pub const MAX_ANSWER: usize = 4 << 20;
/// A failure's line in bytes.
pub const MAX_FAILURE: usize = 16 << 10;

/// What the host asks for. Paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Write a stream of files strictly below `root`; answered by [`PutAnswer`].
    Put {
        /// A directory, reached over symbolic links too.
        root: String,
        /// Make `root` where it is not there.
        make_root: bool,
        /// Replace what is there even where it is of another type.
        replace: bool,
        /// User and group of everything; else those of the stream.
        owner: Option<(u32, u32)>,
        /// Bytes of a list of paths below `root`, between this line and the stream: they are
        /// removed first, where they are there.
        remove: u64,
    },
    /// Send a file or a directory as a stream.
    Get {
        path: String,
        /// Follow `path` where it is a symbolic link.
        follow: bool,
        /// The top entry's name in the stream; empty for a directory's contents without one.
        name: String,
    },
    /// What is at the paths below `root` in a list of `list` bytes, over no symbolic link:
    /// answered by a line each, a [`Stat`] or `null`.
    Stat { root: String, list: u64 },
    /// What is at a path, over symbolic links unless it is one itself and `follow` is not set:
    /// answered by [`Look`].
    Look { path: String, follow: bool },
    /// Where a program is in the agent's search path: answered by [`Which`].
    Which { program: String },
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutAnswer {
    /// Entries of all types.
    pub files: u64,
    /// Their contents in bytes.
    pub bytes: u64,
}

/// The type of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    File,
    Directory,
    Symlink,
    /// A device, FIFO or socket.
    Other,
}

/// One file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat {
    pub kind: Kind,
    /// The permissions, with the set-id and sticky bits: `0o7777`.
    pub mode: u32,
    /// In bytes.
    pub size: u64,
    /// Nanoseconds since 1970.
    pub mtime_ns: i64,
}

/// What is at one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    pub found: Option<Stat>,
    /// Whether the directory above it is there.
    pub parent: bool,
}

/// Where a program is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Which {
    pub path: Option<String>,
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub kind: FailureKind,
    /// The file that it is about, or nothing.
    pub path: String,
    pub message: String,
}

/// What the host does about a failure depends on this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// The request or its data is not understood.
    BadRequest,
    /// There is no such file or directory.
    NotFound,
    /// What is there is of another type and is not to be replaced.
    Conflict,
    /// The guest's disk is full.
    NoSpace,
    /// The file system is read-only.
    ReadOnly,
    Failed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_one_line_each() {
        let get = Request::Get {
            path: "/a\nb".into(),
            follow: true,
            name: "x".into(),
        };
        let line = serde_json::to_string(&get).unwrap();
        assert_eq!(
            line,
            r#"{"request":"get","path":"/a\nb","follow":true,"name":"x"}"#
        );
        assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), get);
        assert!(serde_json::from_str::<Request>(r#"{"request":"get","path":"/a"}"#).is_err());
        assert!(serde_json::from_str::<Request>(r#"{"request":"exec"}"#).is_err());
    }
}
