//! The handler of images. Without the runtime of std, which would open closed standard streams and ignore
//! SIGPIPE: the image is to find everything as its caller has left it.
#![no_main]
#![allow(unsafe_code)]

use ckpt_binfmt::{handler, sys};
use std::ffi::{c_char, c_int};

/// # Safety
/// Called once, by the C library, with the arguments of the program.
// SAFETY: the only `main` of this program.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    // SAFETY: as the caller says; nothing has run before.
    let (args, aux) = unsafe { (sys::arguments(argc, argv), sys::auxv()) };
    handler::run(&args, aux)
}
