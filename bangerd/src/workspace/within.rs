//! Commands that run in a workspace.

use banger_bus::ExecOptions;
use banger_model::Workspace;

const ROOT: &str = "root";
/// mise's own words; what follows is the command.
const MISE: [&str; 3] = ["mise", "exec", "--"];

/// Whether a command is to run in the workspace of its VM, if that has one.
pub(crate) fn is_wanted(options: &ExecOptions) -> bool {
    options.workspace.unwrap_or(true)
        && options.working_directory.is_none()
        && !options.entrypoint.unwrap_or(false)
}

/// Puts a command into the workspace: there, as the one to whom it belongs, and with the tools
/// that it names where the guest has mise.
pub(crate) fn within(
    workspace: &Workspace,
    argv: Vec<String>,
    options: ExecOptions,
) -> (Vec<String>, ExecOptions) {
    let argv = if workspace.mise && !argv.is_empty() {
        MISE.iter().map(|&word| word.to_owned()).chain(argv).collect()
    } else {
        argv
    };
    let options = ExecOptions {
        working_directory: Some(workspace.guest_path.clone()),
        user: options.user.or_else(|| Some(ROOT.to_owned())),
        ..options
    };
    (argv, options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_run_in_the_workspace_unless_told_otherwise() {
        let workspace = Workspace {
            host_path: "/home/a/repo".to_owned(),
            guest_path: "/root/repo".to_owned(),
            mode: "shallow_overlay".to_owned(),
            commit: String::new(),
            include_untracked: false,
            mise: true,
        };
        let make = vec!["make".to_owned()];
        let (argv, options) = within(&workspace, make.clone(), ExecOptions::default());
        assert_eq!(argv, ["mise", "exec", "--", "make"]);
        assert_eq!(options.working_directory.as_deref(), Some("/root/repo"));
        assert_eq!(options.user.as_deref(), Some("root"));
        // A shell is no command of mise's.
        assert!(
            within(&workspace, Vec::new(), ExecOptions::default())
                .0
                .is_empty()
        );
        let plain = Workspace {
            mise: false,
            ..workspace
        };
        assert_eq!(within(&plain, make.clone(), ExecOptions::default()).0, make);

        assert!(is_wanted(&ExecOptions::default()));
        let elsewhere = ExecOptions {
            working_directory: Some("/tmp".to_owned()),
            ..ExecOptions::default()
        };
        let without = ExecOptions {
            workspace: Some(false),
            ..ExecOptions::default()
        };
        let entrypoint = ExecOptions {
            entrypoint: Some(true),
            ..ExecOptions::default()
        };
        for options in [elsewhere, without, entrypoint] {
            assert!(!is_wanted(&options), "{options:?}");
        }
    }
}
