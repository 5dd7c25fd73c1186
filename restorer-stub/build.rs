//! Link arguments of a static position independent executable without any library: all its
//! relocations are R_X86_64_RELATIVE, applied when an image is written.

fn main() {
    for arg in [
        "-static-pie",
        "-nostartfiles",
        "-nostdlib",
        "-Wl,--no-dynamic-linker",
        "-Wl,--build-id=none",
        "-Wl,-z,noexecstack",
        "-Wl,-z,norelro",
        // Two segments, r-x and rw-: a page of the hole each instead of four.
        "-Wl,-z,noseparate-code",
        "-Wl,-z,text",
        "-Wl,--hash-style=sysv",
        "-Wl,--gc-sections",
    ] {
        println!("cargo:rustc-link-arg-bins={arg}");
    }
    let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    println!("cargo:rustc-link-arg-bins=-Wl,--no-eh-frame-hdr");
    println!("cargo:rustc-link-arg-bins=-Wl,-T,{folder}/discard.ld");
    println!("cargo:rerun-if-changed=discard.ld");
    println!("cargo:rerun-if-changed=build.rs");
}
