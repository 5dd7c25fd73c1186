//! A walk through a maze that goes back to where it last had a choice: it keeps checkpoints of itself in memory, and
//! does not have to know how to undo a step. And it saves itself to a file: job IMAGE NOTES

use ckpt::Outcome;
use std::error::Error;

const MAZE: [&str; 5] = ["######", "#S   #", "# ####", "#   G#", "######"];

/// What is to survive a return has to be outside of the program.
fn note(path: &str, line: &str) -> std::io::Result<()> {
    let old = std::fs::read_to_string(path).unwrap_or_default();
    std::fs::write(path, format!("{old}{line}\n"))
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, image, notes] = &args[..] else { return Err("usage: job IMAGE NOTES".into()) };
    let maze: Vec<&[u8]> = MAZE.iter().map(|line| line.as_bytes()).collect();
    ckpt::on_restored(|id| println!("Rust: back at checkpoint {id}"));

    let (mut at, mut path) = ((1usize, 1usize), vec![(1, 1)]);
    while maze[at.0][at.1] != b'G' {
        // Each way to go on is tried in turn; which have been, the file knows.
        let choice = ckpt::checkpoint_in_memory()?.id();
        let tried = std::fs::read_to_string(notes).unwrap_or_default();
        let (y, x) = at;
        let next = [(y - 1, x), (y, x + 1), (y + 1, x), (y, x - 1)].into_iter().find(|next| {
            let free = maze[next.0][next.1] != b'#' && !path.contains(next);
            free && !tried.contains(&format!("{at:?} to {next:?}\n"))
        });
        match next {
            Some(next) => {
                note(notes, &format!("{at:?} to {next:?}"))?;
                at = next;
                path.push(next);
            }
            // A dead end: as if it had never been gone into.
            None => {
                let before = ckpt::checkpoints().into_iter().rev().find(|id| *id < choice).ok_or("no way")?;
                ckpt::forget(choice);
                ckpt::revert(before)?;
            }
        }
    }
    match ckpt::checkpoint(image)? {
        Outcome::Saved { id } => println!("Rust: saved at the goal as checkpoint {id}"),
        Outcome::Restored { .. } => println!("Rust: restored at the goal"),
    }
    println!("Rust: {} steps: {path:?}", path.len() - 1);
    Ok(())
}
