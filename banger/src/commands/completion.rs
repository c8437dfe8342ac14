//! `banger completion`.

use clap::{Args, ValueEnum};
use clap_complete::env::{EnvCompleter, Shells};

use crate::error::{Error, Result};
use crate::output;

/// Write the completion script of a shell
///
/// The script asks `banger` itself, so it completes the names of VMs, images and kernels too. It
/// never starts the daemon.
#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  bash:  source <(banger completion bash)
  zsh:   source <(banger completion zsh)
  fish:  banger completion fish | source")]
pub(crate) struct Completion {
    shell: Shell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// As `_banger` in zsh's function path the script runs at the first completion, and must give
/// an answer to it too.
const ZSH_AUTOLOAD: &str =
    "if [ \"$funcstack[1]\" = _banger ]; then\n    _clap_dynamic_completer_banger \"$@\"\nfi\n";

/// Bash breaks words at ':', which names of images have. Here they are whole while `banger` is
/// asked, and of its answers only what follows the last ':' is given to bash.
const BASH_WHOLE_WORDS: &str = r#"
_banger_whole_words() {
    local words=() current=0 i whole
    for i in "${!COMP_WORDS[@]}"; do
        if ((i > 1)) && [[ ${COMP_WORDS[i]} == :* || ${COMP_WORDS[i-1]} == *: ]]; then
            words[${#words[@]}-1]+=${COMP_WORDS[i]}
        else
            words+=("${COMP_WORDS[i]}")
        fi
        ((i == COMP_CWORD)) && current=$((${#words[@]} - 1))
    done
    whole=${words[current]}
    local COMP_WORDS=("${words[@]}") COMP_CWORD=$current
    _clap_complete_banger "$1" "$whole" "$3"
    if [[ $whole == *:* && $COMP_WORDBREAKS == *:* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${whole%"${whole##*:}"}"}")
    fi
}
complete -o nospace -o bashdefault -F _banger_whole_words banger
"#;

impl Completion {
    pub(crate) fn run(&self) -> Result<()> {
        let name = match self.shell {
            Shell::Bash => "bash",
            Shell::Zsh => "zsh",
            Shell::Fish => "fish",
        };
        let mut script = Vec::new();
        let shells = Shells::builtins();
        let shell: &dyn EnvCompleter = shells
            .completer(name)
            .expect("the three shells are among the built-in ones");
        shell
            .write_registration("COMPLETE", "banger", "banger", "banger", &mut script)
            .map_err(Error::Output)?;
        script.extend(match self.shell {
            Shell::Bash => BASH_WHOLE_WORDS.as_bytes(),
            Shell::Zsh => ZSH_AUTOLOAD.as_bytes(),
            Shell::Fish => &[],
        });
        output::data(&script)
    }
}
