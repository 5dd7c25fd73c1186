//! Signal handlers and signals pending for the whole process.

/// Handlers and the shared queue.
#[derive(Clone, Debug, Default)]
pub struct SignalFacts {
    /// By signal number, 1 first; 64 entries.
    pub actions: Vec<ckpt_format::SigAction>,
    /// Oldest first.
    pub pending: Vec<ckpt_format::PendingSignal>,
}
