//! The owner's images and kernels. What is on the disk is the truth; the objects on the bus
//! follow it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use banger_bus::{Error, ErrorKind, JobOutcome, Result, path};
use banger_image::Cancel;
use banger_image::image::{self, Image, ImageKernel};
use banger_image::kernel::{self, Kernel};
use banger_image::oci::Reference;
use banger_model::{Dirs, ImageName, KernelName};
use tokio::sync::RwLock;
use zbus::OwnedObjectPath;

mod fetch;
mod fetcher;
mod plan;
mod prune;
mod pull;
mod register;
mod share;
mod tally;

use fetch::waiting;

use super::error::{About, convert};
use super::image::ImageEntry;
use super::kernel::KernelEntry;
use super::offers;
use super::turns::Turns;
use crate::bus::Bus;
use crate::config::ConfigFile;
use crate::core::progress::JobContext;
use crate::core::sources::find_image;
use crate::jobs::Jobs;

pub(crate) struct Library {
    dirs: Dirs,
    config: ConfigFile,
    bus: Bus,
    jobs: Jobs,
    turns: Turns,
    /// Shared by those who fill the cache of layers, for one alone who clears it.
    cache: Arc<RwLock<()>>,
    shown: Mutex<Shown>,
}

/// What the bus has been told of.
#[derive(Default)]
struct Shown {
    images: BTreeMap<ImageName, Image>,
    kernels: BTreeMap<KernelName, Kernel>,
}

impl Library {
    /// Removes what interrupted builds left, and shows what is here. Blocks.
    pub(crate) fn open(dirs: Dirs, config: ConfigFile, bus: Bus, jobs: Jobs) -> Arc<Self> {
        let library = Arc::new(Self {
            dirs,
            config,
            bus,
            jobs,
            turns: Turns::default(),
            cache: Arc::default(),
            shown: Mutex::default(),
        });
        // What cannot be removed now is tried again at the next pull.
        for swept in [
            image::sweep(&library.dirs.images()),
            kernel::sweep(&library.dirs.kernels()),
        ] {
            if let Err(error) = swept {
                tracing::warn!(%error, "Cannot remove what an interrupted build left");
            }
        }
        library.refresh();
        library
    }

    pub(crate) async fn delete_image(self: &Arc<Self>, name: &ImageName) -> Result<()> {
        // First the turn: a VM may come to use it while a pull is waited for.
        let _turn = self.turns.take(&format!("image {name}"), || {}).await;
        let users = self.users(name);
        if !users.is_empty() {
            return Err(in_use(
                ErrorKind::ImageInUse,
                "Image",
                name.as_str(),
                "VM",
                &users,
            ));
        }
        let (images, wanted) = (self.dirs.images(), name.clone());
        self.blocking(&JobContext::silent(), About::Image, move |_, _| {
            image::delete(&images, &wanted)
        })
        .await
    }

    /// The VMs that were made of an image.
    fn users(&self, name: &ImageName) -> Vec<String> {
        let vms = self.bus.vms().into_iter();
        vms.filter(|vm| vm.image == name.as_str())
            .map(|vm| vm.name)
            .collect()
    }

    pub(crate) async fn delete_kernel(self: &Arc<Self>, name: &KernelName) -> Result<()> {
        let _turn = self.turns.take(&format!("kernel {name}"), || {}).await;
        let kernels = self.dirs.kernels();
        let there = kernel::load(&kernels, name).map_err(|error| convert(&error, About::Kernel))?;
        let vms: Vec<String> = self
            .bus
            .vms()
            .into_iter()
            .filter(|vm| vm.kernel.parse().is_ok_and(|kernel| there.answers_to(&kernel)))
            .map(|vm| vm.name)
            .collect();
        if !vms.is_empty() {
            return Err(in_use(
                ErrorKind::KernelInUse,
                "Kernel",
                name.as_str(),
                "VM",
                &vms,
            ));
        }
        let images: Vec<String> = self
            .shown()
            .images
            .values()
            .filter(
                |image| matches!(&image.kernel, ImageKernel::Reference(kernel) if there.answers_to(kernel)),
            )
            .map(|image| image.name.to_string())
            .collect();
        if !images.is_empty() {
            return Err(in_use(
                ErrorKind::KernelInUse,
                "Kernel",
                name.as_str(),
                "image",
                &images,
            ));
        }
        let wanted = name.clone();
        self.blocking(&JobContext::silent(), About::Kernel, move |_, _| {
            kernel::remove(&kernels, &wanted)
        })
        .await
    }

    pub(crate) fn look_up_image(self: &Arc<Self>, name: &str) -> Result<OwnedObjectPath> {
        let name = parse::<ImageName>(name)?;
        self.refresh();
        let image = find_image(&self.dirs.images(), &name).map_err(|error| convert(&error, About::Image))?;
        Ok(path::image(image.name.as_str()))
    }

    pub(crate) fn look_up_kernel(self: &Arc<Self>, name: &str) -> Result<OwnedObjectPath> {
        let name = parse::<KernelName>(name)?;
        self.refresh();
        let kernel =
            kernel::find(&self.dirs.kernels(), &name).map_err(|error| convert(&error, About::Kernel))?;
        Ok(path::kernel(kernel.name.as_str()))
    }

    /// What can be pulled: names and descriptions of `images` or `kernels`.
    pub(crate) fn available(&self, kind: &str) -> Result<Vec<(String, String)>> {
        let catalog = offers::read(&self.dirs).map_err(|error| convert(&error, About::Image))?;
        match kind {
            "images" => Ok(catalog
                .images()
                .map(|image| (image.name.to_string(), image.description.clone()))
                .collect()),
            "kernels" => Ok(catalog
                .kernels()
                .map(|kernel| (kernel.name.to_string(), kernel.description.clone()))
                .collect()),
            other => Err(invalid(format!("No such kind: {other:?} (images or kernels)"))),
        }
    }

    /// Works on the stores in a thread that may block, and shows what has changed.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        ctx: &JobContext,
        about: About,
        work: impl FnOnce(&JobContext, &Cancel) -> banger_image::Result<T> + Send + 'static,
    ) -> Result<T> {
        let worked = self.working(ctx, work).await?;
        worked.map_err(|error| convert(&error, about))
    }

    /// The same, with the store's own error.
    async fn working<T: Send + 'static>(
        self: &Arc<Self>,
        ctx: &JobContext,
        work: impl FnOnce(&JobContext, &Cancel) -> banger_image::Result<T> + Send + 'static,
    ) -> Result<banger_image::Result<T>> {
        let (library, ctx) = (self.clone(), ctx.clone());
        let worked = tokio::task::spawn_blocking(move || {
            let result = work(&ctx, ctx.cancel().blocking());
            library.refresh();
            result
        });
        worked
            .await
            .map_err(|error| Error::new(ErrorKind::Failed, format!("Internal error: {error}")))
    }

    /// Tells the bus what is on the disk. Blocks.
    fn refresh(self: &Arc<Self>) {
        let mut shown = self.shown();
        match image::list(&self.dirs.images()) {
            Ok(images) => {
                let now = images
                    .into_iter()
                    .map(|image| (image.name.clone(), image))
                    .collect();
                let was = std::mem::replace(&mut shown.images, now);
                for name in was.keys().filter(|name| !shown.images.contains_key(name)) {
                    self.bus.removed(&path::image(name.as_str()));
                }
                for (name, image) in shown
                    .images
                    .iter()
                    .filter(|(name, image)| was.get(name) != Some(image))
                {
                    let entry = ImageEntry {
                        image: image.clone(),
                        library: Arc::downgrade(self),
                    };
                    self.bus.image_added(&path::image(name.as_str()), Arc::new(entry));
                }
            }
            Err(error) => tracing::warn!(%error, "Cannot list the images"),
        }
        match kernel::list(&self.dirs.kernels()) {
            Ok(kernels) => {
                let now = kernels
                    .into_iter()
                    .map(|kernel| (kernel.name.clone(), kernel))
                    .collect();
                let was = std::mem::replace(&mut shown.kernels, now);
                for name in was.keys().filter(|name| !shown.kernels.contains_key(name)) {
                    self.bus.removed(&path::kernel(name.as_str()));
                }
                for (name, kernel) in shown
                    .kernels
                    .iter()
                    .filter(|(name, kernel)| was.get(name) != Some(kernel))
                {
                    let entry = KernelEntry {
                        kernel: kernel.clone(),
                        library: Arc::downgrade(self),
                    };
                    self.bus
                        .kernel_added(&path::kernel(name.as_str()), Arc::new(entry));
                }
            }
            Err(error) => tracing::warn!(%error, "Cannot list the kernels"),
        }
    }

    fn shown(&self) -> std::sync::MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn done(object: OwnedObjectPath) -> JobOutcome {
    JobOutcome {
        object: Some(object),
        ..JobOutcome::done()
    }
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T> {
    text.parse().map_err(|error: T::Err| invalid(error.to_string()))
}

/// The name for an image that its owner chose. A single word stays as it is; what looks like a
/// reference gets its short form, by which each of its forms finds it.
fn name_for(text: &str) -> Result<ImageName> {
    match text.parse::<Reference>() {
        Ok(reference) if text.contains(['/', ':', '@']) => Ok(reference.familiar()),
        _ => parse(text),
    }
}

fn absolute(path: &str) -> Result<()> {
    if path.starts_with('/') && !path.contains('\0') {
        Ok(())
    } else {
        Err(invalid(format!("Not an absolute path: {path:?}")))
    }
}

fn invalid(text: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, text)
}

fn in_use(kind: ErrorKind, what: &str, name: &str, by: &str, users: &[String]) -> Error {
    let plural = if users.len() == 1 { "" } else { "s" };
    Error::new(
        kind,
        format!("{what} {name} is in use by the {by}{plural} {}", users.join(", ")),
    )
    .hint(format!("Delete the {by}{plural} first."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::fake::{FakeVm, vm, vm_path};

    #[tokio::test]
    async fn what_comes_into_use_while_a_pull_is_waited_for_is_not_deleted() {
        let home = tempfile::tempdir().unwrap();
        let dirs = Dirs::resolve(|key| (key == "HOME").then(|| home.path().into())).unwrap();
        let bus = Bus::new();
        let (config, jobs) = (ConfigFile::new(&dirs), Jobs::new(bus.clone()));
        let library = Library::open(dirs, config, bus.clone(), jobs);
        let name = "image".parse().unwrap();
        let (pull, _) = library.turns.take("image image", || {}).await;
        let pulled = async {
            bus.vm_added(&vm_path(), Arc::new(FakeVm(Mutex::new(vm("a")))));
            drop(pull);
        };
        // In this order: the deletion waits before the VM is there.
        let (deleted, ()) = tokio::join!(biased; library.delete_image(&name), pulled);
        assert_eq!(deleted.unwrap_err().kind, ErrorKind::ImageInUse);
    }
}
