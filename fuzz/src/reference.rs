//! Words of strangers: references, names, digests, and how long a server asks one to wait.

use std::fmt::Display;
use std::path::{Component, Path};
use std::str::FromStr;

use banger_image::Digest;
use banger_image::oci::{Reference, fuzzing};
use banger_model::{ImageName, KernelName, VmName};

/// # Panics
/// When something does not hold.
pub fn run(data: &[u8]) {
    fuzzing::seconds(data);
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    again::<VmName>(text);
    again::<KernelName>(text);
    again::<Digest>(text);
    if let Some(name) = again::<ImageName>(text) {
        is_image_name(&name);
    }
    if let Ok(name) = ImageName::from_file_name(text) {
        is_image_name(&name);
    }
    match text.parse::<Reference>() {
        Ok(reference) => is_reference(&reference),
        Err(error) => {
            let shown = error.to_string();
            assert!(
                shown.len() < 2048 && !shown.contains(char::is_control),
                "{shown:?}"
            );
        }
    }
}

/// What is read from the text, and written as it was.
fn again<T: FromStr + Display>(text: &str) -> Option<T> {
    let value: T = text.parse().ok()?;
    assert_eq!(value.to_string(), text);
    Some(value)
}

/// A name is one name in a directory too, and no other name's.
fn is_image_name(name: &ImageName) {
    let file = name.file_name();
    let mut components = Path::new(&file).components();
    assert!(matches!(components.next(), Some(Component::Normal(only)) if only == file.as_str()));
    assert!(!file.starts_with(['.', '-']), "{file}");
    assert_eq!(ImageName::from_file_name(&file).as_ref(), Ok(name));
}

fn is_reference(reference: &Reference) {
    let full = reference.to_string();
    assert_eq!(full.parse::<Reference>().as_ref(), Ok(reference), "{full}");
    let short = reference.familiar();
    assert_eq!(
        short.as_str().parse::<Reference>().as_ref(),
        Ok(reference),
        "{short}"
    );
    is_image_name(&short);
    // It becomes a part of a url.
    assert!(
        full.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b)),
        "{full}"
    );
    assert!(
        reference
            .repository()
            .split('/')
            .all(|part| !matches!(part, "" | "." | "..")),
        "{full}"
    );
    assert!(reference.tag().is_some() || reference.digest().is_some());
}

pub fn seeds() -> Vec<Vec<u8>> {
    let digest = Digest::of(b"");
    let texts = [
        "alpine",
        "alpine:3.20",
        "owner/name_1.b--c",
        "localhost:5000/a/b:1",
        "ghcr.io/owner/name:tag",
        "index.docker.io/library/debian",
        "debian-6.1+x",
        "120",
        "Sun, 06 Nov 1994 08:49:37 GMT",
    ];
    let texts = texts.map(str::to_owned).into_iter();
    let all = texts.chain([digest.to_string(), format!("example.org/a:1@{digest}")]);
    all.map(String::into_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_hold() {
        for seed in seeds() {
            run(&seed);
        }
    }
}
