//! What can go wrong with the database.

use std::path::PathBuf;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error(
        "The database {path:?} is of version {found}, and this banger knows up to {known}: update banger; the database was not touched"
    )]
    Newer { path: PathBuf, found: u32, known: u32 },
    #[error("The database {path:?} is not banger's: move it away; it was not touched")]
    Foreign { path: PathBuf },
    #[error("Cannot open the database {path:?}")]
    Open {
        path: PathBuf,
        #[source]
        source: rusqlite::Error,
    },
    #[error("Cannot make the directory or file {path:?}")]
    Make {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("Cannot bring the database to version {version}; it is as it was")]
    Migrate {
        version: u32,
        #[source]
        source: rusqlite::Error,
    },
    #[error("The disk of the database is full: make room and try again")]
    Full,
    #[error("A VM named {0} exists")]
    NameTaken(String),
    #[error("The database has no VM {0}")]
    NoSuchVm(String),
    #[error("The database's row of VM {id:?} is damaged: its {column} is {problem}")]
    Damaged {
        id: String,
        column: &'static str,
        problem: String,
    },
    #[error("The database failed while it should {what}")]
    Sqlite {
        what: &'static str,
        #[source]
        source: rusqlite::Error,
    },
}

impl Error {
    /// For `map_err`: gives an error of SQLite its purpose.
    pub(crate) fn doing(what: &'static str) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| match source.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Self::Full,
            _ => Self::Sqlite { what, source },
        }
    }
}
