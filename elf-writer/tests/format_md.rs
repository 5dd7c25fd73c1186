//! FORMAT.md is kept true: every record, its size, and every field with its offset is in it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// A record as the source declares it: name, size, `(field, type)`.
type Record = (String, u64, Vec<(String, String)>);

fn sources(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

/// Records declared with the `records!` macro.
fn records() -> Vec<Record> {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("format/src"), &mut files);
    let mut out: Vec<Record> = Vec::new();
    for file in files {
        let mut inside = false;
        for line in std::fs::read_to_string(&file).unwrap().lines().map(str::trim) {
            let declared = line.strip_prefix("pub struct ").and_then(|l| l.strip_suffix("] {"));
            if let Some((name, size)) = declared.and_then(|l| l.split_once('['))
                && let Ok(size) = size.parse()
            {
                out.push((name.into(), size, Vec::new()));
                inside = true;
            } else if line.starts_with('}') {
                inside = false;
            } else if inside && !line.starts_with("//") {
                let fields =
                    line.split("pub ").filter_map(|f| f.trim().trim_end_matches(',').split_once(": "));
                out.last_mut().unwrap().2.extend(fields.map(|(f, t)| (f.into(), t.into())));
            }
        }
    }
    out
}

/// Size and alignment of a field's type.
fn layout(of: &str, sizes: &HashMap<String, u64>) -> (u64, u64) {
    let of = of.rsplit("::").next().unwrap();
    if let Some((element, count)) = of.strip_prefix('[').and_then(|t| t.strip_suffix(']')?.rsplit_once("; "))
    {
        let (size, align) = layout(element, sizes);
        return (size * count.parse::<u64>().unwrap(), align);
    }
    match of {
        "u8" => (1, 1),
        "u32" | "i32" => (4, 4),
        "u64" | "i64" => (8, 8),
        "Range" => (8, 4),
        record => (sizes[record], 8),
    }
}

#[test]
fn every_record_and_field_is_described() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("FORMAT.md")).unwrap();
    let records = records();
    assert!(records.len() > 30, "the source is not understood");
    let sizes: HashMap<String, u64> = records.iter().map(|(n, s, _)| (n.clone(), *s)).collect();
    let mut missing = Vec::new();
    for (name, size, fields) in &records {
        let heading = format!("#### `{name}`, {size} bytes\n");
        let Some(start) = text.find(&heading) else {
            missing.push(heading);
            continue;
        };
        let section = &text[start + heading.len()..];
        let section = &section[..section.find("\n#").unwrap_or(section.len())];
        let mut offset = 0u64;
        for (field, of) in fields {
            let (size, align) = layout(of, &sizes);
            offset = offset.next_multiple_of(align);
            let row = format!("| {offset} | `{field}` | {} |", of.rsplit("::").next().unwrap());
            if !section.contains(&row) {
                missing.push(format!("{name}: {row}"));
            }
            offset += size;
        }
        assert_eq!(offset, *size, "{name} is not understood");
    }
    assert!(missing.is_empty(), "FORMAT.md lacks:\n{}", missing.join("\n"));
}

#[test]
fn note_types_are_described() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("FORMAT.md")).unwrap();
    for note in 0x100..=0x118 {
        assert!(text.contains(&format!("| {note:#x} | ")), "note {note:#x}");
    }
}

/// Records that tables are made of, which may grow; all others lie in the blobs, or within records.
const TABLES: [&str; 24] = [
    "Header",
    "Task",
    "Thread",
    "Mm",
    "Vma",
    "Extent",
    "FileIdent",
    "FdTable",
    "FdEntry",
    "Object",
    "FsInfo",
    "Sighand",
    "SigAction",
    "PendingSignal",
    "PosixTimer",
    "Creds",
    "Lock",
    "Loss",
    "GuardRange",
    "SysvShm",
    "SysvSem",
    "SysvMsg",
    "SemUndo",
    "Compression",
];

/// `NAME`, and a line for each field: `NAME.FIELD OFFSET TYPE`; the size of records that may not grow.
fn layout_lines() -> Vec<String> {
    let records = records();
    let sizes: HashMap<String, u64> = records.iter().map(|(n, s, _)| (n.clone(), *s)).collect();
    let mut out = Vec::new();
    // Stub and writer are always of one build.
    for (name, size, fields) in records.iter().filter(|(name, ..)| name != "StubConfig") {
        let mut offset = 0u64;
        if !TABLES.contains(&name.as_str()) {
            out.push(format!("{name} {size}"));
        }
        for (field, of) in fields {
            let (size, align) = layout(of, &sizes);
            offset = offset.next_multiple_of(align);
            // What was reserved may get a name.
            if !field.starts_with("reserved") {
                out.push(format!("{name}.{field} {offset} {}", of.rsplit("::").next().unwrap()));
            }
            offset += size;
        }
    }
    out
}

/// FORMAT.md, "Versions". With CKPT_BLESS the list is written anew: before a release, never for what was released.
#[test]
fn fields_stay_where_they_are() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/format1.txt");
    let mut now = layout_lines();
    now.sort();
    if std::env::var_os("CKPT_BLESS").is_some() {
        std::fs::write(&path, now.join("\n") + "\n").unwrap();
    }
    let promised = std::fs::read_to_string(&path).unwrap();
    let missing: Vec<&str> = promised.lines().filter(|line| !now.iter().any(|n| n == line)).collect();
    assert!(
        missing.is_empty(),
        "these have been moved or removed, which images of format 1 need:\n{}",
        missing.join("\n")
    );
}
