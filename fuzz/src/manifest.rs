//! What a registry says about an image: manifest, index, and the image's configuration.

use std::collections::HashSet;

use banger_image::Digest;
use banger_image::oci::fuzzing::{self, Said};
use banger_model::limits::MAX_PAIRS;

/// Layers of one image.
const MAX_LAYERS: usize = 512;
const MAX_IMAGE: u64 = 64 << 30;
const MAX_DOCUMENT: u64 = 4 << 20;
const ANNOUNCED: [&str; 4] = [
    "",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json; charset=utf-8",
];

/// # Panics
/// When something does not hold.
pub fn run(data: &[u8]) {
    let mut kinds = HashSet::new();
    for announced in ANNOUNCED {
        match fuzzing::document(data, announced) {
            Ok(Said::Manifest(blobs)) => {
                kinds.insert("manifest");
                assert!(blobs.len() <= MAX_LAYERS + 1);
                let layers = blobs[1..].iter().map(|(_, size)| *size);
                let total = layers.fold(0_u64, |sum, size| sum.checked_add(size).expect("a sum"));
                assert!(total <= MAX_IMAGE && blobs[0].1 <= MAX_DOCUMENT);
            }
            Ok(Said::Index(_, size)) => {
                kinds.insert("index");
                assert!(size <= MAX_DOCUMENT);
            }
            Err(error) => fits_on_a_screen(&error.to_string()),
        }
    }
    // One document is never two things, whatever is said of it.
    assert!(kinds.len() <= 1, "{kinds:?}");
    for layers in 0..3 {
        match fuzzing::configuration(data, layers) {
            Ok((config, warnings)) => {
                assert_eq!(config.process.check(), Ok(()));
                assert!(config.env.len() <= MAX_PAIRS);
                assert!(config.env.iter().all(|(key, value)| {
                    !key.is_empty() && !key.contains(['=', '\0']) && !value.contains('\0')
                }));
                warnings.iter().for_each(|text| fits_on_a_screen(text));
            }
            Err(error) => fits_on_a_screen(&error.to_string()),
        }
    }
}

/// Words of strangers in an error cannot reach the terminal as they are.
fn fits_on_a_screen(text: &str) {
    assert!(text.len() < 8192, "{} bytes", text.len());
    assert!(!text.contains(char::is_control), "{text:?}");
}

pub fn seeds() -> Vec<Vec<u8>> {
    let digest = Digest::of(b"");
    let config =
        format!(r#"{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{digest}","size":2}}"#);
    let layer = |kind: &str| format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":9}}"#);
    let entry = |platform: &str| {
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":9,"platform":{{{platform}}}}}"#
        )
    };
    let texts = [
        format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{config},"layers":[{},{}],"annotations":{{"a":"b"}}}}"#,
            layer("application/vnd.oci.image.layer.v1.tar+gzip"),
            layer("application/vnd.oci.image.layer.v1.tar+zstd"),
        ),
        format!(
            r#"{{"schemaVersion":2,"config":{config},"artifactType":"x","layers":[{}]}}"#,
            layer("application/vnd.docker.image.rootfs.diff.tar")
        ),
        format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{},{},{}]}}"#,
            entry(r#""os":"linux","architecture":"amd64","variant":"v2""#),
            entry(r#""os":"linux","architecture":"arm64""#),
            entry(r#""os":"unknown","architecture":"unknown""#),
        ),
        format!(
            r#"{{"schemaVersion":2,"manifests":[{}]}}"#,
            layer("application/vnd.oci.image.manifest.v1+json")
        ),
        format!(
            r#"{{"created":"2024-05-22T18:18:20.5+02:00","architecture":"amd64","os":"linux","config":{{"User":"1000:app","Env":["PATH=/bin","A=","b"],"Entrypoint":["/init"],"Cmd":["a","b"],"WorkingDir":"/srv","Labels":{{"a":"b"}},"ExposedPorts":{{"80/tcp":{{}}}}}},"rootfs":{{"type":"layers","diff_ids":["{digest}"]}},"history":[{{"empty_layer":true}}]}}"#
        ),
        r#"{"architecture":"amd64","os":"linux","config":null,"rootfs":{"diff_ids":null}}"#.to_owned(),
        r#"{"schemaVersion":1,"fsLayers":[{"blobSum":"x"}],"signatures":[]}"#.to_owned(),
    ];
    texts.map(String::into_bytes).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_what_they_look_like() {
        let seeds = seeds();
        for seed in &seeds {
            run(seed);
        }
        let said = |seed: usize| fuzzing::document(&seeds[seed], "").unwrap();
        assert!(matches!(said(0), Said::Manifest(blobs) if blobs.len() == 3));
        assert!(matches!(said(1), Said::Manifest(blobs) if blobs.len() == 2));
        assert!(matches!(said(2), Said::Index(_, 9)));
        assert!(matches!(said(3), Said::Index(_, 9)));
        assert!(fuzzing::configuration(&seeds[4], 1).is_ok());
        assert!(fuzzing::configuration(&seeds[5], 0).is_ok());
    }
}
