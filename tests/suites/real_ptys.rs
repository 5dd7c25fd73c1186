//! Real programs that provide terminals, and shells with jobs: tmux, script, expect, python's pty module, an
//! interactive bash.

use ckpt_tests::*;

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("real_ptys");
    for (who, mode, suffix) in
        [(Who::Me, "same", "::same"), (Who::Me, "ns", "::ns"), (Who::User, "auto", "::user")]
    {
        suite.test_as(who, format!("tmux{suffix}"), move |t| tmux(t, mode));
        suite.test_as(who, format!("script{suffix}"), move |t| script(t, mode));
        suite.test_as(who, format!("expect{suffix}"), move |t| expect(t, mode));
        suite.test_as(who, format!("python_pty{suffix}"), move |t| python(t, mode));
        suite.test_as(who, format!("bash_jobs{suffix}"), move |t| bash_jobs(t, mode));
    }
    suite.run()
}

/// A tmux server, and commands to it.
struct Tmux<'t> {
    t: &'t T,
    socket: String,
    /// Commands so far: each has output files of its own.
    count: std::cell::Cell<u32>,
}

impl Tmux<'_> {
    fn command(&self, words: &[&str]) -> anyhow::Result<String> {
        self.count.set(self.count.get() + 1);
        let launch = self.t.launch(&format!("tmux{}", self.count.get()), "tmux").args([
            "-S",
            &self.socket,
            "-f",
            "/dev/null",
        ]);
        let launch = launch.env("HOME", self.t.dir()).env("TERM", "screen").env("LC_ALL", "C.UTF-8");
        let mut client = launch.args(words).start()?;
        let status = client.wait_exit()?;
        ensure!(status.success(), "tmux {words:?}: {}", client.stderr());
        Ok(client.stdout())
    }

    fn screens(&self) -> anyhow::Result<Vec<String>> {
        (0..3).map(|pane| self.command(&["capture-pane", "-p", "-t", &format!("s.{pane}")])).collect()
    }

    /// Has every shell print a number, and waits for it.
    fn number(&self, first: u32) -> TestResult {
        for pane in 0..3_u32 {
            let target = format!("s.{pane}");
            let line = format!("X={pane}; echo ${{X}}at$((X + {first}))end");
            self.command(&["send-keys", "-t", &target, "-l", "--", &line])?;
            self.command(&["send-keys", "-t", &target, "Enter"])?;
            let answer = format!("{pane}at{}end", pane + first);
            self.t.wait_until(&format!("{answer} in pane {pane}"), || {
                let screen = self.command(&["capture-pane", "-p", "-t", &target])?;
                Ok(screen.contains(&answer) && screen.trim_end().ends_with('$'))
            })?;
        }
        Ok(())
    }
}

impl Drop for Tmux<'_> {
    fn drop(&mut self) {
        let _ = self.command(&["kill-server"]);
    }
}

/// The server with three panes: all shells are there again, with what is on their screens.
fn tmux(t: &T, mode: &str) -> TestResult {
    need("tmux")?;
    t.write("bashrc", "PS1='$'\n")?;
    const SHELL: &str = "exec bash --rcfile bashrc -i";
    let tmux = Tmux { t, socket: t.path("tmux").to_string_lossy().into_owned(), count: 0.into() };
    tmux.command(&["new-session", "-d", "-s", "s", "-x", "100", "-y", "30", SHELL])?;
    tmux.command(&["split-window", "-t", "s", SHELL])?;
    tmux.command(&["split-window", "-h", "-t", "s", SHELL])?;
    tmux.number(100)?;
    let panes = ["list-panes", "-t", "s", "-F", "#{pane_id} #{pane_tty} #{pane_width}x#{pane_height}"];
    let (screens, before) = (tmux.screens()?, tmux.command(&panes)?);
    let server: i32 = tmux.command(&["display-message", "-p", "#{pid}"])?.trim().parse()?;
    let all = [vec![server], procfs::descendants(server)].concat();
    ensure!(all.len() == 4, "the server has the processes {all:?}");
    t.dump(server).kill().ok()?;
    t.wait_gone(&all)?;
    let mut restored = t.restore("saved.ckpt").pid(mode).start()?;
    // The socket's queue of connections is there before the server goes on.
    t.wait_until("the server", || Ok(tmux.command(&["has-session"]).is_ok()))?;
    t.wait_untraced(&restored)?;
    ensure!(tmux.screens()? == screens, "the screens changed: {screens:?}, {:?}", tmux.screens());
    ensure!(tmux.command(&panes)? == before, "the panes changed: {before}, {:?}", tmux.command(&panes));
    tmux.number(200)?;
    // Ctrl-C reaches what is in the foreground of a pane, and nothing else.
    tmux.command(&["send-keys", "-t", "s.1", "sleep 1000", "Enter"])?;
    let sleeps = |wanted: bool| {
        t.wait_until("a sleep in the foreground", || {
            let now = tmux.command(&["display-message", "-p", "-t", "s.1", "#{pane_current_command}"])?;
            Ok((now.trim() == "sleep") == wanted)
        })
    };
    sleeps(true)?;
    tmux.command(&["send-keys", "-t", "s.1", "C-c"])?;
    sleeps(false)?;
    tmux.command(&["resize-pane", "-t", "s.2", "-x", "20"])?;
    // The server tells the terminal a quarter of a second later.
    let line = "clear; until stty size | grep -q ' 20$'; do sleep 0.02; done; echo $((X + 300))at";
    tmux.command(&["send-keys", "-t", "s.2", line, "Enter"])?;
    t.wait_until("the new width", || {
        Ok(tmux.command(&["capture-pane", "-p", "-t", "s.2"])?.contains("302at"))
    })?;
    // A new pane, and the end of all.
    tmux.command(&["split-window", "-t", "s", SHELL])?;
    tmux.command(&["kill-server"])?;
    restored.expect_exit(0)
}

/// An interactive shell in a terminal: what a user has in front of them.
fn shell_in(t: &T, terminal: &Terminal, name: &str, prompt: &str) -> anyhow::Result<Proc> {
    t.write("outer.rc", "PS1='outer> '\n")?;
    t.write("inner.rc", "PS1='inner> '\n")?;
    let shell = t.launch(name, "bash").args(["--rcfile", "outer.rc", "-i"]);
    let shell = terminal.attach(shell.env("HOME", t.dir()).env("TERM", "dumb"))?.start()?;
    terminal.expect(prompt)?;
    Ok(shell)
}

/// Types a line and waits for an answer.
fn ask(terminal: &Terminal, line: &str, answer: &str) -> TestResult {
    terminal.clear();
    terminal.send(line)?;
    terminal.send("\n")?;
    terminal.expect(answer).map(drop)
}

/// The only process of that name below a shell.
fn below(t: &T, shell: &Proc, comm: &str) -> anyhow::Result<i32> {
    t.wait_for(comm, || {
        let all = procfs::descendants(shell.pid());
        Ok(all.into_iter().find(|pid| procfs::comm(*pid).as_deref() == Some(comm)))
    })
}

/// A shell within `script`, continued in another terminal: the record goes on.
fn script(t: &T, mode: &str) -> TestResult {
    need("script")?;
    let (one, two) = (t.terminal()?, t.terminal()?);
    let outer = shell_in(t, &one, "one", "outer> ")?;
    ask(&one, "script -q -f -c 'bash --rcfile inner.rc -i' typescript", "inner> ")?;
    ask(&one, "V=7; tty", "/dev/pts/")?;
    ask(&one, "echo first$((V + 1))", "first8")?;
    let program = below(t, &outer, "script")?;
    let all = [vec![program], procfs::descendants(program)].concat();
    t.dump(program).kill().ok()?;
    t.wait_gone(&all)?;
    let outer = shell_in(t, &two, "two", "outer> ")?;
    two.clear();
    two.send(&format!("./saved.ckpt --pid {mode}\n"))?;
    two.send("echo second$((V + 2))\n")?;
    two.expect("second9")?;
    two.expect("inner> ")?;
    two.resize(50, 130)?;
    t.wait_until("the size of the inner terminal", || {
        ask(&two, "stty size; echo th''at", "that\r\ninner> ")?;
        Ok(two.output().contains("50 130"))
    })?;
    ask(&two, "sleep 1000", "sleep 1000\r\n")?;
    below(t, &outer, "sleep")?;
    two.clear();
    two.send("\x03")?;
    two.expect("inner> ")?;
    ask(&two, "exit 3", "outer> ")?;
    ask(&two, "echo again=$?", "again=")?;
    let record = t.read("typescript")?;
    ensure!(record.contains("first8") && record.contains("second9"), "the record is {record:?}");
    Ok(())
}

/// A dialogue that is cut in the middle.
fn expect(t: &T, mode: &str) -> TestResult {
    need("expect")?;
    let script = r#"
        log_user 0
        set timeout 60
        spawn -noecho bash --norc --noprofile -i
        expect -re {[$#] $}
        send "PS1='ready> '; V=5; echo one=\$((V*2))\r"
        expect "one=10\r\n"
        expect "ready> "
        puts "half"
        exec touch half
        while {![file exists go]} { after 10 }
        send "echo two=\$((V*3))\r"
        expect {
            "two=15\r\n" {}
            timeout { puts "no answer"; exit 1 }
        }
        expect "ready> "
        send "exit 4\r"
        expect eof
        puts "all [lindex [wait] 3]"
    "#;
    t.write("dialogue.exp", script)?;
    through(t, mode, t.launch("expect", "expect").arg("dialogue.exp"), "half\nall 4\n")
}

fn python(t: &T, mode: &str) -> TestResult {
    const PYTHON: &str = "/usr/bin/python3";
    need(PYTHON)?;
    let script = r"
import fcntl, os, pty, struct, time
pid, master = pty.fork()
if pid == 0:
    os.execvp('bash', ['bash', '--norc', '--noprofile', '-i'])
seen = b''
def until(text):
    global seen
    while text not in seen:
        seen += os.read(master, 1000)
    seen = seen[seen.index(text) + len(text):]
os.write(master, b'PS1=ready; V=5; echo one=$((V*2))\n')
until(b'one=10\r\n')
until(b'ready')
print('half', flush=True)
open('half', 'w').close()
while not os.path.exists('go'):
    time.sleep(0.01)
os.write(master, b'echo two=$((V*3)); tty\n')
until(b'two=15\r\n')
TIOCGPTN = 0x80045430
number = struct.unpack('i', fcntl.ioctl(master, TIOCGPTN, bytes(4)))[0]
until(b'/dev/pts/%d\r\n' % number)
os.write(master, b'sleep 1000\n')
def foreground():
    try:
        return open('/proc/%d/comm' % os.tcgetpgrp(master)).read()
    except OSError:
        return 'just ended'
while foreground() != 'sleep\n':
    time.sleep(0.01)
os.write(master, b'\x03')
until(b'ready')
os.write(master, b'exit 4\n')
print('all', os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
";
    t.write("dialogue.py", script)?;
    through(t, mode, t.launch("python", PYTHON).arg("dialogue.py"), "half\nall 4\n")
}

/// Dumps when it says `half`, and sees to it that it ends well.
fn through(t: &T, mode: &str, launch: Launch<'_>, output: &str) -> TestResult {
    let out = std::fs::File::create(t.path("output"))?;
    // The test's user opens it again.
    out.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
    let mut original = launch.env("TERM", "dumb").stdout(out).start()?;
    t.wait_file("half")?;
    let all = [vec![original.pid()], procfs::descendants(original.pid())].concat();
    t.dump(original.pid()).kill().ok()?;
    original.wait_exit()?;
    t.wait_gone(&all)?;
    let mut restored = t.restore("saved.ckpt").pid(mode).start()?;
    t.go()?;
    restored.expect_exit(0)?;
    let said = t.read("output")?;
    ensure!(said == output, "it says {said:?}");
    Ok(())
}

/// An interactive shell with a background job and a stopped one is continued in another terminal, and is
/// a job of the shell there.
fn bash_jobs(t: &T, mode: &str) -> TestResult {
    let (one, two) = (t.terminal()?, t.terminal()?);
    let outer = shell_in(t, &one, "one", "outer> ")?;
    ask(&one, "bash --rcfile inner.rc -i", "inner> ")?;
    ask(&one, "V=77; sleep 1000 &", "inner> ")?;
    ask(&one, "cat", "cat\r\n")?;
    below(t, &outer, "cat")?;
    one.send("\x1a")?;
    one.expect("Stopped")?;
    one.expect("inner> ")?;
    let inner = below(t, &outer, "cat")
        .and_then(|cat| procfs::stat_field(cat, 4).map(|ppid| ppid as i32).context("the parent of cat"))?;
    let all = [vec![inner], procfs::descendants(inner)].concat();
    ensure!(all.len() == 3, "the shell has the processes {all:?}");
    one.clear();
    t.dump(inner).kill().ok()?;
    one.expect("Killed")?;
    t.wait_gone(&all)?;

    let mut shell = shell_in(t, &two, "two", "outer> ")?;
    ask(&two, &format!("./saved.ckpt --pid {mode}\njobs; echo V=$V="), "V=77=\r\ninner> ")?;
    let jobs = two.output();
    ensure!(jobs.contains("Running") && jobs.contains("Stopped"), "the jobs are {jobs:?}");
    // The stopped job goes on in the foreground, reads what is typed, and gets Ctrl-C.
    ask(&two, "fg", "cat\r\n")?;
    ask(&two, "typed", "typed\r\ntyped\r\n")?;
    two.clear();
    two.send("\x03")?;
    two.expect("inner> ")?;
    ask(&two, "kill %1; wait %1; echo status=$?", "status=143\r\n")?;
    // The size of the terminal.
    two.resize(40, 120)?;
    ask(&two, "true", "inner> ")?;
    ask(&two, "echo $LINES:$COLUMNS", "40:120\r\n")?;
    // The whole of it is a job of the outer shell.
    for _ in 0..2 {
        ask(&two, "suspend", "outer> ")?;
        ask(&two, "echo out''side", "outside\r\nouter> ")?;
        ask(&two, "fg", "fg\r\n")?;
        ask(&two, "echo in''side", "inside\r\n")?;
    }
    ask(&two, "sleep 500", "sleep 500\r\n")?;
    below(t, &shell, "sleep")?;
    two.clear();
    two.send("\x1a")?;
    two.expect("Stopped")?;
    two.expect("inner> ")?;
    // (A shell that was not told yet of the end of a killed job would not exit.)
    ask(&two, "fg", "sleep 500\r\n")?;
    t.wait_until("the job going on", || Ok(procfs::state(below(t, &shell, "sleep")?) == Some('S')))?;
    two.clear();
    two.send("\x03")?;
    two.expect("inner> ")?;
    ask(&two, "exit 9", "outer> ")?;
    ask(&two, "echo status=$?", "status=9\r\n")?;
    // The terminal is the outer shell's again.
    ask(&two, "sleep 400", "sleep 400\r\n")?;
    below(t, &shell, "sleep")?;
    two.clear();
    two.send("\x03")?;
    two.expect("outer> ")?;
    two.send("exit 5\n")?;
    shell.expect_exit(5)
}
