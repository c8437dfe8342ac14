//! `banger image …`.

pub(crate) mod delete;
pub(crate) mod export;
pub(crate) mod list;
pub(crate) mod promote;
pub(crate) mod prune;
pub(crate) mod publish;
pub(crate) mod pull;
pub(crate) mod register;
pub(crate) mod show;
pub(crate) mod tag;

use banger_bus::{ImageInfo, ImageProxy};
use banger_model::ImageName;
use zbus::OwnedObjectPath;

use crate::client::Client;
use crate::error::Result;

impl Client {
    /// Finds an image by its name, or by any form of its reference.
    async fn image(&self, name: &str) -> Result<(OwnedObjectPath, ImageProxy<'static>)> {
        let path = self.manager().await?.look_up_image(name.to_owned()).await?;
        let proxy = ImageProxy::new(self.connection(), path.clone()).await?;
        Ok((path, proxy))
    }

    /// What is known of an image.
    async fn image_info(&self, path: &OwnedObjectPath) -> Result<ImageInfo> {
        Ok(ImageInfo::from_properties(
            &self.properties(path, "org.banger.Image").await?,
        )?)
    }
}

/// Reads the name that an image is to have.
fn name(text: &str) -> std::result::Result<String, String> {
    text.parse::<ImageName>()
        .map(String::from)
        .map_err(|e| e.to_string())
}

/// The image's kernel, for people.
fn kernel(image: &ImageInfo) -> &str {
    if image.kernel.is_empty() {
        "(default)"
    } else {
        &image.kernel
    }
}
