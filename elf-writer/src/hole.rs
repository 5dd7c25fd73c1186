//! Where the stub goes: a hole in the address space of every task. Pure arithmetic on addresses.

use ckpt_format::{Mm, Vma, vma_flags};
use std::ops::Range;

/// The hole lies between these addresses: above the default `vm.mmap_min_addr`, and below where the
/// kernel puts the new program's stack, vDSO and mmap area.
const LOWEST: u64 = 0x1_0000;
const HIGHEST: u64 = 0x7ff0_0000_0000;
/// The hole starts at a multiple of this, and this much stays free on both sides, where there is room.
const COMFORT: u64 = 2 << 20;
/// Room that a growing stack and a growing heap are left, where there is room.
const GROWTH: u64 = 1 << 30;

/// An address for `need` bytes that no VMA has, nor anything of `others` (the kernel's mappings), if possible
/// far from what may grow.
#[must_use]
pub fn find(vmas: &[Vma], mms: &[Mm], others: &[Range<u64>], need: u64) -> Option<u64> {
    [true, false].into_iter().find_map(|growth| {
        let mut taken = occupied(vmas, mms, growth);
        taken.extend_from_slice(others);
        choose(taken, need)
    })
}

/// Ranges that the hole must not touch; with `growth` what they may grow into as well.
fn occupied(vmas: &[Vma], mms: &[Mm], growth: bool) -> Vec<Range<u64>> {
    let growth = if growth { GROWTH } else { 0 };
    let grown = |vma: &Vma| {
        let down = if vma.flags & vma_flags::GROWSDOWN != 0 { growth } else { 0 };
        vma.start.saturating_sub(down)..vma.end
    };
    let heaps = mms.iter().filter(|m| m.start_brk != 0).map(|m| m.start_brk..m.brk.saturating_add(growth));
    vmas.iter().map(grown).chain(heaps).collect()
}

/// An address for `need` bytes: in the middle of the largest gap, so that it is far from anything.
fn choose(mut taken: Vec<Range<u64>>, need: u64) -> Option<u64> {
    taken.push(HIGHEST..u64::MAX);
    taken.sort_unstable_by_key(|r| r.start);
    let mut gaps = Vec::new();
    let mut at = LOWEST;
    for r in taken {
        if r.start > at {
            gaps.push(at..r.start);
        }
        at = at.max(r.end);
    }
    let gap = gaps.into_iter().max_by_key(|g| g.end - g.start)?;
    let room = gap.end - gap.start;
    let middle = gap.start + room.checked_sub(need)? / 2;
    let comfortable = middle & !(COMFORT - 1);
    if comfortable >= gap.start + COMFORT && comfortable + need + COMFORT <= gap.end {
        return Some(comfortable);
    }
    let tight = middle & !(ckpt_format::PAGE_SIZE - 1);
    (tight >= gap.start && tight + need <= gap.end).then_some(tight)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEED: u64 = 20 << 20;

    fn vma(start: u64, end: u64) -> Vma {
        Vma { start, end, ..Vma::default() }
    }

    fn chosen(vmas: &[Vma], mms: &[Mm]) -> u64 {
        let taken = occupied(vmas, mms, true);
        let at = choose(taken, NEED).unwrap();
        assert!(vmas.iter().all(|v| at + NEED <= v.start || at >= v.end), "{at:#x}");
        assert!((LOWEST..HIGHEST - NEED).contains(&at), "{at:#x}");
        at
    }

    #[test]
    fn ordinary_programs_have_a_comfortable_hole() {
        let pie = [
            vma(0x55d0_c0a0_0000, 0x55d0_c0b0_0000),
            vma(0x7f12_0000_0000, 0x7f12_4000_0000),
            Vma { flags: vma_flags::GROWSDOWN, ..vma(0x7ffc_1234_0000, 0x7ffc_1236_0000) },
        ];
        let at = chosen(&pie, &[]);
        assert!(at.is_multiple_of(COMFORT));
        assert!(pie.iter().all(|v| at.abs_diff(v.start) > 1 << 40));
    }

    #[test]
    fn non_pie_go_and_java() {
        let heap = Mm { start_brk: 0x4c_7000, brk: 0x4e_9000, ..Mm::default() };
        chosen(&[vma(0x40_0000, 0x4c_7000), vma(0x4c_7000, 0x4e_9000)], &[heap]);
        // Go: arenas at 0xc000000000.
        chosen(
            &[
                vma(0x40_0000, 0x60_0000),
                vma(0xc0_0000_0000, 0xc4_0000_0000),
                vma(0x7f00_0000_0000, 0x7f00_1000_0000),
            ],
            &[],
        );
        // Java: compressed heap below 32 GiB, class space above it, libraries on top.
        chosen(
            &[
                vma(0x6_0000_0000, 0x8_0000_0000),
                vma(0x8_0000_0000, 0x8_4000_0000),
                vma(0x5555_0000_0000, 0x5555_0010_0000),
            ],
            &[],
        );
        // setarch -R: everything at the top of the address space.
        chosen(&[vma(0x5555_5555_4000, 0x5555_5560_0000), vma(0x7fff_f7c0_0000, 0x7fff_ffff_f000)], &[]);
    }

    #[test]
    fn terabytes_of_reservations_leave_the_largest_gap() {
        let vmas: Vec<Vma> =
            (1..127).map(|i| vma(i << 40, ((i + 1) << 40) - ((1 + (i * 7) % 50) << 30))).collect();
        let at = chosen(&vmas, &[]);
        let largest = vmas.iter().zip(&vmas[1..]).map(|(a, b)| b.start - a.end).max().unwrap();
        let after = vmas.iter().map(|v| v.start).filter(|s| *s > at).chain([HIGHEST]).min().unwrap();
        let before = vmas.iter().map(|v| v.end).filter(|e| *e <= at).chain([LOWEST]).max().unwrap();
        assert!(after - before >= largest);
    }

    #[test]
    fn a_crowded_space_gives_what_fits() {
        let hole = 0x1000_0000_0000;
        let vmas = [vma(LOWEST, hole), vma(hole + NEED + 0x3000, HIGHEST)];
        let at = chosen(&vmas, &[]);
        assert!(at >= hole && at + NEED <= hole + NEED + 0x3000);
        let full = occupied(&[vma(LOWEST, hole), vma(hole + NEED - 0x1000, HIGHEST)], &[], true);
        assert_eq!(choose(full, NEED), None);
    }

    #[test]
    fn room_is_left_for_stacks_and_heaps() {
        let stack = Vma { flags: vma_flags::GROWSDOWN, ..vma(0x1000_8000_0000, HIGHEST) };
        let heap = Mm { start_brk: 0x0fff_0000_0000, brk: 0x0fff_0010_0000, ..Mm::default() };
        let below = vma(LOWEST, 0x0fff_0010_0000);
        let at = chosen(&[below, stack], &[heap]);
        assert!(at + NEED + GROWTH <= stack.start && at >= heap.brk + GROWTH);
    }
}
