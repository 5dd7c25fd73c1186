//! The stub: what an image runs first.
#![no_std]
#![no_main]

mod arch;

use ckpt_format::StubConfig;

/// Where everything of this image is: patched by the writer, which finds it by its symbol. Mutable
/// so that it lies in writable data and the compiler may not fold its zeros.
#[unsafe(no_mangle)]
#[used]
#[allow(unsafe_code)]
pub static mut CKPT_STUB_CONFIG: StubConfig = StubConfig {
    meta_addr: 1,
    meta_len: 0,
    work_addr: 0,
    work_len: 0,
    parking_addr: 0,
    parking_len: 0,
    hole_addr: 0,
    hole_len: 0,
    stub_addr: 0,
    stub_len: 0,
    first_free_fd: 0,
    reserved: 0,
};

/// Called by the entry assembly with the kernel's stack pointer.
extern "C" fn entry(_sp: usize) -> ! {
    loop {}
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
