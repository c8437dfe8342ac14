//! The protocol's requests, each as one operation on files.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use russh_sftp::protocol::{
    Attrs, Data, ExtendedReply, File, FileAttributes, Handle, Name, OpenFlags, Packet, Status, StatusCode,
    Version,
};
use russh_sftp::server::{Handler, StatusReply};
use tokio::sync::oneshot;

use super::attributes;
use super::extensions::{Answer, OFFERED, answer};
use super::files::{Entry, Handles};

type Reply<T> = Result<T, Refused>;

/// Why a request fails, in the protocol's terms.
pub(super) enum Refused {
    Io(io::Error),
    End,
    Unsupported,
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Refused> for StatusReply {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::End => StatusCode::Eof.into(),
            Refused::Unsupported => StatusCode::OpUnsupported.into(),
            Refused::Io(error) => match error.kind() {
                io::ErrorKind::NotFound => StatusCode::NoSuchFile.into(),
                io::ErrorKind::PermissionDenied => StatusCode::PermissionDenied.into(),
                _ => StatusCode::Failure.with_message(error.to_string()),
            },
        }
    }
}

/// One client.
pub(super) struct Server {
    handles: Handles,
    /// Dropped with the server.
    _running: oneshot::Sender<()>,
}

impl Server {
    pub(super) fn new(running: oneshot::Sender<()>) -> Self {
        Self {
            handles: Handles::default(),
            _running: running,
        }
    }
}

fn done(id: u32) -> Status {
    Status {
        id,
        status_code: StatusCode::Ok,
        error_message: String::new(),
        language_tag: String::new(),
    }
}

fn named(id: u32, name: impl Into<String>) -> Name {
    Name {
        id,
        files: vec![File::dummy(name)],
    }
}

/// An entry with its line as `ls -l` has it; the library tells directories and files apart only.
fn listed(entry: Entry) -> File {
    let letter = match entry.attributes.permissions.unwrap_or_default() & 0o170_000 {
        0o120_000 => "l",
        0o020_000 => "c",
        0o060_000 => "b",
        0o010_000 => "p",
        0o140_000 => "s",
        0o040_000 => "d",
        _ => "-",
    };
    let mut file = File::new(entry.name, entry.attributes);
    file.longname.replace_range(..1, letter);
    file
}

/// An absolute path; what does not exist yet has one too.
fn real_path(path: &str) -> io::Result<String> {
    let path = Path::new(if path.is_empty() { "." } else { path });
    let found = fs::canonicalize(path).or_else(|error| match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if error.kind() == io::ErrorKind::NotFound => {
            let parent = if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            };
            Ok(fs::canonicalize(parent)?.join(name))
        }
        _ => Err(error),
    })?;
    Ok(found.to_string_lossy().into_owned())
}

// The library's functions are asynchronous; this process serves one client and may block.
#[allow(clippy::unused_async)]
impl Handler for Server {
    type Error = Refused;

    fn unimplemented(&self) -> Refused {
        Refused::Unsupported
    }

    async fn init(&mut self, _: u32, _: std::collections::HashMap<String, String>) -> Reply<Version> {
        let mut version = Version::new();
        let offered = OFFERED.iter();
        version
            .extensions
            .extend(offered.map(|&(name, version)| (name.to_owned(), version.to_owned())));
        Ok(version)
    }

    async fn open(
        &mut self,
        id: u32,
        path: String,
        flags: OpenFlags,
        wanted: FileAttributes,
    ) -> Reply<Handle> {
        let handle = self.handles.open_file(Path::new(&path), flags, &wanted)?;
        Ok(Handle { id, handle })
    }

    async fn close(&mut self, id: u32, handle: String) -> Reply<Status> {
        self.handles.close(&handle)?;
        Ok(done(id))
    }

    async fn read(&mut self, id: u32, handle: String, offset: u64, length: u32) -> Reply<Data> {
        let data = self.handles.read(&handle, offset, length)?;
        if data.is_empty() && length > 0 {
            return Err(Refused::End);
        }
        Ok(Data { id, data })
    }

    async fn write(&mut self, id: u32, handle: String, offset: u64, data: Vec<u8>) -> Reply<Status> {
        self.handles.write(&handle, offset, &data)?;
        Ok(done(id))
    }

    async fn lstat(&mut self, id: u32, path: String) -> Reply<Attrs> {
        let attrs = attributes::of(&fs::symlink_metadata(path)?);
        Ok(Attrs { id, attrs })
    }

    async fn stat(&mut self, id: u32, path: String) -> Reply<Attrs> {
        let attrs = attributes::of(&fs::metadata(path)?);
        Ok(Attrs { id, attrs })
    }

    async fn fstat(&mut self, id: u32, handle: String) -> Reply<Attrs> {
        let attrs = attributes::of(&self.handles.file(&handle)?.metadata()?);
        Ok(Attrs { id, attrs })
    }

    async fn setstat(&mut self, id: u32, path: String, wanted: FileAttributes) -> Reply<Status> {
        attributes::apply_to_path(Path::new(&path), &wanted, false)?;
        Ok(done(id))
    }

    async fn fsetstat(&mut self, id: u32, handle: String, wanted: FileAttributes) -> Reply<Status> {
        attributes::apply_to_file(self.handles.file(&handle)?, &wanted)?;
        Ok(done(id))
    }

    async fn opendir(&mut self, id: u32, path: String) -> Reply<Handle> {
        let handle = self.handles.open_directory(Path::new(&path))?;
        Ok(Handle { id, handle })
    }

    async fn readdir(&mut self, id: u32, handle: String) -> Reply<Name> {
        let entries = self.handles.entries(&handle)?;
        if entries.is_empty() {
            return Err(Refused::End);
        }
        let files = entries.into_iter();
        Ok(Name {
            id,
            files: files.map(listed).collect(),
        })
    }

    async fn remove(&mut self, id: u32, path: String) -> Reply<Status> {
        fs::remove_file(path)?;
        Ok(done(id))
    }

    async fn mkdir(&mut self, id: u32, path: String, wanted: FileAttributes) -> Reply<Status> {
        let mode = attributes::mode(&wanted, 0o777);
        fs::DirBuilder::new().mode(mode).create(path)?;
        Ok(done(id))
    }

    async fn rmdir(&mut self, id: u32, path: String) -> Reply<Status> {
        fs::remove_dir(path)?;
        Ok(done(id))
    }

    async fn realpath(&mut self, id: u32, path: String) -> Reply<Name> {
        Ok(named(id, real_path(&path)?))
    }

    /// Version 3 never replaces; clients that want that use the extension.
    async fn rename(&mut self, id: u32, from: String, to: String) -> Reply<Status> {
        if fs::symlink_metadata(&to).is_ok() {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists).into());
        }
        fs::rename(from, to)?;
        Ok(done(id))
    }

    async fn readlink(&mut self, id: u32, path: String) -> Reply<Name> {
        let target = fs::read_link(path)?;
        Ok(named(id, target.to_string_lossy()))
    }

    /// OpenSSH sends the target first, against the draft, and every client has followed it.
    async fn symlink(&mut self, id: u32, target: String, link: String) -> Reply<Status> {
        std::os::unix::fs::symlink(target, link)?;
        Ok(done(id))
    }

    async fn extended(&mut self, id: u32, request: String, data: Vec<u8>) -> Reply<Packet> {
        match answer(&request, &data, &self.handles) {
            Some(Ok(Answer::Done)) => Ok(done(id).into()),
            Some(Ok(Answer::Data(data))) => Ok(ExtendedReply { id, data }.into()),
            Some(Ok(Answer::Name(name))) => Ok(named(id, name).into()),
            Some(Err(error)) => Err(error.into()),
            None => Err(Refused::Unsupported),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_need_not_exist_to_be_real() {
        let directory = tempfile::tempdir().unwrap();
        let base = fs::canonicalize(directory.path()).unwrap();
        let name = |path: &Path| path.to_str().unwrap().to_owned();
        let missing = base.join("missing");
        assert_eq!(real_path(&name(&missing)).unwrap(), name(&missing));
        assert!(real_path(&name(&base.join("no/such"))).is_err());
        assert!(Path::new(&real_path("").unwrap()).is_absolute());
    }

    #[test]
    fn a_link_is_listed_as_one() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("x", &link).unwrap();
        let attributes = attributes::of(&fs::symlink_metadata(&link).unwrap());
        let name = "link".to_owned();
        let line = listed(Entry { name, attributes }).longname;
        assert!(
            line.starts_with("lrwxrwxrwx ") && line.ends_with(" link"),
            "{line}"
        );
    }

    #[test]
    fn errors_have_the_protocols_numbers() {
        let code = |kind| StatusReply::from(Refused::Io(io::Error::from(kind))).status_code;
        assert_eq!(code(io::ErrorKind::NotFound), StatusCode::NoSuchFile);
        assert_eq!(
            code(io::ErrorKind::PermissionDenied),
            StatusCode::PermissionDenied
        );
        assert_eq!(code(io::ErrorKind::StorageFull), StatusCode::Failure);
        assert_eq!(StatusReply::from(Refused::End).status_code, StatusCode::Eof);
    }
}
