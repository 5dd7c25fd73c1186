//! Checking page data against its checksums.

use crate::load::ImageFile;
use anyhow::{Result, bail};
use ckpt_format::content::MAX_EXTENT;
use ckpt_format::{Image, checksum};
use std::os::unix::fs::FileExt;

/// One line for each damaged extent. Metadata was verified when the image was opened.
pub fn contents(file: &ImageFile, image: &Image) -> Result<Vec<String>> {
    let mut damage = Vec::new();
    let mut buf = vec![0; MAX_EXTENT as usize];
    for (index, extent) in image.extents.iter().enumerate() {
        if extent.len > MAX_EXTENT {
            bail!("extent {index} is longer than the format allows: {} bytes", extent.len);
        }
        let bytes = &mut buf[..extent.len as usize];
        if let Err(e) = file.file.read_exact_at(bytes, extent.file_offset) {
            damage.push(format!(
                "extent {index}: cannot read {} bytes at {:#x}: {e}",
                extent.len, extent.file_offset
            ));
        } else if checksum(bytes) != extent.checksum {
            damage.push(format!(
                "extent {index}: damaged between {:#x} and {:#x} of the image (address or offset {:#x})",
                extent.file_offset,
                extent.file_offset + extent.len,
                extent.addr
            ));
        }
    }
    Ok(damage)
}
