//! What kind of machine this is, as far as it matters.

use std::sync::OnceLock;

use banger_model::guest::RESET_ENDS;
use rustix::system::RebootCommand;

/// Whether this machine ends by a reset and cannot be switched off: its VMM says so.
pub(crate) fn reset_ends() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let cmdline = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
        has_word(&cmdline, RESET_ENDS)
    })
}

/// The command by which this machine ends, for one by which others do: switched off, it would
/// stand still for ever.
pub(crate) fn end_of(how: RebootCommand) -> RebootCommand {
    match how {
        RebootCommand::PowerOff if reset_ends() => RebootCommand::Restart,
        how => how,
    }
}

fn has_word(cmdline: &str, word: &str) -> bool {
    // What follows is for the init.
    let kernels = cmdline.split_whitespace().take_while(|&next| next != "--");
    kernels.into_iter().any(|next| next == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_is_the_kernel_s_and_whole() {
        assert!(has_word("quiet banger.off=reset\n", RESET_ENDS));
        assert!(!has_word("quiet", RESET_ENDS));
        assert!(!has_word("xbanger.off=reset banger.off=resets", RESET_ENDS));
        assert!(!has_word("quiet -- banger.off=reset", RESET_ENDS));
    }
}
