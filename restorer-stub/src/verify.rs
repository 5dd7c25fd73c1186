//! `--verify`: checks all checksums of the image, and restores nothing. Those of the metadata have been
//! checked when it was opened.

use crate::arch;
use crate::ctx::Ctx;
use crate::info::Size;
use crate::mem::blocks::{self, Blocks};
use crate::report::{Error, On, Result, fail, print, say};
use crate::sys::{Fd, fd, process};
use ckpt_format::content::MAX_EXTENT;
use ckpt_format::{EXIT_RESTORE_FAILED, Extent, Image, Range};

/// What has been read.
struct Check<'a> {
    ctx: &'a Ctx,
    buffer: &'static mut [u8],
    blocks: Blocks<'static>,
    pieces: u64,
    bytes: u64,
    damaged: u64,
}

pub fn run(ctx: &Ctx) -> ! {
    match all(ctx) {
        Ok(c) if c.damaged == 0 => {
            let what = format_args!("{} of contents in {} pieces: undamaged\n", Size(c.bytes), c.pieces);
            print(Fd(1), what);
            process::exit_group(0)
        }
        Ok(c) => {
            say(format_args!("{} of {} pieces are damaged: copy or dump it again", c.damaged, c.pieces));
            process::exit_group(EXIT_RESTORE_FAILED)
        }
        Err(e) => fail(e),
    }
}

fn all(ctx: &Ctx) -> Result<Check<'_>> {
    let buffer = ctx.work.slice(MAX_EXTENT as usize)?;
    let blocks = Blocks::new(ctx.work.slice(blocks::ROOM)?);
    let mut check = Check { ctx, buffer, blocks, pieces: 0, bytes: 0, damaged: 0 };
    for (index, mm) in ctx.image.mms.iter().enumerate() {
        let pid = ctx.image.tasks.iter().find(|t| t.mm as usize == index).map_or(0, |t| t.pid);
        for vma in Image::slice(ctx.image.vmas, mm.vmas, "VMAs")? {
            check.range(vma.dirty, "process", On::Pid(pid))?;
            check.range(vma.embedded, "process", On::Pid(pid))?;
        }
    }
    for file in ctx.image.files {
        check.range(file.contents, "the file", On::Bytes(ctx.image.blob(file.path)?))?;
    }
    Ok(check)
}

impl Check<'_> {
    /// Reads the extents of something, and tells of those that are not what they were.
    fn range(&mut self, range: Range, whose: &str, of: On) -> Result<()> {
        for e in Image::slice(self.ctx.image.extents, range, "extents")? {
            self.pieces += 1;
            self.bytes += e.len;
            let why = match self.one(e) {
                Ok(true) => continue,
                Ok(false) => Error::new("wrong checksum"),
                Err(error) => error,
            };
            self.damaged += 1;
            let what = On::Range(e.addr, e.addr.saturating_add(e.len));
            say(format_args!("damaged:{what} of {whose}{of}, at {} of the image: {why}", e.file_offset));
        }
        Ok(())
    }

    fn one(&mut self, e: &Extent) -> Result<bool> {
        if e.is_compressed() {
            let bytes = self.blocks.bytes(self.ctx.image_fd, e);
            let bytes = bytes.map_err(|_| Error::new("cannot be read and decompressed"))?;
            return Ok(arch::checksum(bytes) == e.checksum);
        }
        let len = usize::try_from(e.len).unwrap_or(usize::MAX);
        let bytes = self.buffer.get_mut(..len).ok_or(Error::new("it is too long"))?;
        fd::pread_exact(self.ctx.image_fd, bytes, e.file_offset).map_err(Error::os("cannot read it"))?;
        Ok(arch::checksum(bytes) == e.checksum)
    }
}
