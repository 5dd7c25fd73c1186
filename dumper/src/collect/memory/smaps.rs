//! Parser of `/proc/PID/smaps` (Documentation/filesystems/proc.rst). Pure.

/// One VMA as the kernel shows it. Sizes in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    pub start: u64,
    pub end: u64,
    /// PROT_READ | PROT_WRITE | PROT_EXEC.
    pub prot: u32,
    pub shared: bool,
    pub offset: u64,
    pub dev: (u32, u32),
    pub ino: u64,
    /// Path or `[name]`; empty for unnamed anonymous memory. Newlines unescaped.
    pub path: Vec<u8>,
    pub rss: u64,
    pub swap: u64,
    pub page_size: u64,
    pub pkey: u32,
    /// The two-letter VmFlags.
    pub flags: Vec<[u8; 2]>,
}

impl Entry {
    pub fn has(&self, flag: &[u8; 2]) -> bool {
        self.flags.contains(flag)
    }

    pub fn is(&self, name: &str) -> bool {
        self.path == name.as_bytes()
    }
}

/// All entries, in address order.
///
/// # Errors
/// The first line that is not understood.
pub fn parse(text: &[u8]) -> Result<Vec<Entry>, String> {
    let mut entries: Vec<Entry> = Vec::new();
    for line in text.split(|&b| b == b'\n').filter(|l| !l.is_empty()) {
        let odd = || format!("line not understood: {}", String::from_utf8_lossy(line));
        // Attribute lines start with a capital letter, VMAs with a hexadecimal digit in lower case.
        if line[0].is_ascii_uppercase() {
            let entry = entries.last_mut().ok_or_else(odd)?;
            attribute(entry, line).ok_or_else(odd)?;
        } else {
            entries.push(header(line).ok_or_else(odd)?);
        }
    }
    Ok(entries)
}

/// `start-end perms offset major:minor inode   path`
fn header(line: &[u8]) -> Option<Entry> {
    let (start, rest) = hex(line)?;
    let (end, rest) = hex(rest.strip_prefix(b"-")?)?;
    let perms = rest.get(1..5)?;
    let (offset, rest) = hex(rest.get(6..)?)?;
    let (major, rest) = hex(rest.strip_prefix(b" ")?)?;
    let (minor, rest) = hex(rest.strip_prefix(b":")?)?;
    let (ino, rest) = decimal(rest.strip_prefix(b" ")?)?;
    let bit = |i: usize, letter: u8, bit: u32| if perms[i] == letter { bit } else { 0 };
    Some(Entry {
        start,
        end,
        prot: bit(0, b'r', 1) | bit(1, b'w', 2) | bit(2, b'x', 4),
        shared: perms[3] == b's',
        offset,
        dev: (major as u32, minor as u32),
        ino,
        path: unescape(rest.trim_ascii_start()),
        page_size: 4096,
        ..Entry::default()
    })
}

fn attribute(entry: &mut Entry, line: &[u8]) -> Option<()> {
    // Most lines are of no interest, and there are very many.
    let of_interest = matches!(line[0], b'R' | b'S' | b'K' | b'P' | b'V');
    if !of_interest {
        return Some(());
    }
    let colon = line.iter().position(|&b| b == b':')?;
    let (key, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    let bytes = || decimal(value).map(|(kib, _)| kib * 1024);
    match key {
        b"Rss" => entry.rss = bytes()?,
        b"Swap" => entry.swap = bytes()?,
        b"KernelPageSize" => entry.page_size = bytes()?,
        b"ProtectionKey" => entry.pkey = decimal(value)?.0 as u32,
        b"VmFlags" => {
            entry.flags = value.split(|&b| b == b' ').filter_map(|f| f.try_into().ok()).collect();
            // Before 6.12 VM_LOCKONFAULT has no letters (fs/proc/task_mmu.c), and it is the only such
            // flag that a locked VMA has.
            if entry.has(b"lo") && entry.has(b"??") {
                entry.flags.push(*b"lf");
            }
        }
        _ => {}
    }
    Some(())
}

fn hex(text: &[u8]) -> Option<(u64, &[u8])> {
    number(text, 16)
}

fn decimal(text: &[u8]) -> Option<(u64, &[u8])> {
    number(text, 10)
}

fn number(text: &[u8], radix: u32) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    let mut len = 0;
    while let Some(digit) = text.get(len).and_then(|&b| (b as char).to_digit(radix)) {
        value = value.checked_mul(u64::from(radix))?.checked_add(u64::from(digit))?;
        len += 1;
    }
    (len > 0).then(|| (value, &text[len..]))
}

/// The kernel writes a newline in a path as `\012` (fs/seq_file.c, mangle_path).
fn unescape(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&first, tail)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(b"\\012") {
            out.push(b'\n');
            rest = after;
        } else {
            out.push(first);
            rest = tail;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
55d0c0a00000-55d0c0a02000 r-xp 00001000 fe:00 1234                       /usr/bin/a b\\012c
Size:                  8 kB
KernelPageSize:        4 kB
MMUPageSize:           4 kB
Rss:                   4 kB
Swap:                  0 kB
THPeligible:           0
ProtectionKey:         3
VmFlags: rd ex mr mw me sd 
7f0000000000-7f0000200000 rw-s 00000000 00:01 77                         /dev/zero (deleted)
Size:               2048 kB
KernelPageSize:     2048 kB
VmFlags: rd wr sh mr mw me ms ht
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                          [stack]
Rss:                  16 kB
VmFlags: rd wr mr mw me gd ac
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
VmFlags: ex
7fff00000000-7fff00001000 ---p 00000000 00:00 0 
";

    #[test]
    fn fields_are_found() {
        let e = parse(TEXT.as_bytes()).unwrap();
        assert_eq!(e.len(), 5);
        assert_eq!(
            (e[0].start, e[0].end, e[0].prot, e[0].shared),
            (0x55d0_c0a0_0000, 0x55d0_c0a0_2000, 5, false)
        );
        assert_eq!((e[0].offset, e[0].dev, e[0].ino), (0x1000, (0xfe, 0), 1234));
        assert_eq!((e[0].path.as_slice(), e[0].rss, e[0].pkey), (&b"/usr/bin/a b\nc"[..], 4096, 3));
        assert!(e[0].has(b"sd") && !e[0].has(b"gd"));
        assert!(e[1].shared && e[1].page_size == 2 << 20 && e[1].has(b"ht"));
        assert!(e[2].is("[stack]") && e[2].has(b"gd"));
        assert_eq!(e[3].start, 0xffff_ffff_ff60_0000);
        assert!(e[4].path.is_empty() && e[4].prot == 0);
    }

    #[test]
    fn odd_text_is_an_error() {
        assert!(parse(b"Rss: 4 kB\n").is_err());
        assert!(parse(b"1000-2000 r\n").is_err());
        assert!(parse(b"zzz\n").is_err());
        assert!(parse(b"").unwrap().is_empty());
    }

    #[test]
    fn own_smaps_is_understood() {
        let text = std::fs::read("/proc/self/smaps").unwrap();
        let entries = parse(&text).unwrap();
        assert!(entries.len() > 5 && entries.is_sorted_by_key(|e| e.start));
        assert!(entries.iter().any(|e| e.is("[stack]") && e.rss > 0));
    }
}
