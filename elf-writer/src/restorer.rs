//! A restorer for an image that exists: the built-in stub with the image's metadata, as a small executable
//! that reads the contents from a descriptor which it is given.
//!
//! It has no `EI_PAD` magic, so that a registered handler is not asked again for it, and no segments of the
//! program's memory.

use crate::elf::{self, PF_R, PF_W, PT_GNU_STACK, Segment};
use crate::layout::{HEADER_LEN, Needs, Places};
use crate::stub::{Stub, as_bytes};
use crate::write::own_segments;
use crate::{WriteError, hole};
use ckpt_format::{Header, Image, Meta, PAGE_SIZE};
use zerocopy::IntoBytes;

/// Offset of the header record in the metadata region.
const HEADER_AT: usize = Meta::FIRST_NOTE + Meta::NOTE_HEADER;

/// The executable. `region` is the metadata region that `image` was parsed from, `fd` the number at which the
/// image will be open, `name` its path.
///
/// # Errors
/// When its address space has no room for this stub.
pub fn restorer(
    image: &Image<'_>,
    region: &[u8],
    stub: &Stub,
    fd: i32,
    name: &[u8],
) -> Result<Vec<u8>, WriteError> {
    let meta_len = tables_end(image, region);
    let mapped_len = meta_len + name.len() as u64;
    let needs = Needs::new(image.tasks, image.threads, image.files);
    let need = needs.hole_len(stub.len(), mapped_len);
    let (hole, hole_len) = match (image.header.hole_addr, image.header.hole_len) {
        (addr, len) if len >= need && addr.is_multiple_of(PAGE_SIZE) => (addr, len),
        // This stub needs more than the dumper left.
        _ => (another_hole(image, need)?, need),
    };
    let places = Places::new(hole, stub.len(), mapped_len, needs);
    let mut config = places.config(stub, hole_len, meta_len, first_free_fd(image));
    config.image_fd = fd as u64;
    (config.name_addr, config.name_len) = (places.meta + meta_len, name.len() as u64);

    let meta_offset = HEADER_LEN + stub.len();
    let mut segments = own_segments(stub, &places, meta_offset, mapped_len);
    segments.push(Segment { kind: PT_GNU_STACK, flags: PF_R | PF_W, align: 16, ..Default::default() });
    let mut out = elf::header([0; 7], stub.entry(hole), &segments, 0, 0);
    out.resize(HEADER_LEN as usize, 0);
    out.extend_from_slice(&stub.relocated(hole, &config));
    let meta_at = out.len();
    out.extend_from_slice(&region[..meta_len as usize]);
    put_header(
        &mut out[meta_at..],
        image,
        Header { meta_len, meta_addr: places.meta, hole_addr: hole, hole_len, ..*image.header },
    );
    out.extend_from_slice(name);
    Ok(out)
}

/// Where our notes end; the standard ones behind them are for debuggers.
fn tables_end(image: &Image<'_>, region: &[u8]) -> u64 {
    let dir = image.meta.directory();
    let header = (HEADER_AT + size_of::<Header>() + dir.as_bytes().len()) as u64;
    // The directory was checked: nothing of it is outside of the region.
    let end = dir.iter().map(|e| e.offset.saturating_add(e.len)).fold(header, u64::max);
    end.next_multiple_of(8).min(region.len() as u64)
}

fn another_hole(image: &Image<'_>, need: u64) -> Result<u64, WriteError> {
    let kernels: Vec<_> = image
        .mms
        .iter()
        .flat_map(|m| {
            [
                m.vdso_addr..m.vdso_addr.saturating_add(m.vdso_len),
                m.vvar_addr..m.vvar_addr.saturating_add(m.vvar_len),
            ]
        })
        .collect();
    hole::find(image.vmas, image.mms, &kernels, need).ok_or_else(|| {
        WriteError::Plan(format!(
            "no gap of {need} bytes is left in the program's address space for the restorer"
        ))
    })
}

/// Above every saved descriptor.
pub(crate) fn first_free_fd_of(fds: &[ckpt_format::FdEntry]) -> u64 {
    fds.iter().map(|f| i64::from(f.fd) + 1).max().unwrap_or(0).max(3) as u64
}

fn first_free_fd(image: &Image<'_>) -> u64 {
    first_free_fd_of(image.fds)
}

fn put_header(region: &mut [u8], image: &Image<'_>, mut header: Header) {
    header.checksum = Meta::header_checksum(&header, image.meta.directory().as_bytes());
    region[HEADER_AT..HEADER_AT + size_of::<Header>()].copy_from_slice(as_bytes(&header));
}
