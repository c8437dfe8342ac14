//! Sources one after the other.

use crate::error::{Error, Result, chain};
use crate::progress::Progress;

/// The result of the first source that can be used. A cancelled operation tries no other.
///
/// # Errors
/// The error of the only source, or [`Error::Sources`] with those of all.
pub(crate) fn first_of<S, T>(
    name: &str,
    sources: &[S],
    progress: &dyn Progress,
    mut attempt: impl FnMut(&S) -> Result<T>,
) -> Result<T>
where
    S: ToString,
{
    let mut reasons = Vec::new();
    for source in sources {
        match attempt(source) {
            Ok(made) => return Ok(made),
            Err(Error::Cancelled) => return Err(Error::Cancelled),
            Err(error) if sources.len() == 1 => return Err(error),
            Err(error) => {
                let reason = format!("{}: {}", source.to_string(), chain(&error));
                progress.message(&reason);
                reasons.push(reason);
            }
        }
    }
    Err(Error::Sources {
        name: name.to_owned(),
        reasons,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NoProgress;

    #[test]
    fn sources_are_tried_in_their_order_and_all_reasons_told() {
        let mut tried = Vec::new();
        let mut attempt = |until: &'static str| {
            tried.clear();
            let made = first_of("x", &["a", "b", "c"], &NoProgress, |&source| {
                tried.push(source);
                match source {
                    _ if source == until => Ok(source),
                    "c" if until == "cancel" => Err(Error::Cancelled),
                    _ => Err(Error::NotInCatalogue(source.to_owned())),
                }
            });
            (made, tried.clone())
        };
        assert!(matches!(attempt("b"), (Ok("b"), tried) if tried == ["a", "b"]));
        let (failed, tried) = attempt("none");
        let text = failed.unwrap_err().to_string();
        assert_eq!(tried.len(), 3);
        for source in tried {
            assert!(
                text.contains(&format!("{source}: Not in the catalogue: {source}")),
                "{text}"
            );
        }
        assert!(matches!(attempt("cancel").0, Err(Error::Cancelled)));
        let only = first_of("x", &["a"], &NoProgress, |_| {
            Err::<(), _>(Error::OwnKernel("a".into()))
        });
        assert!(matches!(only, Err(Error::OwnKernel(_))));
    }
}
