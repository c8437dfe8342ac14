//! `banger image …`.

pub(crate) mod delete;
pub(crate) mod list;
pub(crate) mod promote;
pub(crate) mod pull;
pub(crate) mod register;
pub(crate) mod show;

use std::path::{Path, PathBuf};

use banger_bus::ImageProxy;
use zbus::OwnedObjectPath;

use crate::client::Client;
use crate::error::{Error, Result};

impl Client {
    /// Finds an image by its name.
    async fn image(&self, name: &str) -> Result<(OwnedObjectPath, ImageProxy<'static>)> {
        let path = self.manager().await?.look_up_image(name.to_owned()).await?;
        let proxy = ImageProxy::new(self.connection(), path.clone()).await?;
        Ok((path, proxy))
    }
}

/// The daemon has another working directory, so it gets absolute paths.
pub(super) fn absolute(path: &Path) -> Result<String> {
    let whole: PathBuf =
        std::path::absolute(path).map_err(|e| Error::io(format!("Cannot resolve {path:?}"), e))?;
    whole
        .into_os_string()
        .into_string()
        .map_err(|path| Error::Refused(format!("Cannot name {path:?} on the bus: it is not UTF-8")))
}

pub(super) fn absolute_option(path: Option<&Path>) -> Result<Option<String>> {
    path.map(absolute).transpose()
}
