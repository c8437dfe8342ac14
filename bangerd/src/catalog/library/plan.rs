//! Where an image comes from that somebody asks for by a word.

use banger_bus::{Error, ErrorKind, PullOptions, Result};
use banger_image::catalog::{ImageEntry, ImageSource};
use banger_image::image::{Image, Origin};
use banger_image::kernel;
use banger_image::oci::Reference;
use banger_model::{Dirs, ImageName, KernelName};

use super::super::error::{About, convert, in_catalogue};
use super::super::offers;
use super::{name_for, parse};

/// What a caller says about a pull.
#[derive(Debug, Clone, Default)]
pub(super) struct Wish {
    /// List it under this name instead of its own.
    pub(super) name: Option<ImageName>,
    pub(super) kernel: Option<KernelName>,
    pub(super) force: bool,
    pub(super) insecure: bool,
    pub(super) offline: bool,
}

/// One image of the catalogue, or of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Plan {
    /// Under the name that it shall have here.
    Entry(Box<ImageEntry>),
    Reference(Reference, ImageName),
}

impl Wish {
    pub(super) fn new(options: &PullOptions) -> Result<Self> {
        Ok(Self {
            name: options.name.as_deref().map(name_for).transpose()?,
            kernel: options.kernel.as_deref().map(parse).transpose()?,
            force: options.force.unwrap_or(false),
            insecure: options.insecure.unwrap_or(false),
            offline: options.offline.unwrap_or(false),
        })
    }
}

impl Plan {
    /// The catalogue comes first, then docker's rules. Reads the catalogue; blocks.
    ///
    /// # Errors
    /// When a word can be neither, or what was wished does not go with it.
    pub(super) fn new(dirs: &Dirs, asked: &str, wish: &Wish) -> Result<Self> {
        let catalog = offers::read(dirs).map_err(|error| convert(&error, About::Image))?;
        if let Some(kernel) = &wish.kernel
            && kernel::find(&dirs.kernels(), kernel).is_err()
        {
            // Before anything is fetched that would be of no use without it.
            let known = catalog.kernel(kernel).map(drop);
            known.map_err(|error| convert(&error, About::Kernel))?;
        }
        let reference = asked.parse::<Reference>();
        let familiar = reference.as_ref().ok().map(Reference::familiar);
        let entry = [asked.parse().ok(), familiar.clone()]
            .into_iter()
            .flatten()
            .find_map(|name| catalog.image(&name).ok());
        match (entry, reference) {
            (Some(entry), _) => {
                let mut entry = entry.clone();
                if let Some(name) = &wish.name {
                    entry.name = name.clone();
                }
                if wish.offline {
                    entry
                        .sources
                        .retain(|source| !matches!(source, ImageSource::Recipe(_)));
                }
                if entry.sources.is_empty() {
                    return Err(Error::new(
                        ErrorKind::InvalidArgument,
                        format!("{asked} is built from a distribution's archive: that takes the network"),
                    ));
                }
                Ok(Self::Entry(Box::new(entry)))
            }
            (None, Ok(reference)) => {
                let name = wish.name.clone().unwrap_or_else(|| reference.familiar());
                Ok(Self::Reference(reference, name))
            }
            (None, Err(error)) => Err(in_catalogue(Error::new(
                ErrorKind::InvalidArgument,
                format!("Not in the catalogue: {asked:?}; and {error}"),
            ))),
        }
    }

    /// The name in the store.
    pub(super) fn name(&self) -> &ImageName {
        match self {
            Self::Entry(entry) => &entry.name,
            Self::Reference(_, name) => name,
        }
    }

    /// Whether an image that is here is good enough: what a registry calls so may have changed,
    /// what the catalogue does has not.
    pub(super) fn is_satisfied(&self) -> bool {
        matches!(self, Self::Entry(_))
    }

    /// # Errors
    /// When another image has the name, which nobody said should be replaced.
    pub(super) fn may_replace(&self, here: &Image) -> Result<()> {
        let Self::Reference(reference, name) = self else {
            return Ok(());
        };
        match &here.origin {
            Origin::Oci {
                reference: made_of, ..
            } if *made_of == reference.to_string() => Ok(()),
            _ => Err(Error::new(
                ErrorKind::ImageExists,
                format!("Image {name} is here, and did not come from {reference}"),
            )
            .hint("Force replaces it; or list the new one under another name.")),
        }
    }

    /// What is said when it cannot be had.
    pub(super) fn error(&self, asked: &str, error: &banger_image::Error) -> Error {
        let out = convert(error, About::Image);
        match self {
            // A single word may have been meant for the catalogue.
            Self::Reference(..) if !asked.contains(['/', ':', '@']) && out.kind != ErrorKind::Cancelled => {
                let kind = match out.kind {
                    // What the hub says of that which it does not have.
                    ErrorKind::LoginRequired => ErrorKind::NoSuchImage,
                    kind => kind,
                };
                in_catalogue(Error::new(
                    kind,
                    format!(
                        "Not in the catalogue: {asked}; and as a name at docker.io: {}",
                        out.message
                    ),
                ))
            }
            _ => out,
        }
    }
}

#[cfg(test)]
mod tests {
    use banger_image::Digest;
    use banger_image::oci::OciError;

    use super::*;

    fn dirs() -> (tempfile::TempDir, Dirs) {
        let home = tempfile::tempdir().unwrap();
        let dirs = Dirs::resolve(|key| (key == "HOME").then(|| home.path().into())).unwrap();
        let fragments = dirs.config.join("catalog.d");
        std::fs::create_dir_all(&fragments).unwrap();
        let entry = "[[image]]\nname = \"busybox:1\"\ndescription = \"\"\nkernel = \"debian-6.1\"\n\
                     [[image.source]]\ntype = \"oci\"\nreference = \"registry.example/busybox:1\"\n";
        std::fs::write(fragments.join("a.toml"), entry).unwrap();
        (home, dirs)
    }

    #[test]
    fn the_catalogue_comes_before_docker() {
        let (_home, dirs) = dirs();
        let plan = |asked: &str| Plan::new(&dirs, asked, &Wish::default()).unwrap();
        for (asked, name, catalogue) in [
            ("debian-minimal", "debian-minimal", true),
            ("busybox:1", "busybox:1", true),
            ("docker.io/library/busybox:1", "busybox:1", true),
            ("busybox", "busybox:latest", false),
            ("alpine", "alpine:latest", false),
            ("docker.io/library/alpine:latest", "alpine:latest", false),
            ("GHCR.io/Owner/x", "", false),
            ("ghcr.io/owner/x", "ghcr.io/owner/x:latest", false),
        ] {
            if name.is_empty() {
                Plan::new(&dirs, asked, &Wish::default()).unwrap_err();
                continue;
            }
            let plan = plan(asked);
            assert_eq!(
                (plan.name().as_str(), plan.is_satisfied()),
                (name, catalogue),
                "{asked}"
            );
        }
        for bad in ["", "../x", "https://ghcr.io/o/x", "a b"] {
            let error = Plan::new(&dirs, bad, &Wish::default()).unwrap_err();
            assert_eq!(error.kind, ErrorKind::InvalidArgument, "{bad}");
            assert!(
                error.message.contains("catalogue") && error.message.contains("reference"),
                "{error}"
            );
        }
    }

    #[test]
    fn wishes_count() {
        let (_home, dirs) = dirs();
        let named = Wish {
            name: Some("mine".parse().unwrap()),
            offline: true,
            ..Wish::default()
        };
        for asked in ["busybox:1", "alpine"] {
            assert_eq!(Plan::new(&dirs, asked, &named).unwrap().name().as_str(), "mine");
        }
        let error = Plan::new(&dirs, "debian-minimal", &named).unwrap_err();
        assert!(error.message.contains("network"), "{error}");
        let odd = Wish {
            kernel: Some("hurd".parse().unwrap()),
            ..Wish::default()
        };
        let error = Plan::new(&dirs, "alpine", &odd).unwrap_err();
        assert_eq!(error.kind, ErrorKind::NoSuchKernel);
    }

    #[test]
    fn only_the_same_reference_is_replaced_unasked() {
        let (_home, dirs) = dirs();
        let plan = Plan::new(&dirs, "alpine", &Wish::default()).unwrap();
        let image = |origin| Image {
            name: "alpine:latest".parse().unwrap(),
            kind: banger_image::image::Kind::Managed,
            rootfs: "/nowhere".into(),
            kernel: banger_image::image::ImageKernel::Reference("k".parse().unwrap()),
            size: 0,
            content: 0,
            origin,
            config: banger_model::ImageConfig::default(),
            created: 0,
            dir: "/nowhere".into(),
        };
        let of = |reference: &str| {
            image(Origin::Oci {
                reference: reference.to_owned(),
                manifest: Digest::of(b""),
                layers: Vec::new(),
            })
        };
        assert_eq!(plan.may_replace(&of("docker.io/library/alpine:latest")), Ok(()));
        let mine = image(Origin::Registered {
            rootfs: "/mine".into(),
        });
        for other in [of("docker.io/library/alpine:3"), mine] {
            assert_eq!(plan.may_replace(&other).unwrap_err().kind, ErrorKind::ImageExists);
        }
    }

    #[test]
    fn a_word_that_nobody_knows_gets_both_answers() {
        let (_home, dirs) = dirs();
        let error = |asked: &str| {
            let plan = Plan::new(&dirs, asked, &Wish::default()).unwrap();
            let source = Box::new(OciError::LoginRequired {
                host: "docker.io".to_owned(),
                refused: false,
            });
            let reference = "docker.io/library/x:latest".to_owned();
            plan.error(asked, &banger_image::Error::Oci { reference, source })
        };
        let both = error("debian-bookwurm");
        assert_eq!(both.kind, ErrorKind::NoSuchImage);
        for word in [
            "Not in the catalogue: debian-bookwurm",
            "docker.io",
            "--available",
        ] {
            assert!(both.message.contains(word), "{both}");
        }
        let one = error("owner/x:1");
        assert_eq!(one.kind, ErrorKind::LoginRequired);
        assert!(!one.message.contains("catalogue"), "{one}");
    }
}
