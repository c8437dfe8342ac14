//! A directory of bundles with its catalogue, as a web server or a shared disk offers it.

use std::fs;
use std::path::Path;

use super::{Content, Draft, Exported, Manifest, file_name};
use crate::Cancel;
use crate::catalog::{self, BundleUrl, Entry, Thing};
use crate::error::{Error, Result};
use crate::progress::Progress;

/// Where to publish, and how.
#[derive(Debug, Clone, Copy)]
pub struct Publish<'a> {
    /// It is made when it is not there. A bundle that a replaced entry named stays: others may
    /// still have the catalogue of yesterday.
    pub directory: &'a Path,
    /// Where others find the directory; by default beside its catalogue, which then works
    /// wherever both are copied, and not through the web.
    pub base_url: Option<&'a str>,
    /// One line for lists.
    pub description: Option<&'a str>,
    /// Replace the entry of this name.
    pub force: bool,
}

/// Writes a bundle into the directory, and its entry into the catalogue there.
///
/// # Errors
/// [`Error::Replaceable`] when the catalogue has an entry of the name, unless `force`;
/// [`Error::Catalogue`] for a bad url, or a catalogue that cannot be edited.
pub(crate) fn publish(
    publish: &Publish<'_>,
    name: &str,
    thing: Thing<'_>,
    manifest: &Manifest,
    content: Content<'_>,
    progress: &dyn Progress,
    cancel: &Cancel,
) -> Result<Exported> {
    fs::create_dir_all(publish.directory).map_err(Error::io("make", publish.directory))?;
    // Before the work, not only after it.
    if !publish.force && catalog::has(publish.directory, thing, name)? {
        return Err(thing.exists(name));
    }
    let draft = Draft::write(publish.directory, manifest, content, progress, cancel)?;
    let file = file_name(&draft.digest);
    let url = url_of(publish.base_url, &file)?;
    let entry = Entry {
        thing,
        name,
        description: publish.description.unwrap_or_default(),
        url: &url,
        sha256: draft.digest,
        size: draft.bytes,
    };
    let target = publish.directory.join(&file);
    let new = !target.exists();
    let exported = draft.name(&target, true)?;
    if let Err(error) = catalog::publish(publish.directory, &entry, publish.force) {
        if new {
            // Nothing names it.
            _ = fs::remove_file(&target);
        }
        return Err(error);
    }
    Ok(exported)
}

fn url_of(base: Option<&str>, file: &str) -> Result<String> {
    let Some(base) = base else {
        return Ok(file.to_owned());
    };
    let url = format!("{}/{file}", base.trim_end_matches('/'));
    let refused = |reason: String| Error::Catalogue {
        origin: base.to_owned(),
        reason,
    };
    let parsed = BundleUrl::try_from(url).map_err(refused)?;
    if parsed.is_relative() {
        return Err(refused(
            "https:// and where the directory will be found".to_owned(),
        ));
    }
    Ok(parsed.to_string())
}
