//! The shared library's name, and ckpt-dump inside of the libraries, if that is wanted.

use std::path::PathBuf;

fn main() {
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libckpt.so.0");
    // A program ckpt-dump that becomes part of the library, which then needs no other.
    println!("cargo::rerun-if-env-changed=CKPT_EMBED");
    println!("cargo::rustc-check-cfg=cfg(ckpt_embed)");
    println!("cargo::rerun-if-changed=build.rs");
    if let Some(program) = std::env::var_os("CKPT_EMBED").filter(|p| !p.is_empty()) {
        let program = PathBuf::from(program);
        assert!(program.is_file(), "CKPT_EMBED={}: there is no such file", program.display());
        println!("cargo::rerun-if-changed={}", program.display());
        println!("cargo::rustc-env=CKPT_EMBED_PROGRAM={}", program.display());
        println!("cargo::rustc-cfg=ckpt_embed");
    }
}
