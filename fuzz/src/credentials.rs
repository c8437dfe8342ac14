//! A file of logins, docker's or podman's.

use banger_image::oci::fuzzing;

const SECRET: &str = "c2VjcmV0";

/// # Panics
/// When something does not hold.
pub fn run(data: &[u8]) {
    for (host, repository) in [
        ("docker.io", "library/a"),
        ("r.example", "team/app"),
        ("localhost:5000", "a"),
    ] {
        if let Err(reason) = fuzzing::credentials(data, host, repository) {
            assert!(!reason.contains(SECRET) && reason.len() < 1024, "{reason}");
        }
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    [
        r#"{"auths":{"https://index.docker.io/v1/":{"auth":"YTpiOmM="},"r.example/team":{"username":"a","password":"b"}}}"#,
        r#"{"auths":{"r.example":{"auth":"","identitytoken":"c2VjcmV0"}},"HttpHeaders":{}}"#,
        r#"{"auths":{"localhost:5000":{"auth":"c2VjcmV0"},"R.example/v2/":{"auth":"YTox"}}}"#,
        r#"{"credsStore":"pass","credHelpers":{"r.example":"x","docker.io":""},"auths":null}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_have_logins() {
        for seed in seeds() {
            run(&seed);
            assert!(fuzzing::credentials(&seed, "r.example", "team/app").is_ok_and(|found| found));
        }
    }
}
