//! How things are fetched: what the configuration says, and who asked.

use banger_bus::Result;
use banger_image::Mirrors;
use banger_image::oci::cache::DEFAULT_BYTES;
use banger_image::oci::{Registry, RetryPolicy};
use banger_image::unpack::Unpacker;
use banger_model::{Config, Dirs};

/// Where Debian's security archive is, beside its main one.
const SECURITY: &str = "-security";

pub(super) struct Fetcher {
    pub(super) dirs: Dirs,
    pub(super) mirrors: Mirrors,
    pub(super) unpacker: Unpacker,
    cache_bytes: u64,
    insecure: bool,
    offline: bool,
}

impl Fetcher {
    pub(super) fn new(dirs: &Dirs, config: &Config) -> Self {
        Self {
            dirs: dirs.clone(),
            mirrors: mirrors(config),
            unpacker: Unpacker::this_program(),
            cache_bytes: config.oci_cache_size.map_or(DEFAULT_BYTES, |size| size.0.bytes()),
            insecure: false,
            offline: false,
        }
    }

    pub(super) fn with(self, insecure: bool, offline: bool) -> Self {
        Self {
            insecure,
            offline,
            ..self
        }
    }

    pub(super) fn registry(&self) -> Registry<'_> {
        Registry {
            cache: &self.dirs.cache,
            cache_bytes: self.cache_bytes,
            insecure: self.insecure,
            offline: self.offline,
            retry: RetryPolicy::default(),
        }
    }
}

impl super::Library {
    /// The configuration as it is now counts.
    pub(super) fn fetcher(&self) -> Result<Fetcher> {
        Ok(Fetcher::new(&self.dirs, &self.config.read()?))
    }
}

fn mirrors(config: &Config) -> Mirrors {
    config
        .debian_mirror
        .as_ref()
        .map_or_else(Mirrors::default, |url| {
            let debian = url.as_str().trim_end_matches('/').to_owned();
            Mirrors {
                security: format!("{debian}{SECURITY}"),
                debian,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_bounds_the_cache() {
        let dirs = Dirs::resolve(|key| (key == "HOME").then(|| "/nowhere".into())).unwrap();
        for (text, bytes) in [("", 10 << 30), ("oci_cache_size = '512M'", 512 << 20)] {
            let fetcher = Fetcher::new(&dirs, &Config::parse(text).unwrap()).with(true, false);
            let registry = fetcher.registry();
            assert_eq!((registry.cache_bytes, registry.insecure), (bytes, true));
        }
    }
}
