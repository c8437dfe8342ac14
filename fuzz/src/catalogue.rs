//! A catalogue: what is read from it is found by its name again.

use banger_image::catalog::Catalog;

const RECIPE: &str = r#"[[image]]
name = "d"
description = ""
kernel = "k"
[[image.source]]
type = "recipe"
suite = "bookworm"
components = ["main"]
packages = ["a", "b+-.2"]
slim = true
[[kernel]]
name = "k"
description = "x"
[[kernel.source]]
type = "debian-package"
suite = "sid"
package = "linux-image-amd64"
"#;

/// # Panics
/// When something does not hold.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let catalog = match Catalog::parse(text, "fuzz") {
        Ok(catalog) => catalog,
        Err(error) => {
            assert!(error.to_string().contains("fuzz"), "{error}");
            return;
        }
    };
    for kernel in catalog.kernels() {
        assert_eq!(catalog.kernel(&kernel.name).ok(), Some(kernel));
        assert!(!kernel.sources.is_empty());
    }
    for image in catalog.images() {
        assert_eq!(catalog.image(&image.name).ok(), Some(image));
        assert!(!image.sources.is_empty());
    }
    let mut all = Catalog::embedded();
    let (kernels, images) = (catalog.kernels().count(), catalog.images().count());
    all.extend(catalog);
    assert!(all.kernels().count() >= kernels && all.images().count() >= images);
}

pub fn seeds() -> Vec<Vec<u8>> {
    vec![RECIPE.into()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_catalogues() {
        for seed in seeds() {
            run(&seed);
            let text = std::str::from_utf8(&seed).unwrap();
            assert!(Catalog::parse(text, "").is_ok(), "{text}");
        }
    }
}
