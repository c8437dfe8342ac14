//! SSH host keys of guests.

use banger_bus::Error;
use russh::keys::PrivateKey;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::Ed25519Keypair;

use super::error::failed;

/// A new ed25519 key: the private half in OpenSSH's format, the public one as a line of
/// authorized_keys(5) without its newline.
///
/// # Errors
/// When the kernel gives no randomness.
pub(crate) fn generate_host_key() -> Result<(String, String), Error> {
    let mut seed = [0; 32];
    random(&mut seed)?;
    let key = PrivateKey::from(Ed25519Keypair::from_seed(&seed));
    let private = key
        .to_openssh(LineEnding::LF)
        .map_err(|e| failed("Cannot write a host key", &e))?;
    Ok((private.to_string(), public_line(&key)?))
}

/// Fills `bytes` from the kernel.
///
/// # Errors
/// When the kernel has none to give, which it does not do after boot.
pub(crate) fn random(bytes: &mut [u8]) -> Result<(), Error> {
    let mut filled = 0;
    while filled < bytes.len() {
        let flags = rustix::rand::GetRandomFlags::empty();
        filled += rustix::rand::getrandom(&mut bytes[filled..], flags)
            .map_err(|e| failed("The kernel gives no random bytes", &e))?;
    }
    Ok(())
}

fn public_line(key: &PrivateKey) -> Result<String, Error> {
    key.public_key()
        .to_openssh()
        .map_err(|e| failed("Cannot write a host key", &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_halves_belong_together_and_no_two_keys_are_the_same() {
        let (private, public) = generate_host_key().unwrap();
        assert!(public.starts_with("ssh-ed25519 AAAA"), "{public}");
        let read = PrivateKey::from_openssh(&private).unwrap();
        assert_eq!(public_line(&read).unwrap(), public);
        assert_ne!(generate_host_key().unwrap().1, public);
    }
}
