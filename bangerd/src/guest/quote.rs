//! A command line from arguments: SSH carries one string, and the guest's shell reads it.

/// Quotes each argument for a POSIX shell, so that the command gets exactly these bytes. Every
/// word is quoted, also the plain ones: `time` or `A=b` without quotes would mean something else.
pub(super) fn command_line(argv: &[String]) -> String {
    let mut line = String::with_capacity(argv.iter().map(|arg| arg.len() + 3).sum());
    for arg in argv {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push('\'');
        line.push_str(&arg.replace('\'', r"'\''"));
        line.push('\'');
    }
    line
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_shell_reads_back_what_was_given() {
        let odd = [
            "",
            " ",
            "'",
            "''",
            "\\",
            "$HOME",
            "`id`",
            "\"",
            "a\nb",
            "*",
            "~",
            "!",
            "#",
            "&&",
            ";",
            "-n",
            "é€",
            "\t",
            "a'b\"c\\d$e",
            "=",
            "if",
            "\u{1}\u{7f}",
        ];
        let mut argv = vec!["printf".to_owned(), "%s\\0".to_owned()];
        argv.extend(odd.iter().map(|&word| word.to_owned()));
        let output = Command::new("/bin/sh")
            .args(["-c", &command_line(&argv)])
            .output()
            .unwrap();
        let expected: String = odd.iter().map(|word| format!("{word}\0")).collect();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    }
}
