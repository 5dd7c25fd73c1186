//! Finding and building what is tested: our programs through cargo, victims through cc.

use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};
use std::time::SystemTime;

/// How a victim is linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Variant {
    /// The system's libc, dynamic.
    #[default]
    Dynamic,
    /// The system's libc, static, at fixed addresses.
    Static,
    /// The system's libc, static-pie.
    StaticPie,
    /// musl-gcc, static.
    Musl,
}

impl Variant {
    fn suffix(self) -> &'static str {
        match self {
            Self::Dynamic => "",
            Self::Static => "-static",
            Self::StaticPie => "-static-pie",
            Self::Musl => "-musl",
        }
    }

    fn compiler(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Dynamic => ("cc", &[]),
            Self::Static => ("cc", &["-static", "-no-pie"]),
            Self::StaticPie => ("cc", &["-static-pie"]),
            Self::Musl => ("musl-gcc", &["-static"]),
        }
    }
}

/// Directory of the profile that the suite itself was built with (`target/debug`).
fn profile_dir() -> anyhow::Result<&'static Path> {
    static DIR: OnceLock<Option<PathBuf>> = OnceLock::new();
    DIR.get_or_init(|| Some(std::env::current_exe().ok()?.parent()?.parent()?.to_owned()))
        .as_deref()
        .context("cannot tell the target directory from /proc/self/exe")
}

/// Path of one of the workspace's programs (`ckpt-dump`, `ckpt-info`, `ckpt-binfmt`, `ckpt-restore`), built once per run.
pub fn tool(name: &str) -> anyhow::Result<PathBuf> {
    if let Some(dir) = std::env::var_os("CKPT_TEST_BIN_DIR") {
        return Ok(PathBuf::from(dir).join(name));
    }
    static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
    if let Err(why) = BUILT.get_or_init(|| build_tools().map_err(|e| format!("{e:#}"))) {
        bail!("{why}");
    }
    Ok(profile_dir()?.join(name))
}

fn build_tools() -> anyhow::Result<()> {
    let dir = profile_dir()?;
    let profile = match dir.file_name().and_then(|n| n.to_str()) {
        Some("debug") | None => "dev",
        Some(other) => other,
    };
    let target = dir.parent().context("target directory")?;
    let output = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--profile", profile, "-p", "ckpt-dump", "-p", "ckpt-info", "-p", "ckpt"])
        .args(["-p", "ckpt-binfmt"])
        .args(["--bins", "--lib", "--example", "self-checkpoint"])
        .arg("--target-dir")
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("cannot build the programs under test:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Compiles `tests/victims/NAME.c` (unless that was done since it changed) and gives its path.
pub fn victim(name: &str, variant: Variant) -> anyhow::Result<PathBuf> {
    static LOCK: Mutex<()> = Mutex::new(());
    let _one_at_a_time = LOCK.lock();
    let source_dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("victims");
    let source = source_dir.join(format!("{name}.c"));
    let dir = profile_dir()?.join("victims");
    std::fs::create_dir_all(&dir)?;
    let exe = dir.join(format!("{name}{}", variant.suffix()));
    let headers: Vec<PathBuf> = std::fs::read_dir(&source_dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "h"))
        .collect();
    if is_newer(&exe, &source, &headers) {
        return Ok(exe);
    }
    let (cc, flags) = variant.compiler();
    if !crate::have(cc) {
        crate::skip!("{cc} is not installed (scripts/setup installs it)");
    }
    let partial = exe.with_extension(format!("{}", std::process::id()));
    let output = Command::new(cc)
        .args([
            "-std=gnu11",
            "-O1",
            "-g",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-Wno-format-truncation",
            "-pthread",
            "-rdynamic",
            "-o",
        ])
        .arg(&partial)
        .args(flags)
        .arg(&source)
        .args(["-lm", "-lrt"])
        .output()
        .with_context(|| format!("cannot run {cc}"))?;
    if !output.status.success() {
        bail!("{cc} cannot compile {}:\n{}", source.display(), String::from_utf8_lossy(&output.stderr));
    }
    std::fs::rename(&partial, &exe)?;
    Ok(exe)
}

fn is_newer(file: &Path, source: &Path, headers: &[PathBuf]) -> bool {
    let time = |p: &Path| p.metadata().and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    file.exists() && time(file) > time(source) && headers.iter().all(|other| time(file) > time(other))
}
