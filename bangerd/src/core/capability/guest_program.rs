//! Finding `banger-guest`: it is shipped beside the daemon, never built or fetched at run time.

use std::path::{Path, PathBuf};

use banger_bus::{Error, ErrorKind};

const PROGRAM: &str = "banger-guest";
const INSTALLED: &str = "/usr/lib/banger/banger-guest";
/// Overrides the search.
const VARIABLE: &str = "BANGER_GUEST";

/// The guest program of this installation.
///
/// # Errors
/// When it is nowhere; the text lists the places.
pub(crate) fn find() -> Result<PathBuf, Error> {
    let explicit = std::env::var_os(VARIABLE).map(PathBuf::from);
    let this = std::env::current_exe().ok();
    let candidates = candidates(explicit, this.as_deref().and_then(Path::parent));
    if let Some(found) = candidates.iter().find(|path| path.is_file()) {
        return Ok(found.clone());
    }
    let places: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
    Err(Error::new(
        ErrorKind::Failed,
        format!("The guest program is missing: looked for {}", places.join(", ")),
    )
    .hint(format!(
        "Install banger as a whole, or set {VARIABLE} to its path."
    )))
}

fn candidates(explicit: Option<PathBuf>, beside: Option<&Path>) -> Vec<PathBuf> {
    match (explicit, beside) {
        // Who names one means that one.
        (Some(path), _) => vec![path],
        (None, Some(beside)) => vec![
            beside.join(PROGRAM),
            beside.join("../lib/banger").join(PROGRAM),
            INSTALLED.into(),
        ],
        (None, None) => vec![INSTALLED.into()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_named_one_only_else_the_places_in_order() {
        let beside = Path::new("/opt/banger/bin");
        assert_eq!(candidates(Some("/x".into()), Some(beside)), [PathBuf::from("/x")]);
        assert_eq!(
            candidates(None, Some(beside)),
            [
                PathBuf::from("/opt/banger/bin/banger-guest"),
                PathBuf::from("/opt/banger/bin/../lib/banger/banger-guest"),
                PathBuf::from("/usr/lib/banger/banger-guest"),
            ]
        );
    }
}
