//! How a long operation reports.

/// Where an operation says how far it is. Called from several threads, often: an
/// implementation must be cheap and must not block.
pub trait Progress: Send + Sync {
    /// A new stage begins, as "Downloading packages". The fraction starts again.
    fn stage(&self, stage: &str);
    /// How much of the current stage is done, 0 to 1.
    fn fraction(&self, done: f64);
    /// A detail of the current stage, or a warning that the caller should show.
    fn message(&self, text: &str);
    /// Where one of several things is that go on at once, as the layers of an image. Parts are
    /// shown in the order in which they were first named.
    fn part(&self, _: &Part<'_>) {}
}

/// One of several things that go on at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<'a> {
    /// What people call it: the short digest of a layer.
    pub name: &'a str,
    pub state: PartState,
    /// Bytes done in this state, and bytes in all; 0 in all when it is not known.
    pub done: u64,
    pub total: u64,
}

/// What happens to a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartState {
    Waiting,
    Fetching,
    /// It was here already.
    Cached,
    /// It is fetched and verified, and waits for those before it.
    Fetched,
    Unpacking,
    Done,
}

impl PartState {
    /// The word on the bus.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Fetching => "fetching",
            Self::Cached => "cached",
            Self::Fetched => "fetched",
            Self::Unpacking => "unpacking",
            Self::Done => "done",
        }
    }
}

/// Reports nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn stage(&self, _: &str) {}
    fn fraction(&self, _: f64) {}
    fn message(&self, _: &str) {}
}
