//! The functions of ckpt.h.

use crate::{Checkpoint, Error, Id, Outcome};
use std::cell::RefCell;
use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

thread_local! {
    static MESSAGE: RefCell<CString> = RefCell::new(CString::default());
}

/// A pointer that C gave us for its own function.
#[derive(Clone, Copy)]
struct Data(*mut c_void);

// SAFETY: never dereferenced here; ckpt.h says that hooks run in any thread.
unsafe impl Send for Data {}
// SAFETY: as above.
unsafe impl Sync for Data {}

impl Data {
    fn get(self) -> *mut c_void {
        self.0
    }
}

fn keep(message: &str) {
    let message = CString::new(message.replace('\0', "?")).unwrap_or_default();
    MESSAGE.with(|m| m.replace(message));
}

/// Keeps the message; gives the number.
fn failed(error: &Error) -> c_int {
    keep(&error.to_string());
    match error {
        Error::Refused(_) => -2,
        _ => -1,
    }
}

/// ckpt.h
///
/// # Safety
/// `path` is NULL or a string; `options` is NULL or a list of strings that ends with NULL; `id` is NULL or may be
/// written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ckpt_checkpoint(
    path: *const c_char,
    options: *const *const c_char,
    id: *mut u64,
) -> c_int {
    // SAFETY: the caller's, as ckpt.h says.
    let (path, options) = unsafe { (text(path), list(options)) };
    let with = options.into_iter().fold(Checkpoint::new(), Checkpoint::option);
    let result = match path {
        Some(path) => with.save(Path::new(path)),
        None => with.save_in_memory(),
    };
    match result {
        Ok(outcome) => {
            if !id.is_null() {
                // SAFETY: the caller's.
                unsafe { id.write(outcome.id().get()) };
            }
            c_int::from(matches!(outcome, Outcome::Restored { .. }))
        }
        Err(error) => failed(&error),
    }
}

/// ckpt.h
#[unsafe(no_mangle)]
pub extern "C" fn ckpt_revert(id: u64) -> c_int {
    match crate::revert(Id(id)) {
        Ok(never) => match never {},
        Err(error) => failed(&error),
    }
}

/// ckpt.h
#[unsafe(no_mangle)]
pub extern "C" fn ckpt_forget(id: u64) -> c_int {
    if crate::forget(Id(id)) { 0 } else { failed(&Error::Unknown(Id(id))) }
}

/// ckpt.h
///
/// # Safety
/// `ids` has room for `room` numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ckpt_list(ids: *mut u64, room: usize) -> usize {
    let all = crate::checkpoints();
    for (i, id) in all.iter().take(room).enumerate() {
        // SAFETY: the caller's.
        unsafe { ids.add(i).write(id.get()) };
    }
    all.len()
}

/// ckpt.h
#[unsafe(no_mangle)]
pub extern "C" fn ckpt_before(hook: extern "C" fn(*mut c_void), data: *mut c_void) {
    let data = Data(data);
    crate::before(move || hook(data.get()));
}

/// ckpt.h
#[unsafe(no_mangle)]
pub extern "C" fn ckpt_after(hook: extern "C" fn(u64, *mut c_void), data: *mut c_void) {
    let data = Data(data);
    crate::after(move |result| hook(result.as_ref().map_or(0, |o| o.id().get()), data.get()));
}

/// ckpt.h
#[unsafe(no_mangle)]
pub extern "C" fn ckpt_on_restored(hook: extern "C" fn(u64, *mut c_void), data: *mut c_void) {
    let data = Data(data);
    crate::on_restored(move |id| hook(id.get(), data.get()));
}

/// ckpt.h
#[unsafe(no_mangle)]
pub extern "C" fn ckpt_error() -> *const c_char {
    MESSAGE.with(|m| m.borrow().as_ptr())
}

/// # Safety
/// NULL or a string that stays for the call.
unsafe fn text<'a>(text: *const c_char) -> Option<&'a OsStr> {
    if text.is_null() {
        return None;
    }
    // SAFETY: the caller's.
    Some(OsStr::from_bytes(unsafe { CStr::from_ptr(text) }.to_bytes()))
}

/// # Safety
/// NULL or a list of strings that ends with NULL.
unsafe fn list<'a>(list: *const *const c_char) -> Vec<&'a OsStr> {
    let mut out = Vec::new();
    let mut next = list;
    // SAFETY: the caller's: every entry up to the NULL may be read.
    unsafe {
        while !next.is_null()
            && let Some(entry) = text(next.read())
        {
            out.push(entry);
            next = next.add(1);
        }
    }
    out
}
