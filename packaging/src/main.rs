//! `ckpt-package DIR`: writes man pages and shell completions below DIR, where packages put them:
//! `share/man/man1`, `share/bash-completion/completions`, `share/zsh/site-functions`,
//! `share/fish/vendor_completions.d`.

use anyhow::{Context, Result};
use clap::{Command, CommandFactory, Parser};
use clap_complete::Shell;
use std::path::{Path, PathBuf};

/// Writes man pages and shell completions of the ckpt programs
#[derive(Parser)]
#[command(version)]
struct Options {
    /// Where share/ is made, as /usr or ~/.local
    dir: PathBuf,
}

fn programs() -> Vec<Command> {
    vec![
        ckpt_dump::cli::Cli::command(),
        ckpt_info::cli::Options::command(),
        ckpt_binfmt::cli::BinfmtOptions::command(),
        ckpt_binfmt::cli::RestoreOptions::command(),
    ]
}

fn main() -> Result<()> {
    write(&Options::parse().dir)
}

fn write(dir: &Path) -> Result<()> {
    let share = dir.join("share");
    let man = make(&share.join("man/man1"))?;
    for mut program in programs() {
        let name = program.get_name().to_owned();
        let mut page = Vec::new();
        let title = clap_mangen::Man::new(program.clone()).title(name.to_uppercase()).source("ckpt");
        title.manual("User Commands").render(&mut page)?;
        save(&man.join(format!("{name}.1")), &page)?;
        for (shell, place) in [
            (Shell::Bash, "bash-completion/completions"),
            (Shell::Zsh, "zsh/site-functions"),
            (Shell::Fish, "fish/vendor_completions.d"),
        ] {
            let dir = make(&share.join(place))?;
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut program, &name, &mut script);
            let file = match shell {
                Shell::Bash => name.clone(),
                Shell::Zsh => format!("_{name}"),
                _ => format!("{name}.fish"),
            };
            save(&dir.join(file), &script)?;
        }
    }
    Ok(())
}

fn make(dir: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir.into())
}

fn save(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_is_in_the_man_page_and_the_completions() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path()).unwrap();
        let read = |path: String| std::fs::read_to_string(dir.path().join("share").join(path)).unwrap();
        for program in programs() {
            let name = program.get_name();
            let man = read(format!("man/man1/{name}.1"));
            let texts = [
                man.replace("\\-", "-"),
                read(format!("bash-completion/completions/{name}")),
                read(format!("zsh/site-functions/_{name}")),
            ];
            for long in program.get_arguments().filter(|a| !a.is_hide_set()).filter_map(|a| a.get_long()) {
                assert!(texts.iter().all(|t| t.contains(&format!("--{long}"))), "{name}: --{long}");
            }
            assert!(man.contains("EXTRA") || man.contains("Exit status"), "{name}: exit statuses");
        }
    }
}
