//! What the program does around its checkpoints.

use crate::sys::lock;
use crate::{Error, Id, Outcome};
use std::sync::{Arc, Mutex, PoisonError};

/// What came of a checkpoint, for hooks.
pub type Hook = dyn Fn(&Result<Outcome, Error>) + Send + Sync;

#[derive(Default)]
struct Hooks {
    before: Vec<Arc<dyn Fn() + Send + Sync>>,
    after: Vec<Arc<Hook>>,
    restored: Vec<Arc<dyn Fn(Id) + Send + Sync>>,
}

static HOOKS: Mutex<Hooks> =
    Mutex::new(Hooks { before: Vec::new(), after: Vec::new(), restored: Vec::new() });

fn hooks<T>(use_them: impl FnOnce(&mut Hooks) -> T) -> T {
    let _short = lock::SHORT.take();
    use_them(&mut HOOKS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Calls `hook` in the calling thread before each checkpoint, the last added first (as pthread_atfork(3) does):
/// close there what cannot be saved, write what is buffered.
pub fn before(hook: impl Fn() + Send + Sync + 'static) {
    let hook: Arc<dyn Fn() + Send + Sync> = Arc::new(hook);
    hooks(|h| h.before.push(hook));
}

/// Calls `hook` in the calling thread after each checkpoint, also one that failed, in the program that runs on:
/// the first added first. In a restored run, hooks of [`on_restored`] are called instead.
pub fn after(hook: impl Fn(&Result<Outcome, Error>) + Send + Sync + 'static) {
    let hook: Arc<Hook> = Arc::new(hook);
    hooks(|h| h.after.push(hook));
}

/// Calls `hook` in each restored run, in the thread that made the checkpoint, before that returns
/// [`Outcome::Restored`]: the first added first. Other threads run already.
pub fn on_restored(hook: impl Fn(Id) + Send + Sync + 'static) {
    let hook: Arc<dyn Fn(Id) + Send + Sync> = Arc::new(hook);
    hooks(|h| h.restored.push(hook));
}

// On copies of the lists, so that hooks may add others.

pub(crate) fn call_before() {
    hooks(|h| h.before.clone()).iter().rev().for_each(|hook| hook());
}

pub(crate) fn call_after(result: &Result<Outcome, Error>) {
    match result {
        Ok(Outcome::Restored { id }) => hooks(|h| h.restored.clone()).iter().for_each(|hook| hook(*id)),
        result => hooks(|h| h.after.clone()).iter().for_each(|hook| hook(result)),
    }
}
