//! What a store says about an image, what a bundle says about itself, and the owner's
//! configuration: what is read is written in the same way.

use banger_image::bundle::Manifest;
use banger_image::image::Image;
use banger_model::Config;

/// # Panics
/// When something does not hold.
pub fn run(data: &[u8]) {
    if let Ok(image) = serde_json::from_slice::<Image>(data) {
        let text = serde_json::to_vec(&image).expect("an image has a text");
        let again: Image = serde_json::from_slice(&text).expect("it is an image's");
        assert_eq!(again, image);
        // Whatever it is, asking must not fail.
        _ = image.config.process.check();
    }
    match Manifest::parse(data) {
        Ok(manifest) => {
            // Written with indentation it may be too large; else it is the same.
            if let Ok(text) = manifest.to_json() {
                assert_eq!(Manifest::parse(&text).ok().as_ref(), Some(&manifest));
            }
        }
        Err(error) => assert!(error.to_string().len() < 8192),
    }
    if let Ok(text) = std::str::from_utf8(data) {
        _ = Config::parse(text);
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let digest = banger_image::Digest::of(b"");
    let image = |kind: &str, origin: &str| {
        format!(
            r#"{{"name":"a:1","kind":"{kind}","rootfs":"","kernel":{{"reference":"debian-6.1"}},"size":4096,"content":5,"origin":{origin},"config":{{"env":{{"A":"b"}},"process":{{"user":"a:b","working_directory":"/","entrypoint":["x"]}},"labels":{{}}}},"created":7}}"#
        )
    };
    let texts = [
        image("managed", &format!(r#"{{"type":"oci","reference":"docker.io/library/a:1","manifest":"{digest}","layers":["{digest}"]}}"#)),
        image("managed", &format!(r#"{{"type":"bundle","url":"https://x/y","sha256":"{digest}"}}"#)),
        image("registered", r#"{"type":"registered","rootfs":"/x"}"#),
        image(
            "managed",
            r#"{"type":"recipe","mirror":"http://x","recipe":{"suite":"sid","packages":["a"]}}"#,
        ),
        r#"{"kind":"image","version":1,"name":"a:1","kernel":"k","size":4096,"content":1024,"created":5,"origin":"here","config":{"env":{"A":"b"}}}"#.to_owned(),
        r#"{"kind":"kernel","version":1,"name":"k","release":"6.1","vmlinux":1,"config":2,"modules":3,"created":0,"origin":""}"#.to_owned(),
        "default_image_name = \"a\"\nengine = \"qemu\"\nssh_key_path = \"~/x\"\n[vm_defaults]\nvcpu = 2\nmemory = \"2G\"\n".to_owned(),
    ];
    texts.map(String::into_bytes).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_read() {
        for (number, seed) in seeds().iter().enumerate() {
            run(seed);
            let text = std::str::from_utf8(seed).unwrap();
            let read = match number {
                0..4 => serde_json::from_str::<Image>(text).is_ok(),
                4..6 => Manifest::parse(seed).is_ok(),
                _ => Config::parse(text).is_ok(),
            };
            assert!(read, "{text}");
        }
    }
}
