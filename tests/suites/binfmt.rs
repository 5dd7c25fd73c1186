//! `ckpt-binfmt` and `ckpt-restore`: by hand, and as the kernel's handler in a user namespace of the test's own. All
//! victims go through the handler with CKPT_TEST_BINFMT=1, in their own suites.

use ckpt_format::{DirEntry, Header, Meta, checksum};
use ckpt_tests::{Context, Launch, Proc, Suite, T, TestResult, Who, anyhow, bail, ensure, tool};
use std::fs::{Permissions, set_permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use zerocopy::{FromBytes, IntoBytes};

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("binfmt");
    for (who, suffix) in [(Who::Me, ""), (Who::User, "-user")] {
        suite.test_as(who, format!("by_hand{suffix}"), by_hand);
        suite.test_as(who, format!("by_hand_ns{suffix}"), by_hand_ns);
        suite.test_as(who, format!("noexec{suffix}"), noexec);
        suite.test_as(who, format!("handled{suffix}"), |t| handled(t, "new"));
        suite.test_as(who, format!("handled_ns{suffix}"), |t| handled(t, "ns"));
        suite.test_as(who, format!("policy_of_the_system{suffix}"), policy_of_the_system);
    }
    suite.test("memory_map", memory_map);
    suite.test("no_stub", no_stub);
    suite.test("no_stub_handled", no_stub_handled);
    suite.test("another_hole", another_hole);
    suite.test("older_records", older_records);
    suite.test("format_1", format_1);
    suite.test("called_by_name", called_by_name);
    suite.test("registered_and_not", registered_and_not);
    suite.test("closed_streams", closed_streams);
    suite.test("small_limits", small_limits);
    suite.test("same_refusals", same_refusals);
    suite.test("not_readable", not_readable);
    suite.test("set_user_id", set_user_id);
    suite.test("verify_first", verify_first);
    suite.test("owner_same", owner_same);
    suite.test("signatures", signatures);
    suite.test("bad_policy", bad_policy);
    suite.run()
}

/// A program of ours where the test's user can execute it.
fn program(t: &T, name: &str) -> Result<PathBuf, ckpt_tests::Error> {
    let copy = t.path(name);
    if !copy.exists() {
        ckpt_tests::copy(&tool(name)?, &copy)?;
    }
    Ok(copy)
}

/// A victim that was saved and killed.
fn saved(t: &T, dump: &[&str]) -> TestResult {
    let mut victim = t.victim("counter").start()?;
    t.dump(victim.pid()).kill().args(dump).ok()?;
    victim.wait_exit()?;
    t.wait_gone(&[victim.pid()])
}

/// `ckpt-restore ARGS`.
fn restore<'t>(t: &'t T, args: &[&str]) -> Result<Launch<'t>, ckpt_tests::Error> {
    let count = std::fs::read_dir(t.dir())?.count();
    Ok(t.launch(&format!("by-hand-{count}"), program(t, "ckpt-restore")?).args(args))
}

/// In the user namespace in which something is mounted, as root: a command as the user that we are, by another
/// namespace below. Handlers are those of the next namespace above that has any.
fn as_ourselves(t: &T) -> String {
    let id = |number: u32| if t.who() == Who::User && number == 0 { 1000 } else { number };
    let (uid, gid) = (id(nix::unistd::geteuid().as_raw()), id(nix::unistd::getegid().as_raw()));
    format!("exec unshare --map-user={uid} --map-group={gid}")
}

/// Runs to its end; the victim must be right.
fn goes_on(t: &T, mut restored: Proc) -> TestResult {
    t.go()?;
    restored.expect_exit(0)?;
    t.expect_ok()
}

fn refused(launch: Launch<'_>, words: &[&str]) -> TestResult {
    let mut proc = launch.start()?;
    let status = proc.wait_exit()?;
    let text = proc.stderr();
    ensure!(status.code() == Some(125) && text.starts_with("ckpt: "), "{status}, expected a refusal\n{text}");
    for word in words {
        ensure!(text.contains(word), "the message does not mention {word:?}:\n{text}");
    }
    Ok(())
}

fn mode(t: &T, file: &str, mode: u32) -> TestResult {
    Ok(set_permissions(t.path(file), Permissions::from_mode(mode))?)
}

fn by_hand(t: &T) -> TestResult {
    saved(t, &[])?;
    mode(t, "saved.ckpt", 0o600)?;
    goes_on(t, restore(t, &["saved.ckpt", "--pid=new"])?.start()?)
}

fn by_hand_ns(t: &T) -> TestResult {
    saved(t, &["--compress"])?;
    let mut restored = restore(t, &["./saved.ckpt", "--pid", "ns"])?.start()?;
    t.ping()?;
    // As when the image is executed: what stays in front has its name.
    let comm = ckpt_tests::procfs::comm(restored.pid());
    ensure!(comm.as_deref() == Some("saved.ckpt"), "{comm:?}");
    restored.ensure_alive()?;
    goes_on(t, restored)
}

/// What a file system that is mounted noexec forbids the kernel.
fn noexec(t: &T) -> TestResult {
    saved(t, &[])?;
    let handler = program(t, "ckpt-restore")?;
    std::fs::create_dir(t.path("mnt"))?;
    t.who().own(&t.path("mnt"))?;
    let script = "mount -t tmpfs -o noexec none mnt && cp saved.ckpt mnt && cd mnt && \
                  ! ./saved.ckpt --help 2>/dev/null";
    let script = format!("{script} && {} \"$@\" saved.ckpt --pid new --chdir ..", as_ourselves(t));
    let restored =
        t.launch("noexec", "unshare").args(["-Urm", "sh", "-c", &script, "sh"]).arg(handler).start()?;
    goes_on(t, restored)
}

fn memory_map(t: &T) -> TestResult {
    saved(t, &[])?;
    goes_on(t, restore(t, &["saved.ckpt", "--memory=map", "--pid=new"])?.start()?)
}

fn no_stub(t: &T) -> TestResult {
    saved(t, &["--no-stub"])?;
    // Executed, it says what it needs.
    t.restore("saved.ckpt").refused(&["--no-stub", "ckpt-restore FILE", "ckpt-binfmt register"])?;
    let info = t.launch("info", tool("ckpt-info")?).arg("saved.ckpt").start();
    let mut info = info?;
    info.expect_exit(0)?;
    ensure!(info.stdout().contains("needs ckpt-restore"), "{}", info.stdout());
    goes_on(t, restore(t, &["saved.ckpt", "--pid=new"])?.start()?)
}

fn no_stub_handled(t: &T) -> TestResult {
    saved(t, &["--no-stub", "--compress"])?;
    ensure!(t.image_size("saved.ckpt")? < 2 << 20, "it is not smaller");
    let script = format!("{} ./saved.ckpt --pid new", as_ourselves(t));
    goes_on(t, inside(t, "handled", &["sh", "-c", &script])?)
}

/// The metadata region in an image, from its first bytes on.
fn region(image: &[u8]) -> Result<usize, ckpt_tests::Error> {
    let header = image.windows(8).position(|w| w == b"\0\x01\0\0CKPT").context("no header")?;
    Ok(header - 12)
}

/// Changes the header record; its checksum is right afterwards.
fn edit_header(region: &mut [u8], edit: impl FnOnce(&mut Header)) -> TestResult {
    let body = &mut region[Meta::FIRST_NOTE + Meta::NOTE_HEADER..];
    let (header, rest) = Header::mut_from_prefix(body).map_err(|e| anyhow!("{e}"))?;
    edit(header);
    let dir = &rest[..header.dir_count as usize * size_of::<DirEntry>()];
    header.checksum = Meta::header_checksum(header, dir);
    Ok(())
}

/// The dumper left less room than this restorer needs.
fn another_hole(t: &T) -> TestResult {
    saved(t, &["--no-stub"])?;
    let mut image = std::fs::read(t.path("saved.ckpt"))?;
    let at = region(&image)?;
    edit_header(&mut image[at..], |h| h.hole_len = 4096)?;
    t.write("small.ckpt", image)?;
    goes_on(t, restore(t, &["small.ckpt", "--pid=new"])?.start()?)
}

/// As an older writer would have it: without the last fields of records, where these say nothing.
fn make_older(image: &mut [u8]) -> Result<usize, ckpt_tests::Error> {
    let at = region(image)?;
    let region = &mut image[at..];
    let header_at = Meta::FIRST_NOTE + Meta::NOTE_HEADER;
    let count = u32::from_le_bytes(region[header_at + 8..header_at + 12].try_into()?) as usize;
    let dir_at = header_at + size_of::<Header>();
    let mut dir = Vec::new();
    let mut shorter = 0;
    for i in 0..count {
        let at = dir_at + i * size_of::<DirEntry>();
        let mut entry =
            DirEntry::read_from_bytes(&region[at..at + size_of::<DirEntry>()]).map_err(|e| anyhow!("{e}"))?;
        let (start, size) = (entry.offset as usize, entry.record_size as usize);
        let records: Vec<Vec<u8>> =
            region[start..start + entry.len as usize].chunks_exact(size).map(<[u8]>::to_vec).collect();
        if size > 8 && records.iter().all(|r| r[size - 8..] == [0; 8]) {
            let table: Vec<u8> = records.iter().flat_map(|r| r[..size - 8].iter().copied()).collect();
            region[start..start + table.len()].copy_from_slice(&table);
            entry.record_size -= 8;
            entry.len = table.len() as u64;
            entry.checksum = checksum(&table);
            shorter += 1;
        }
        dir.extend_from_slice(entry.as_bytes());
    }
    // The header lacks its last field, and the directory follows it.
    let size = size_of::<Header>() - 8;
    region[header_at + 4..header_at + 8].copy_from_slice(&(size as u32).to_le_bytes());
    region[header_at + 16..header_at + 24].fill(0);
    region[header_at + size..header_at + size + dir.len()].copy_from_slice(&dir);
    let sum = checksum(&region[header_at..header_at + size + dir.len()]);
    region[header_at + 16..header_at + 24].copy_from_slice(&sum.to_le_bytes());
    Ok(shorter)
}

fn older_records(t: &T) -> TestResult {
    saved(t, &["--no-stub"])?;
    let now = std::fs::read(t.path("saved.ckpt"))?;
    let mut older = now.clone();
    let shorter = make_older(&mut older)?;
    ensure!(shorter >= 5, "only {shorter} tables have become shorter");
    t.write("older.ckpt", &older)?;
    let told = |image: &str| -> Result<serde_json::Value, ckpt_tests::Error> {
        let mut info =
            t.launch(&format!("info-{image}"), tool("ckpt-info")?).args([image, "--json"]).start()?;
        info.expect_exit(0)?;
        let mut json: serde_json::Value = serde_json::from_str(&info.stdout())?;
        // The header's last field.
        json["image"]["stored_bytes"] = serde_json::Value::Null;
        Ok(json)
    };
    ensure!(told("saved.ckpt")? == told("older.ckpt")?, "the older image is told otherwise");
    let mut verify = t.launch("verify", tool("ckpt-info")?).args(["older.ckpt", "--verify"]).start()?;
    verify.expect_exit(0)?;
    goes_on(t, restore(t, &["older.ckpt", "--pid=new"])?.start()?)?;
    // Its checksums count as much.
    let at = region(&older)? + Meta::FIRST_NOTE + Meta::NOTE_HEADER;
    for change in [at + 100, at + size_of::<Header>() + 20] {
        let mut damaged = older.clone();
        damaged[change] ^= 4;
        t.write("damaged.ckpt", damaged)?;
        refused(restore(t, &["damaged.ckpt"])?, &["damaged"])?;
    }
    // A later writer's records are not understood.
    let mut newer = now;
    let at = region(&newer)?;
    edit_header(&mut newer[at..], |h| h.header_size += 8)?;
    t.write("newer.ckpt", &newer)?;
    refused(
        restore(t, &["newer.ckpt"])?,
        &["needs a newer program", "ckpt-restore is older than the image"],
    )?;
    edit_header(&mut newer[at..], |h| (h.header_size, h.version) = (h.header_size - 8, 2))?;
    t.write("newer.ckpt", &newer)?;
    refused(restore(t, &["newer.ckpt"])?, &["format version 2", "ckpt-restore is older than the image"])
}

/// The image of format 1 that must stay readable, and be restored as what it was.
fn format_1(t: &T) -> TestResult {
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/format1.ckpt");
    let mut info = t.launch("info", tool("ckpt-info")?).args([fixture, "--verify"]).start()?;
    info.expect_exit(0)?;
    // Of root's process.
    ckpt_tests::need_root()?;
    for mode in ["new", "ns"] {
        let mut launch = restore(t, &[fixture, "--ignore-cpu", "--pid", mode])?.stdin(Stdio::piped());
        launch = launch.stdout(std::fs::File::create(t.path(format!("{mode}.txt")))?);
        let mut restored = launch.start()?;
        restored.take_stdin().context("no stdin")?.write_all(b"go\n")?;
        restored.expect_exit(42).with_context(|| t.read(&format!("{mode}.txt")).unwrap_or_default())?;
        ensure!(t.read(&format!("{mode}.txt"))? == "ok\n");
    }
    Ok(())
}

/// A command that is run where ckpt-restore is the handler of images, in a user namespace.
fn inside(t: &T, name: &str, words: &[&str]) -> Result<Proc, ckpt_tests::Error> {
    let launch = t.launch(name, "unshare").args(["-Urm", "sh", "-c", ckpt_tests::binfmt::REGISTER, "sh"]);
    launch.arg(program(t, "ckpt-binfmt")?).arg(program(t, "ckpt-restore")?).args(words).start()
}

fn handled(t: &T, pid: &str) -> TestResult {
    saved(t, &[])?;
    let script = format!("{} ./saved.ckpt --pid {pid}", as_ourselves(t));
    let restored = inside(t, "handled", &["sh", "-c", &script])?;
    t.ping()?;
    if pid == "ns" {
        let exe = std::fs::read_link(format!("/proc/{}/exe", restored.pid()))?;
        ensure!(exe == Path::new("/memfd:saved.ckpt (deleted)"), "not by the handler: {}", exe.display());
    }
    goes_on(t, restored)
}

/// The handler gets the name by which it was called, and arguments as they were.
fn called_by_name(t: &T) -> TestResult {
    saved(t, &[])?;
    let script = "exec -a 'another name' ./saved.ckpt --bogus='1 2'";
    let mut shell = inside(t, "named", &["bash", "-c", script])?;
    shell.expect_exit(125)?;
    ensure!(shell.stderr().contains("--bogus=1 2"), "{}", shell.stderr());
    let mut help = inside(t, "help", &["bash", "-c", "exec -a '' ./saved.ckpt --help"])?;
    help.expect_exit(0)?;
    ensure!(help.stdout().contains("saved.ckpt [OPTIONS]"), "{}", help.stdout());
    Ok(())
}

fn registered_and_not(t: &T) -> TestResult {
    let script = "set -e
        b=$1
        ! $b status
        $b unregister
        $b register
        $b register
        $b status
        grep -qx 'flags: POF' /proc/sys/fs/binfmt_misc/ckpt
        [ $(ls /proc/sys/fs/binfmt_misc | wc -l) = 3 ]
        echo 0 > /proc/sys/fs/binfmt_misc/ckpt
        ! $b status
        $b unregister
        ! $b status
        [ ! -e /proc/sys/fs/binfmt_misc/ckpt ]
        ! $b register --handler /proc/self/maps
        ! $b register --handler /nowhere
        ! $b status";
    program(t, "ckpt-restore")?;
    let own = program(t, "ckpt-binfmt")?;
    t.launch("register", "unshare").args(["-Urm", "sh", "-c", script, "sh"]).arg(own).start()?.expect_exit(0)
}

/// The image finds standard streams closed if its caller has closed them, and is told nothing else.
fn closed_streams(t: &T) -> TestResult {
    let mut victim = t.launch("victim", "sleep").arg("0.5").start()?;
    t.dump(victim.pid()).kill().ok()?;
    victim.wait_exit()?;
    let run = |name: &str, image: &str| -> Result<String, ckpt_tests::Error> {
        let script = format!("{image} --pid ns 0<&- 1>&- 2>&- & ls -l /proc/$!/fd; wait $!; echo $?");
        let mut shell = t.launch(name, "sh").args(["-c", &script]).start()?;
        shell.expect_exit(0)?;
        Ok(shell.stdout().lines().last().unwrap_or_default().to_owned())
    };
    let own = run("own", "./saved.ckpt")?;
    let handler = program(t, "ckpt-restore")?;
    let handled = run("handled", &format!("{} ./saved.ckpt", handler.display()))?;
    ensure!(own == handled, "without handler {own}, with {handled}");
    Ok(())
}

/// Limits that are no obstacle for an image by itself.
fn small_limits(t: &T) -> TestResult {
    saved(t, &[])?;
    let handler = program(t, "ckpt-restore")?;
    let script = "ulimit -S -f 0; ulimit -S -n 5; exec \"$@\" saved.ckpt --pid new";
    let restored = t.launch("limits", "bash").args(["-c", script, "bash"]).arg(handler).start()?;
    t.ping()?;
    goes_on(t, restored)
}

/// The same exit status and much the same words with and without the handler.
fn same_refusals(t: &T) -> TestResult {
    saved(t, &[])?;
    let whole = std::fs::read(t.path("saved.ckpt"))?;
    std::fs::write(t.path("cut.ckpt"), &whole[..whole.len() - 4096])?;
    let mut changed = whole.clone();
    let note = changed.windows(8).position(|w| w == b"\0\x01\0\0CKPT").context("no header")?;
    changed[note + 100] ^= 1;
    std::fs::write(t.path("changed.ckpt"), &changed)?;
    std::fs::write(t.path("text.ckpt"), "no image")?;
    refused(restore(t, &["cut.ckpt"])?, &["cut.ckpt", "truncated", "copy or dump it again"])?;
    refused(restore(t, &["changed.ckpt"])?, &["changed.ckpt", "damaged"])?;
    refused(restore(t, &["text.ckpt"])?, &["not a ckpt image"])?;
    refused(restore(t, &["none.ckpt"])?, &["none.ckpt", "No such file"])?;
    refused(restore(t, &["saved.ckpt", "--bogus"])?, &["unknown argument --bogus"])?;
    refused(restore(t, &["saved.ckpt", "--fd", "77=/dev/null"])?, &["77"])
}

fn not_readable(t: &T) -> TestResult {
    ckpt_tests::need_root()?;
    saved(t, &[])?;
    // Executable for all, readable for its owner: the kernel would pass it to the handler open.
    mode(t, "saved.ckpt", 0o711)?;
    let script = ckpt_tests::binfmt::REGISTER;
    let launch = t.launch("unreadable", "unshare").who(Who::User).args(["-Urm", "sh", "-c", script, "sh"]);
    let tools = [program(t, "ckpt-binfmt")?, program(t, "ckpt-restore")?];
    refused(launch.args(tools).arg("./saved.ckpt"), &["cannot open the image", "make it readable"])
}

fn set_user_id(t: &T) -> TestResult {
    ckpt_tests::need_root()?;
    saved(t, &[])?;
    chown(t.path("saved.ckpt"), Some(1000), Some(1000))?;
    mode(t, "saved.ckpt", 0o4755)?;
    refused(restore(t, &["saved.ckpt"])?, &["set-user-ID"])?;
    mode(t, "saved.ckpt", 0o2755)?;
    refused(restore(t, &["saved.ckpt"])?, &["set-group-ID"])
}

/// Damages the first page of contents behind the stub that is stored as it is.
fn damage(t: &T) -> TestResult {
    use std::os::unix::fs::FileExt;
    let image = std::fs::read(t.path("saved.ckpt"))?;
    // The victim's pattern: words that are not zero, in the first half of the file behind the stub.
    let at = (image.len() / 2) & !4095;
    let at = (at..image.len()).find(|i| image[*i] != 0).context("contents")?;
    let file = std::fs::File::options().write(true).open(t.path("saved.ckpt"))?;
    file.write_all_at(&[image[at] ^ 1], at as u64)?;
    Ok(())
}

fn verify_first(t: &T) -> TestResult {
    saved(t, &[])?;
    goes_on(t, restore(t, &["--verify", "saved.ckpt", "--pid=new"])?.start()?)?;
    damage(t)?;
    // Nothing else would notice what is mapped only.
    refused(restore(t, &["--verify", "saved.ckpt", "--memory=map", "--pid=new"])?, &["damaged", "checksum"])
}

fn owner_same(t: &T) -> TestResult {
    saved(t, &[])?;
    mode(t, "saved.ckpt", 0o720)?;
    refused(restore(t, &["--owner=same", "saved.ckpt"])?, &["others may write", "go-w"])?;
    mode(t, "saved.ckpt", 0o755)?;
    goes_on(t, restore(t, &["--owner=same", "saved.ckpt", "--pid=new"])?.start()?)?;
    ckpt_tests::need_root()?;
    chown(t.path("saved.ckpt"), Some(1000), Some(1000))?;
    refused(restore(t, &["--owner=same", "saved.ckpt"])?, &["belongs to uid 1000", "owner = same"])
}

fn run(command: &mut Command) -> TestResult {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn signatures(t: &T) -> TestResult {
    ckpt_tests::need("minisign")?;
    saved(t, &[])?;
    let minisign = |args: &[&str]| run(Command::new("minisign").args(args).current_dir(t.dir()));
    for key in ["good", "other"] {
        minisign(&["-G", "-W", "-p", &format!("{key}.pub"), "-s", &format!("{key}.key")])?;
    }
    let line = |key: &str| -> Result<String, ckpt_tests::Error> {
        Ok(t.read(&format!("{key}.pub"))?.lines().nth(1).context("a key")?.to_owned())
    };
    let good = line("good")?;
    refused(restore(t, &["--trusted-key=good.pub", "saved.ckpt"])?, &["not signed", "saved.ckpt.minisig"])?;
    minisign(&["-S", "-W", "-s", "good.key", "-m", "saved.ckpt"])?;
    goes_on(t, restore(t, &["--trusted-key=good.pub", "saved.ckpt", "--pid=new"])?.start()?)?;
    refused(restore(t, &["--trusted-key=other.pub", "saved.ckpt"])?, &["none of the keys"])?;
    // As the administrator says it, with one more key.
    t.write("restore.conf", format!("trusted-key = {}\ntrusted-key = {good}\n", line("other")?))?;
    goes_on(t, restore(t, &["--config=restore.conf", "saved.ckpt", "--pid=new"])?.start()?)?;
    // Options only add to that.
    t.write("restore.conf", format!("trusted-key = {}\n", line("other")?))?;
    let both = ["--config=restore.conf", "--trusted-key", &good, "saved.ckpt"];
    refused(restore(t, &both)?, &["none of the keys"])?;
    mode(t, "saved.ckpt", 0o722)?;
    refused(restore(t, &["--trusted-key=good.pub", "saved.ckpt"])?, &["others may write"])?;
    mode(t, "saved.ckpt", 0o700)?;
    damage(t)?;
    refused(restore(t, &["--trusted-key=good.pub", "saved.ckpt"])?, &["is not of this image"])?;
    t.write("saved.ckpt.minisig", "nonsense")?;
    refused(restore(t, &["--trusted-key=good.pub", "saved.ckpt"])?, &["saved.ckpt.minisig"])
}

fn bad_policy(t: &T) -> TestResult {
    saved(t, &[])?;
    t.write("restore.conf", "verify = perhaps\n")?;
    refused(
        restore(t, &["--config=restore.conf", "saved.ckpt"])?,
        &["restore.conf", "line 1", "verify = perhaps"],
    )?;
    refused(restore(t, &["--config=none.conf", "saved.ckpt"])?, &["none.conf"])?;
    refused(restore(t, &["--trusted-key=none.pub", "saved.ckpt"])?, &["none.pub"])
}

/// `/etc/ckpt/restore.conf`, as seen in a mount namespace: of the handler that the kernel calls.
fn policy_of_the_system(t: &T) -> TestResult {
    saved(t, &[])?;
    let make = "mkdir over && mount -t tmpfs none over && mkdir over/up over/work && \
        mount -t overlay -o lowerdir=/etc,upperdir=over/up,workdir=over/work none /etc && \
        mkdir -p /etc/ckpt && echo \"$conf\" > /etc/ckpt/restore.conf && chmod \"$mode\" /etc/ckpt/restore.conf && \
        exec ./saved.ckpt --help";
    let with = |name: &str, conf: &str, mode: &str| {
        let script = format!("rmdir over 2>/dev/null; conf='{conf}' mode={mode}; {make}");
        inside(t, name, &["sh", "-c", &script])
    };
    let refusal = |name: &str, conf: &str, mode: &str, word: &str| -> TestResult {
        let mut proc = with(name, conf, mode)?;
        let status = proc.wait_exit()?;
        let text = proc.stderr();
        ensure!(status.code() == Some(125) && text.contains(word), "{status}, {word:?} expected\n{text}");
        Ok(())
    };
    refusal("open", "verify = never", "666", "must belong to root")?;
    refusal("bad", "nonsense", "644", "is not understood")?;
    refusal(
        "unsigned",
        "trusted-key = RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3",
        "644",
        "not signed",
    )?;
    with("good", "verify = always", "644")?.expect_exit(0)?;
    damage(t)?;
    refusal("damaged", "verify = always", "644", "do not match their checksum")
}
