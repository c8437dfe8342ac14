//! Stores with an image and a kernel, and catalogues that lead to them.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use banger_image::catalog::Catalog;
use banger_image::image::{Image, ImageKernel, Register};
use banger_image::kernel::{Import, Kernel};
use banger_image::oci::{Registry, RetryPolicy, cache};
use banger_image::unpack::Unpacker;
use banger_image::{Cancel, Digest, Error, Mirrors, NoProgress, ext4, image, kernel};
use banger_model::{ImageName, KernelName};

pub(crate) type Result<T> = std::result::Result<T, Error>;

const CONFIG: &str = "CONFIG_VIRTIO_PCI=y\nCONFIG_VIRTIO_BLK=m\nCONFIG_VIRTIO_NET=y\n\
                      CONFIG_VIRTIO_CONSOLE=y\nCONFIG_EXT4_FS=y\nCONFIG_BLK_DEV_INITRD=y\n";

pub(crate) struct Machine {
    pub(crate) dir: tempfile::TempDir,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn images(&self) -> PathBuf {
        self.path("images")
    }

    pub(crate) fn kernels(&self) -> PathBuf {
        self.path("kernels")
    }

    /// A managed image with some data in it, a configuration and an origin.
    pub(crate) fn image(&self, name: &str) -> Image {
        let rootfs = self.path("new.ext4");
        file_system(&rootfs);
        let name: ImageName = name.parse().unwrap();
        image::register(&Register {
            images: &self.images(),
            name: name.clone(),
            rootfs: &rootfs,
            kernel: ImageKernel::Reference("debian-6.1".parse().unwrap()),
        })
        .unwrap();
        let mut image = image::promote(&self.images(), &name, &NoProgress, &Cancel::new()).unwrap();
        fs::remove_file(rootfs).unwrap();
        image.config.env.insert("PATH".to_owned(), "/bin".to_owned());
        image.config.process.entrypoint = vec!["/bin/app".to_owned()];
        image.created = 1_700_000_000;
        fs::write(image.dir.join("image.json"), serde_json::to_vec(&image).unwrap()).unwrap();
        image::load(&self.images(), &name).unwrap()
    }

    pub(crate) fn kernel(&self) -> Kernel {
        let modules = self.path("modules");
        fs::create_dir_all(modules.join("kernel/drivers")).unwrap();
        fs::write(modules.join("kernel/drivers/virtio_blk.ko"), [7; 5000]).unwrap();
        fs::write(modules.join("modules.dep"), "kernel/drivers/virtio_blk.ko:\n").unwrap();
        fs::write(self.path("vmlinux"), elf()).unwrap();
        fs::write(self.path("config"), CONFIG).unwrap();
        let import = Import {
            kernels: &self.kernels(),
            name: None,
            kernel: &self.path("vmlinux"),
            modules: Some(&modules),
            config: Some(&self.path("config")),
        };
        kernel::import(&import, &Cancel::new()).unwrap()
    }

    pub(crate) fn pull_image(&self, catalog: &Catalog, name: &str) -> Result<Image> {
        self.pull_image_until(catalog, name, &Cancel::new())
    }

    pub(crate) fn pull_image_until(&self, catalog: &Catalog, name: &str, cancel: &Cancel) -> Result<Image> {
        let cache = self.path("cache");
        let pull = image::Pull {
            images: &self.images(),
            entry: catalog.image(&name.parse::<ImageName>().unwrap()).unwrap(),
            kernel: None,
            mirrors: &Mirrors::default(),
            registry: registry(&cache),
            unpacker: &unpacker(),
            force: false,
        };
        image::pull(&pull, &NoProgress, cancel)
    }

    pub(crate) fn pull_kernel(&self, catalog: &Catalog, name: &str) -> Result<Kernel> {
        let cache = self.path("cache");
        let pull = kernel::Pull {
            kernels: &self.kernels(),
            cache: &cache,
            entry: catalog.kernel(&name.parse::<KernelName>().unwrap()).unwrap(),
            mirrors: &Mirrors::default(),
            registry: registry(&cache),
            unpacker: &unpacker(),
        };
        kernel::pull(&pull, &NoProgress, &Cancel::new())
    }

    /// The names in one of the stores: nothing half-made may be among them.
    pub(crate) fn entries(&self, store: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(store)) else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_unstable();
        names
    }
}

fn registry(cache: &Path) -> Registry<'_> {
    Registry {
        cache,
        cache_bytes: cache::DEFAULT_BYTES,
        insecure: false,
        offline: false,
        retry: RetryPolicy::immediate(),
    }
}

fn unpacker() -> Unpacker {
    Unpacker {
        program: "/proc/self/exe".into(),
        arguments: ["child_entry", "--exact", "--nocapture"].map(Into::into).to_vec(),
    }
}

pub(crate) fn file_system(path: &Path) {
    let mut writer = ext4::Writer::create(path).unwrap();
    let content = noise(300_000);
    let metadata = ext4::Metadata {
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: 0,
        mtime_nanos: 0,
        xattrs: Vec::new(),
    };
    let kind = ext4::Kind::File {
        size: content.len() as u64,
        content: &mut &content[..],
    };
    writer.add(b"bin/app", kind, &metadata).unwrap();
    writer.finish().unwrap();
}

/// Bytes that no compression makes smaller.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// The smallest ELF file that passes for a kernel.
pub(crate) fn elf() -> Vec<u8> {
    let mut elf = vec![0; 64];
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    elf[16] = 2;
    elf[18] = 62;
    elf.extend_from_slice(b"Linux version 6.1.0-test (builder)\0");
    elf
}

/// A catalogue with one bundle, as it is.
pub(crate) fn catalog_of(kind: &str, name: &str, bundle: &Path) -> Catalog {
    let content = fs::read(bundle).unwrap();
    catalog(
        kind,
        name,
        &format!("file://{}", bundle.display()),
        Digest::of(&content),
        content.len() as u64,
    )
}

pub(crate) fn catalog(kind: &str, name: &str, url: &str, sha256: Digest, size: u64) -> Catalog {
    let kernel = if kind == "image" {
        "kernel = \"debian-6.1\"\n"
    } else {
        ""
    };
    let text = format!(
        "[[{kind}]]\nname = \"{name}\"\ndescription = \"\"\n{kernel}[[{kind}.source]]\ntype = \"bundle\"\n\
         url = \"{url}\"\nsha256 = \"{}\"\nsize = {size}\n",
        sha256.hex()
    );
    Catalog::parse(&text, "a test").unwrap()
}

pub(crate) fn write(path: &Path, content: &[u8]) {
    File::create(path).unwrap().write_all(content).unwrap();
}

/// Whether two files have the same bytes.
pub(crate) fn same(a: &Path, b: &Path) -> bool {
    let (a, b) = (File::open(a).unwrap(), File::open(b).unwrap());
    let len = a.metadata().unwrap().len();
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    b.metadata().unwrap().len() == len
        && (0..len).step_by(1 << 20).all(|at| {
            let piece = (len - at).min(1 << 20) as usize;
            a.read_exact_at(&mut left[..piece], at).unwrap();
            b.read_exact_at(&mut right[..piece], at).unwrap();
            left[..piece] == right[..piece]
        })
}
