//! Finding a VM by what people type: an exact name, an id, or an unambiguous prefix of either.

use banger_bus::{Error, ErrorKind};
use banger_model::VmId;

/// Candidates that an error lists.
const LISTED: usize = 8;
/// The shortest prefix of an id that is tried: shorter ones are typing errors.
const MIN_ID_PREFIX: usize = 4;

/// Which of `vms` is meant by `text`. An exact name wins over everything, an exact id over
/// prefixes, names' prefixes over ids'.
///
/// # Errors
/// `NoSuchVm`; `AmbiguousVm` with the candidates.
pub(crate) fn find(text: &str, vms: &[(VmId, String)]) -> Result<VmId, Error> {
    if let Some((id, _)) = vms.iter().find(|(_, name)| name == text) {
        return Ok(*id);
    }
    if let Ok(id) = text.parse::<VmId>()
        && vms.iter().any(|(known, _)| *known == id)
    {
        return Ok(id);
    }
    let by_name = vms
        .iter()
        .filter(|(_, name)| !text.is_empty() && name.starts_with(text));
    match by_name.collect::<Vec<_>>()[..] {
        [] => {}
        [(id, _)] => return Ok(*id),
        ref many => return Err(ambiguous(text, many)),
    }
    let by_id = vms
        .iter()
        .filter(|(id, _)| text.len() >= MIN_ID_PREFIX && id.to_string().starts_with(text));
    match by_id.collect::<Vec<_>>()[..] {
        [] => Err(Error::new(ErrorKind::NoSuchVm, format!("No such VM: {text:?}"))
            .hint("See `banger vm list -a` for those that there are.")),
        [(id, _)] => Ok(*id),
        ref many => Err(ambiguous(text, many)),
    }
}

fn ambiguous(text: &str, candidates: &[&(VmId, String)]) -> Error {
    let mut names: Vec<&str> = candidates.iter().map(|(_, name)| name.as_str()).collect();
    names.sort_unstable();
    let more = names.len().saturating_sub(LISTED);
    names.truncate(LISTED);
    let mut list = names.join(", ");
    if more > 0 {
        list.push_str(&format!(" and {more} more"));
    }
    Error::new(
        ErrorKind::AmbiguousVm,
        format!("Several VMs begin with {text:?}: {list}"),
    )
    .hint("Write more of the name.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vms() -> Vec<(VmId, String)> {
        [
            ("beta", 0x11),
            ("beta-sandbox", 0x12),
            ("gamma", 0x11),
            ("1111", 0x33),
        ]
        .into_iter()
        .enumerate()
        .map(|(i, (name, byte))| {
            let mut bytes = [byte; 16];
            bytes[15] = u8::try_from(i).unwrap();
            (VmId::from_bytes(bytes), name.to_owned())
        })
        .collect()
    }

    #[test]
    fn the_rules_in_their_order() {
        let vms = vms();
        for (text, found) in [
            ("beta", 0),
            ("beta-", 1),
            ("g", 2),
            ("1111", 3),
            ("1212", 1),
            (&*vms[0].0.to_string(), 0),
        ] {
            assert_eq!(find(text, &vms), Ok(vms[found].0), "{text}");
        }
        for (text, kind) in [
            ("b", ErrorKind::AmbiguousVm),
            ("11111", ErrorKind::AmbiguousVm),
            ("", ErrorKind::NoSuchVm),
            ("12", ErrorKind::NoSuchVm),
            ("delta", ErrorKind::NoSuchVm),
        ] {
            assert_eq!(find(text, &vms).unwrap_err().kind, kind, "{text}");
        }
        let error = find("b", &vms).unwrap_err();
        assert!(error.message.contains("beta, beta-sandbox"), "{error}");
    }
}
