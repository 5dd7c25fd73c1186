//! Builds the restorer stub, which is a crate of its own (no_std, own profile and link arguments), and
//! tells `src/stub.rs` where it is.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    // A stub that is built already, for packagers.
    println!("cargo::rerun-if-env-changed=CKPT_STUB");
    if let Some(ready) = std::env::var_os("CKPT_STUB") {
        let ready = PathBuf::from(ready);
        println!("cargo::rerun-if-changed={}", ready.display());
        println!("cargo::rustc-env=CKPT_STUB_ELF={}", ready.display());
        return;
    }
    let here = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it")).join("stub");
    let stub = here.join("../restorer-stub");
    for input in ["src", "Cargo.toml", "Cargo.lock", "build.rs", "discard.ld", ".cargo"] {
        rerun_if_changed(&stub.join(input));
    }
    rerun_if_changed(&here.join("format/src"));
    rerun_if_changed(&here.join("build.rs"));

    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // In the stub's folder, so that its .cargo/config.toml counts.
    command.current_dir(&stub).args(["build", "--release", "--target-dir"]).arg(&out);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        // What the outer cargo says about *its* package, profile and flags is wrong for the stub.
        let outer = [
            "CARGO_PKG_",
            "CARGO_CFG_",
            "CARGO_FEATURE_",
            "CARGO_MANIFEST_",
            "CARGO_PROFILE_",
            "CARGO_BUILD_",
        ];
        let exact = [
            "CARGO_ENCODED_RUSTFLAGS",
            "RUSTFLAGS",
            "CARGO_TARGET_DIR",
            "CARGO_MAKEFLAGS",
            "RUSTC_WRAPPER",
            "RUSTC_WORKSPACE_WRAPPER",
            "CLIPPY_ARGS",
            "TARGET",
            "HOST",
            "PROFILE",
            "OPT_LEVEL",
            "DEBUG",
            "OUT_DIR",
            "RUSTC",
            "RUSTDOC",
            "MAKEFLAGS",
            "NUM_JOBS",
        ];
        if outer.iter().any(|prefix| name.starts_with(prefix)) || exact.contains(&name.as_str()) {
            command.env_remove(&name);
        }
    }
    let status = command.status().unwrap_or_else(|e| panic!("cannot run cargo for the restorer stub: {e}"));
    assert!(status.success(), "building the restorer stub in {} failed: {status}", stub.display());

    let elf = ["release", "x86_64-unknown-linux-gnu/release", "x86_64-unknown-none/release"]
        .iter()
        .map(|dir| out.join(dir).join("restorer-stub"))
        .find(|p| p.is_file())
        .unwrap_or_else(|| panic!("no restorer-stub executable below {}", out.display()));
    println!("cargo::rustc-env=CKPT_STUB_ELF={}", elf.display());
}

fn rerun_if_changed(path: &Path) {
    if path.exists() {
        println!("cargo::rerun-if-changed={}", path.display());
    }
}
