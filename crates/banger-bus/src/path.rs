//! Object paths.

use zbus::{ObjectPath, OwnedObjectPath};

/// The manager, and the root of the object manager.
pub const MANAGER: &str = "/org/banger/Manager";
/// Below it lies one object per VM, image, kernel or job.
pub const VMS: &str = "/org/banger/Manager/vm";
pub const IMAGES: &str = "/org/banger/Manager/image";
pub const KERNELS: &str = "/org/banger/Manager/kernel";
pub const JOBS: &str = "/org/banger/Manager/job";

/// A VM's object: its id, because names can be given again.
pub fn vm(id: &str) -> OwnedObjectPath {
    below(VMS, id)
}

/// An image's object, by its name.
pub fn image(name: &str) -> OwnedObjectPath {
    below(IMAGES, name)
}

/// A kernel's object, by its name.
pub fn kernel(name: &str) -> OwnedObjectPath {
    below(KERNELS, name)
}

pub fn job(id: u32) -> OwnedObjectPath {
    below(JOBS, &format!("j{id}"))
}

/// Path elements are `[A-Za-z0-9_]`: every other byte, and a leading digit, becomes `_xx`, as
/// sd-bus' `sd_bus_path_encode` does it.
fn below(parent: &str, name: &str) -> OwnedObjectPath {
    let mut path = format!("{parent}/");
    for (i, byte) in name.bytes().enumerate() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' => path.push(byte.into()),
            b'0'..=b'9' if i > 0 => path.push(byte.into()),
            _ => path.push_str(&format!("_{byte:02x}")),
        }
    }
    if name.is_empty() {
        path.push('_');
    }
    ObjectPath::try_from(path)
        .expect("an escaped path is valid")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_as_sd_bus_does() {
        assert_eq!(
            image("alpine:3.20").as_str(),
            "/org/banger/Manager/image/alpine_3a3_2e20"
        );
        assert_eq!(kernel("6.1").as_str(), "/org/banger/Manager/kernel/_36_2e1");
        assert_eq!(vm("").as_str(), "/org/banger/Manager/vm/_");
        assert_eq!(job(7).as_str(), "/org/banger/Manager/job/j7");
    }
}
