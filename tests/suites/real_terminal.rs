//! Interactive programs, dumped in one terminal and continued in another: what is on the screen, keys,
//! Ctrl-C, resizing, Ctrl-Z and fg, as for any command of the second terminal's shell.

use ckpt_tests::*;
use std::process::Command;

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("real_terminal");
    for (who, suffix) in [(Who::Me, ""), (Who::User, "::user")] {
        suite.test_as(who, format!("nano{suffix}"), |t| editor(t, &NANO));
        suite.test_as(who, format!("vim{suffix}"), |t| editor(t, &VIM));
        suite.test_as(who, format!("python_prompt{suffix}"), python_prompt);
    }
    suite.run()
}

/// A tmux server with two windows, each with an interactive shell.
struct Tmux<'t> {
    t: &'t T,
    socket: String,
}

impl<'t> Tmux<'t> {
    fn start(t: &'t T) -> anyhow::Result<Self> {
        need("tmux")?;
        need("bash")?;
        t.write("bashrc", format!("PS1='{PROMPT} '\n"))?;
        let tmux = Self { t, socket: t.path("tmux").to_string_lossy().into_owned() };
        tmux.command(&["new-session", "-d", "-s", "s", "-n", "one", "-x", "80", "-y", "24", SHELL])?;
        tmux.command(&["new-window", "-d", "-t", "s", "-n", "two", SHELL])?;
        Ok(tmux)
    }

    fn command(&self, words: &[&str]) -> anyhow::Result<String> {
        let prefix = ["tmux", "-S", &self.socket, "-f", "/dev/null"].map(str::to_owned);
        let mut all = user_prefix(self.t.who());
        all.extend(prefix);
        let mut command = Command::new(&all[0]);
        command.args(&all[1..]).args(words).current_dir(self.t.dir());
        command.env("HOME", self.t.dir()).env("TERM", "screen").env_remove("TMUX");
        // Editors write their temporary files and histories where they may.
        let output = command.env("LC_ALL", "C.UTF-8").output().context("cannot run tmux")?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "tmux {words:?}: {error}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn window(&self, name: &'static str) -> Window<'_> {
        Window { tmux: self, name }
    }
}

impl Drop for Tmux<'_> {
    fn drop(&mut self) {
        let _ = self.command(&["kill-server"]);
    }
}

/// With a start-up file of the test, so that it is the same for everybody.
const SHELL: &str = "exec bash --rcfile bashrc -i";
const PROMPT: &str = "your-turn>";

/// As the harness does for other programs; the tmux server must belong to the test's user, too.
fn user_prefix(who: Who) -> Vec<String> {
    if who == Who::User && nix::unistd::geteuid().is_root() {
        let words =
            ["setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups", "--inh-caps=-all", "--"];
        return words.map(str::to_owned).to_vec();
    }
    Vec::new()
}

#[derive(Clone, Copy)]
struct Window<'w> {
    tmux: &'w Tmux<'w>,
    name: &'static str,
}

impl Window<'_> {
    /// Keys by their tmux names, or text.
    fn keys(&self, keys: &[&str]) -> TestResult {
        let target = format!("s:{}", self.name);
        self.tmux.command(&[&["send-keys", "-t", &target], keys].concat()).map(drop)
    }

    fn line(&self, text: &str) -> TestResult {
        self.keys(&["-l", "--", text])?;
        self.keys(&["Enter"])
    }

    fn screen(&self) -> anyhow::Result<String> {
        self.tmux.command(&["capture-pane", "-p", "-t", &format!("s:{}", self.name)])
    }

    /// Waits until the screen satisfies a condition; fails with the screen.
    fn wait(&self, what: &str, condition: impl Fn(&str) -> bool) -> TestResult {
        let result = self.tmux.t.wait_until(what, || Ok(condition(&self.screen()?)));
        result.with_context(|| format!("window {}:\n{}", self.name, self.screen().unwrap_or_default()))
    }

    fn expect(&self, text: &str) -> TestResult {
        self.wait(&format!("{text:?} on the screen"), |screen| screen.contains(text))
    }

    /// Waits for the shell's prompt at the end of the screen.
    fn prompt(&self) -> TestResult {
        self.wait("the shell's prompt", |screen| screen.trim_end().ends_with(PROMPT))
    }

    fn resize(&self, columns: u16, rows: u16) -> TestResult {
        let (x, y) = (columns.to_string(), rows.to_string());
        self.tmux.command(&["resize-window", "-t", &format!("s:{}", self.name), "-x", &x, "-y", &y]).map(drop)
    }

    /// The process that runs in the foreground of this window's shell.
    fn program(&self, comm: &str) -> anyhow::Result<i32> {
        let target = format!("s:{}", self.name);
        let shell: i32 =
            self.tmux.command(&["display-message", "-p", "-t", &target, "#{pane_pid}"])?.trim().parse()?;
        self.tmux.t.wait_for(&format!("{comm} below the shell"), || {
            let below = procfs::descendants(shell);
            Ok(below.into_iter().find(|&pid| procfs::comm(pid).is_some_and(|c| c.starts_with(comm))))
        })
    }
}

struct Editor {
    command: &'static str,
    comm: &'static str,
    /// Makes it take text.
    insert: &'static [&'static str],
    /// Ends that, and saves under the name that it was started with.
    save: &'static [&'static str],
    /// Lets it stop itself.
    suspend: &'static [&'static str],
    quit: &'static [&'static str],
}

const NANO: Editor = Editor {
    command: "nano -I text.txt",
    comm: "nano",
    insert: &[],
    save: &["C-o", "Enter"],
    suspend: &["C-t", "C-z"],
    quit: &["C-x"],
};

const VIM: Editor = Editor {
    command: "vim -u NONE -i NONE -N text.txt",
    comm: "vim",
    insert: &["i"],
    save: &["Escape", ":w", "Enter"],
    suspend: &["C-z"],
    quit: &["Escape", ":q", "Enter"],
};

fn editor(t: &T, editor: &Editor) -> TestResult {
    need(editor.comm)?;
    let tmux = Tmux::start(t)?;
    let (one, two) = (tmux.window("one"), tmux.window("two"));
    one.prompt()?;
    one.line(editor.command)?;
    // Not before: the terminal would echo what is typed.
    one.wait("the editor", |screen| screen.contains("text.txt") && !screen.contains(PROMPT))?;
    one.keys(editor.insert)?;
    one.keys(&["-l", "typed before the dump"])?;
    one.expect("typed before the dump")?;

    t.dump(one.program(editor.comm)?).kill().ok()?;
    one.expect("Killed")?;

    // Another terminal, of another size.
    two.prompt()?;
    two.resize(100, 30)?;
    two.line("./saved.ckpt")?;
    two.expect("typed before the dump")?;
    two.keys(&["-l", ", and after it"])?;
    two.expect("typed before the dump, and after it")?;
    two.resize(60, 15)?;
    two.wait("the screen redrawn for 60x15", |screen| {
        screen.lines().count() <= 15 && screen.contains("typed before the dump, and after it")
    })?;
    two.keys(editor.save)?;
    t.wait_until("the text in the file", || {
        Ok(t.read("text.txt").is_ok_and(|text| text == "typed before the dump, and after it\n"))
    })?;

    two.keys(editor.suspend)?;
    two.expect("Stopped")?;
    two.line("clear; jobs; fg")?;
    two.wait("the editor again", |screen| {
        screen.contains("typed before the dump, and after it") && !screen.contains("Stopped")
    })?;
    two.keys(editor.insert)?;
    two.keys(&["-l", "at the end "])?;
    two.expect("at the end")?;
    two.keys(editor.save)?;
    t.wait_until("the second text in the file", || Ok(t.read("text.txt")?.contains("at the end")))?;
    two.keys(editor.quit)?;
    two.prompt()?;
    two.line("echo status=$?")?;
    two.expect("status=0")
}

fn python_prompt(t: &T) -> TestResult {
    const PYTHON: &str = "/usr/bin/python3";
    need(PYTHON)?;
    let tmux = Tmux::start(t)?;
    let (one, two) = (tmux.window("one"), tmux.window("two"));
    one.prompt()?;
    one.line(&format!("{PYTHON} -q -i"))?;
    one.expect(">>>")?;
    one.line("numbers = list(range(1000)); answer = sum(numbers)")?;
    one.line("import os, time; print('number', answer)")?;
    one.expect("number 499500")?;
    one.keys(&["-l", "print('half a "])?;
    one.expect("print('half a")?;

    t.dump(one.program("python3")?).kill().ok()?;
    one.expect("Killed")?;

    two.prompt()?;
    two.line("./saved.ckpt")?;
    // Started by a line that readline had in its hands.
    two.keys(&["-l", "line', answer + 1)"])?;
    two.keys(&["Enter"])?;
    two.expect("half a line 499501")?;

    two.line("print('busy'); time.sleep(1000)")?;
    two.wait("a busy program", |screen| screen.lines().any(|line| line == "busy"))?;
    two.keys(&["C-c"])?;
    two.expect("KeyboardInterrupt")?;
    two.resize(72, 20)?;
    two.line("print('size', os.get_terminal_size().columns)")?;
    two.expect("size 72")?;

    // Ctrl-Z at the prompt is read by readline, which stops the program itself.
    two.line("print('busy again'); time.sleep(1000)")?;
    two.wait("a busy program", |screen| screen.lines().any(|line| line == "busy again"))?;
    two.keys(&["C-z"])?;
    two.expect("Stopped")?;
    two.line("fg")?;
    // Ctrl-C would drop a line that the shell has not read.
    t.wait_until("the job going on", || Ok(procfs::state(two.program("python3")?) == Some('S')))?;
    two.keys(&["C-c"])?;
    two.wait("a second KeyboardInterrupt", |screen| screen.matches("\nKeyboardInterrupt").count() >= 2)?;
    two.line("print('still', len(numbers)); raise SystemExit(5)")?;
    two.expect("still 1000")?;
    two.prompt()?;
    two.line("echo status=$?")?;
    two.expect("status=5")
}
