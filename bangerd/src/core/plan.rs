//! What to do, from what should be and what is. Pure: the same function serves create, start,
//! stop and delete, and the repair after a crash, so that there is one way to each state.

use super::capability::Kind;

/// What the owner wants of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Desired {
    /// Nothing of it is left.
    Absent,
    /// It exists, and nothing of it runs.
    Stopped,
    /// Its guest is up.
    Running,
}

/// The VMM as it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Vmm {
    /// None, and none is noted.
    #[default]
    None,
    /// It runs and this daemon watches it.
    Watched,
    /// It runs and this daemon only has its note: it was started by an earlier one.
    Unwatched,
    /// One is noted and it is gone.
    Gone,
}

/// What there is of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Observed {
    pub row: bool,
    /// Its creation has not been finished: what is missing was never there.
    pub unfinished: bool,
    /// What of its lasting parts exists.
    pub made: Vec<Kind>,
    /// Whether anything of a run is left over: sockets, a scope, a slot.
    pub run_left: bool,
    pub vmm: Vmm,
}

/// One step. Each can be done again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    AddRow,
    /// Make these lasting parts, side by side.
    Make(&'static [Kind]),
    /// Ready these parts for a run, side by side.
    Prepare(&'static [Kind]),
    Launch,
    AwaitReady,
    /// Watch a VMM that an earlier daemon started.
    Adopt,
    /// End the VMM: by the guest's own shutdown where there is time for it.
    EndVmm,
    /// Note that the VMM has ended.
    NoteGone,
    /// Remove what a run leaves.
    CleanUp(&'static [Kind]),
    /// Remove these lasting parts.
    Unmake(&'static [Kind]),
    RemoveRow,
}

/// Why a VM cannot become what is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a part of it is lost: its {}", .0.what())]
pub(crate) struct Lost(pub Kind);

/// The steps from `observed` to `desired`, in their order; none when nothing is to be done.
///
/// # Errors
/// [`Lost`] when a part that held the owner's data is gone: it is not silently made anew.
pub(crate) fn plan(desired: Desired, observed: &Observed) -> Result<Vec<Step>, Lost> {
    let mut steps = Vec::new();
    match desired {
        Desired::Absent => {
            end(observed, &mut steps);
            // In the other order: what was made last goes first.
            for wave in Kind::MAKE.iter().rev() {
                if wave.iter().any(|kind| observed.made.contains(kind)) {
                    steps.push(Step::Unmake(wave));
                }
            }
            if observed.row {
                steps.push(Step::RemoveRow);
            }
        }
        Desired::Stopped => {
            end(observed, &mut steps);
            make(observed, &mut steps)?;
        }
        Desired::Running => match observed.vmm {
            Vmm::Watched => {}
            Vmm::Unwatched => steps.push(Step::Adopt),
            Vmm::None | Vmm::Gone => {
                end(observed, &mut steps);
                make(observed, &mut steps)?;
                steps.extend(Kind::PREPARE.iter().map(|wave| Step::Prepare(wave)));
                steps.extend([Step::Launch, Step::AwaitReady]);
            }
        },
    }
    Ok(steps)
}

fn end(observed: &Observed, steps: &mut Vec<Step>) {
    match observed.vmm {
        Vmm::None => {}
        // Who watches it notes its end and cleans up.
        Vmm::Watched => return steps.push(Step::EndVmm),
        Vmm::Unwatched => return steps.extend([Step::Adopt, Step::EndVmm]),
        Vmm::Gone => steps.push(Step::NoteGone),
    }
    if observed.vmm == Vmm::Gone || observed.run_left {
        steps.extend(Kind::PREPARE.iter().rev().map(|wave| Step::CleanUp(wave)));
    }
}

fn make(observed: &Observed, steps: &mut Vec<Step>) -> Result<(), Lost> {
    let new = !observed.row || observed.unfinished;
    if !observed.row {
        steps.push(Step::AddRow);
    }
    for wave in Kind::MAKE {
        let missing = wave.iter().find(|kind| !observed.made.contains(kind));
        match missing {
            None => {}
            Some(_) if new => steps.push(Step::Make(wave)),
            Some(kind) => return Err(Lost(*kind)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use Kind::{Directory, Disk, Keys};

    use super::*;

    fn whole() -> Observed {
        Observed {
            row: true,
            made: vec![Directory, Keys, Disk],
            ..Observed::default()
        }
    }

    fn names(steps: &[Step]) -> String {
        let words: Vec<String> = steps
            .iter()
            .map(|step| match step {
                Step::AddRow => "row".to_owned(),
                Step::Make(wave) => format!("make{}", wave.len()),
                Step::Prepare(wave) => format!("prepare{}", wave.len()),
                Step::Launch => "launch".to_owned(),
                Step::AwaitReady => "await".to_owned(),
                Step::Adopt => "adopt".to_owned(),
                Step::EndVmm => "end".to_owned(),
                Step::NoteGone => "gone".to_owned(),
                Step::CleanUp(wave) => format!("clean{}", wave.len()),
                Step::Unmake(wave) => format!("unmake{}", wave.len()),
                Step::RemoveRow => "forget".to_owned(),
            })
            .collect();
        words.join(" ")
    }

    #[test]
    fn the_table() {
        let running = |vmm| Observed {
            vmm,
            run_left: true,
            ..whole()
        };
        let half = Observed {
            row: true,
            unfinished: true,
            made: vec![Directory],
            ..Observed::default()
        };
        let rows = [
            (Desired::Stopped, Observed::default(), "row make1 make2"),
            (
                Desired::Running,
                Observed::default(),
                "row make1 make2 prepare2 prepare4 launch await",
            ),
            (Desired::Running, whole(), "prepare2 prepare4 launch await"),
            (Desired::Running, running(Vmm::Watched), ""),
            (Desired::Running, running(Vmm::Unwatched), "adopt"),
            (
                Desired::Running,
                running(Vmm::Gone),
                "gone clean4 clean2 prepare2 prepare4 launch await",
            ),
            (Desired::Stopped, running(Vmm::Watched), "end"),
            (Desired::Stopped, running(Vmm::Unwatched), "adopt end"),
            (Desired::Stopped, running(Vmm::Gone), "gone clean4 clean2"),
            (Desired::Stopped, running(Vmm::None), "clean4 clean2"),
            (Desired::Stopped, whole(), ""),
            (Desired::Absent, whole(), "unmake2 unmake1 forget"),
            (
                Desired::Absent,
                running(Vmm::Watched),
                "end unmake2 unmake1 forget",
            ),
            (Desired::Absent, half.clone(), "unmake1 forget"),
            (Desired::Stopped, half, "make2"),
            (Desired::Absent, Observed::default(), ""),
            (
                Desired::Absent,
                Observed {
                    made: vec![Disk],
                    ..Observed::default()
                },
                "unmake2",
            ),
        ];
        for (desired, observed, expected) in rows {
            let steps = plan(desired, &observed).unwrap();
            assert_eq!(names(&steps), expected, "{desired:?} from {observed:?}");
        }
    }

    #[test]
    fn lost_data_is_not_made_anew() {
        let lost = Observed {
            made: vec![Directory, Keys],
            ..whole()
        };
        assert_eq!(plan(Desired::Running, &lost), Err(Lost(Disk)));
        assert_eq!(plan(Desired::Stopped, &lost), Err(Lost(Disk)));
        assert!(plan(Desired::Absent, &lost).is_ok());
    }

    #[test]
    fn a_second_pass_does_nothing() {
        let gone = Observed::default();
        assert_eq!(plan(Desired::Absent, &gone), Ok(vec![]));
        assert_eq!(plan(Desired::Stopped, &whole()), Ok(vec![]));
        let up = Observed {
            vmm: Vmm::Watched,
            run_left: true,
            ..whole()
        };
        assert_eq!(plan(Desired::Running, &up), Ok(vec![]));
    }
}
