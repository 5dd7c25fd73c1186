//! Pages that are in the image already, whoever's they are: found by their hash, and compared byte by byte
//! with the memory or file that they were read from.
//!
//! Only runs of [`SHORTEST`] pages count. Each costs a read of its own at the restore (and the decompression
//! of a block), which single pages would not be worth.

use ckpt_format::PAGE_SIZE;
use std::ops::Range;

const PAGE: usize = PAGE_SIZE as usize;
/// Pages of the shortest run.
pub const SHORTEST: usize = 16;
/// Most slots: 12 MiB, whatever the size of the target; enough for 3 GiB of different pages. Further pages
/// are looked up, but not remembered.
const MOST_SLOTS: usize = 1 << 20;
/// Slots that are looked at for one page.
const PROBES: usize = 16;

/// Where the bytes at a position of the image came from.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub position: u64,
    pub len: u64,
    /// The planned extent, and how far into it.
    pub extent: usize,
    pub skip: u64,
}

/// What has been stored. All of it was read while nothing could change.
#[derive(Debug, Default)]
pub struct Dedup {
    /// 0: free.
    hashes: Vec<u64>,
    /// Positions, in pages.
    pages: Vec<u32>,
    used: usize,
    /// Ascending.
    places: Vec<Place>,
}

/// Never 0.
pub fn hashes(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks::<PAGE>().0.iter().map(|page| ckpt_format::checksum(page).max(1)).collect()
}

impl Dedup {
    /// For so many bytes of contents.
    pub fn new(bytes: u64) -> Self {
        let slots = (bytes / PAGE_SIZE * 2).clamp(64, MOST_SLOTS as u64).next_power_of_two() as usize;
        Self { hashes: vec![0; slots], pages: vec![0; slots], ..Self::default() }
    }

    /// What was stored until now may be something else by now where it came from.
    pub fn forget(&mut self) {
        self.hashes.fill(0);
        self.places.clear();
        self.used = 0;
    }

    fn slots(&self, hash: u64) -> impl Iterator<Item = usize> {
        let mask = self.hashes.len() - 1;
        (0..PROBES).map(move |i| (hash as usize).wrapping_add(i) & mask)
    }

    fn find(&self, hash: u64) -> Option<u64> {
        let slot = self.slots(hash).take_while(|&i| self.hashes[i] != 0).find(|&i| self.hashes[i] == hash)?;
        Some(u64::from(self.pages[slot]) * PAGE_SIZE)
    }

    /// Remembers pages that are stored one after the other.
    pub fn add(&mut self, place: Place, hashes: &[u64]) {
        if hashes.len() < SHORTEST || !place.position.is_multiple_of(PAGE_SIZE) {
            return;
        }
        self.places.push(place);
        for (i, &hash) in hashes.iter().enumerate() {
            let Ok(page) = u32::try_from(place.position / PAGE_SIZE + i as u64) else { return };
            if self.used * 4 > self.hashes.len() * 3 {
                return;
            }
            let free = self.slots(hash).find(|&i| self.hashes[i] == 0 || self.hashes[i] == hash);
            if let Some(slot) = free.filter(|&i| self.hashes[i] == 0) {
                (self.hashes[slot], self.pages[slot]) = (hash, page);
                self.used += 1;
            }
        }
    }

    /// Runs of pages whose hashes are those of pages that lie one after the other in the image: which of these,
    /// and the position.
    pub fn candidates(&self, hashes: &[u64]) -> Vec<(Range<usize>, u64)> {
        let mut found: Vec<(Range<usize>, u64)> = Vec::new();
        for (i, &hash) in hashes.iter().enumerate() {
            let Some(position) = self.find(hash) else { continue };
            match found.last_mut() {
                Some((run, start)) if run.end == i && *start + (run.len() * PAGE) as u64 == position => {
                    run.end += 1;
                }
                _ => found.push((i..i + 1, position)),
            }
        }
        found.retain(|(run, _)| run.len() >= SHORTEST);
        found
    }

    /// Where `len` bytes at a position came from, in pieces; `None` if that is not known of all.
    pub fn places(&self, mut position: u64, mut len: u64) -> Option<Vec<Place>> {
        let mut index = self.places.partition_point(|p| p.position <= position).checked_sub(1)?;
        let mut out = Vec::new();
        while len > 0 {
            let p = self.places.get(index)?;
            let skip = position.checked_sub(p.position).filter(|skip| *skip < p.len)?;
            let part = (p.len - skip).min(len);
            out.push(Place { position, len: part, skip: p.skip + skip, ..*p });
            (position, len, index) = (position + part, len - part, index + 1);
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(seeds: Range<u64>) -> Vec<u64> {
        seeds.map(|s| ckpt_format::checksum(&s.to_le_bytes())).collect()
    }

    #[test]
    fn long_runs_are_found_at_other_offsets() {
        let mut d = Dedup::new(1 << 20);
        let place = Place { position: 0x10_0000, len: 0x4_0000, extent: 3, skip: 0x1000 };
        d.add(place, &pages(0..64));
        d.add(Place { position: 0x14_0000, extent: 4, skip: 0, ..place }, &pages(64..128));
        let mut asked = pages(500..505);
        asked.extend(pages(50..90));
        asked.extend(pages(3..10));
        assert_eq!(d.candidates(&asked), [(5..45, 0x10_0000 + 50 * 4096)]);
        let from = d.places(0x10_0000 + 50 * 4096, 40 * 4096).unwrap();
        let brief: Vec<_> = from.iter().map(|p| (p.extent, p.skip, p.len)).collect();
        assert_eq!(brief, [(3, 0x1000 + 50 * 4096, 14 * 4096), (4, 0, 26 * 4096)]);
        assert!(d.places(0x10_0000, 0x8_1000).is_none());
        d.forget();
        assert!(d.candidates(&asked).is_empty() && d.places(0x10_0000, 4096).is_none());
    }

    #[test]
    fn the_table_is_bounded() {
        let mut d = Dedup::new(1 << 40);
        assert_eq!(d.hashes.len(), MOST_SLOTS);
        let mut small = Dedup::new(4096);
        for i in 0..100u64 {
            let place = Place { position: i * 0x4_0000, len: 0x4_0000, extent: 0, skip: 0 };
            small.add(place, &pages(i * 64..(i + 1) * 64));
        }
        assert!(small.used <= 64);
        d.add(Place { position: 1 << 60, len: 0x4_0000, extent: 0, skip: 0 }, &pages(0..64));
        assert!(d.candidates(&pages(0..64)).is_empty());
    }
}
