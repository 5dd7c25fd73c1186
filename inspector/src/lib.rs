//! What an image holds: in words, as JSON, as a core file. Never executes it.

pub mod cli;
mod core_file;
mod diff;
pub mod extract;
mod model;
mod names;
mod objects;
mod pager;
mod report;
mod sockets;
mod space;
mod words;

use anyhow::{Context, Result};
use ckpt_format::{Image, Task};
use ckpt_reader::ImageFile;
use ckpt_reader::core_notes::{View, core_notes};
use cli::Options;
use pager::Output;
use std::io::Write;
use std::path::Path;

fn open(path: &Path) -> Result<ImageFile> {
    ImageFile::open(path).with_context(|| format!("{}", path.display()))
}

/// Does what the options say; whether all is well.
///
/// # Errors
/// When the image cannot be read, or the output not be written.
pub fn run(options: &Options) -> Result<bool> {
    let raw = options.extract.is_some() || options.core.is_some();
    let mut out = Output::new(!options.no_pager && !raw);
    let Some(path) = options.image.as_deref().filter(|_| !options.schema) else {
        let schema = [schemars::schema_for!(model::Report), schemars::schema_for!(diff::Difference)];
        writeln!(out, "{}", serde_json::to_string_pretty(&schema)?)?;
        return Ok(true);
    };
    let file = open(path)?;
    let image = file.image()?;
    let good = if options.verify {
        verify(&file, &image, &mut out)?
    } else if let Some(old) = &options.diff {
        compare(old, (&file, &image), options.json, &mut out)?
    } else if let Some(core) = &options.core {
        write_core(&file, &image, options.task, core)?;
        true
    } else if let Some(range) = options.extract {
        extract::extract(
            &mut space::Space::new(&file, &image, task(&image, options.task)?.1)?,
            range,
            &mut out,
        )?;
        true
    } else if let Some(least) = options.strings {
        extract::strings(
            &mut space::Space::new(&file, &image, task(&image, options.task)?.1)?,
            least,
            &mut out,
        )?;
        true
    } else {
        let report = report::report(&image)?;
        if options.json {
            writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
        } else {
            let detail = words::Detail { vmas: options.vmas || options.all, all: options.all };
            words::print(&mut out, &report, detail)?;
        }
        true
    };
    out.flush()?;
    Ok(good)
}

fn verify(file: &ImageFile, image: &Image, out: &mut Output) -> Result<bool> {
    let mut intact = true;
    let good = file.verify(|damage| {
        intact = false;
        writeln!(out, "{damage}")
    })?;
    if intact {
        writeln!(out, "intact: {} extents, {} bytes", good.extents, image.header.image_size)?;
    }
    Ok(intact)
}

fn compare(old: &Path, (file, image): (&ImageFile, &Image), json: bool, out: &mut Output) -> Result<bool> {
    let old_file = open(old)?;
    let old = old_file.image()?;
    let changed = diff::reports(&report::report(&old)?, &report::report(image)?)?;
    let memory = diff::memory((&old_file, &old), (file, image))?;
    let difference = diff::Difference::new(changed, memory);
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(&difference)?)?;
    } else {
        difference.print(out)?;
    }
    Ok(difference.is_empty())
}

fn write_core(file: &ImageFile, image: &Image, pid: Option<i32>, to: &Path) -> Result<()> {
    let (index, task) = task(image, pid)?;
    let mut space = space::Space::new(file, image, task)?;
    let notes = core_notes(&View::from(image), index, image.header.command);
    let vdso = image.blob(space.mm.vdso_code)?;
    for line in core_file::write(&mut space, &notes, vdso, to)? {
        eprintln!("ckpt-info: not in the core file: {line}");
    }
    Ok(())
}

/// The task that is meant, and its index: by its id, else the root.
fn task<'a>(image: &Image<'a>, wanted: Option<i32>) -> Result<(u32, &'a Task)> {
    let index = match wanted {
        None => image.header.root_task,
        Some(pid) => {
            let index = image.tasks.iter().position(|t| t.pid == pid);
            index.with_context(|| format!("no task {pid} in this image"))? as u32
        }
    };
    Ok((index, Image::get(image.tasks, index, "task")?))
}
