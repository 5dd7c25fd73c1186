//! The ways that most victims go through.

use crate::{Proc, Suite, T, TestResult, Variant, Who, procfs};

/// Which scenarios a victim goes through, each a test `VICTIM::SCENARIO`.
#[derive(Clone, Debug)]
pub struct Scenarios {
    /// Linkings; the first one is used for everything but `VICTIM::restore-VARIANT`.
    pub variants: Vec<Variant>,
    /// Values of `--pid`, besides the default, that are tried: `VICTIM::pid-MODE`.
    pub pids: Vec<&'static str>,
    /// Also as an ordinary user (default), or only so, or only as root.
    pub user: bool,
    pub root: bool,
    /// Also dump the restored one and restore that (default).
    pub twice: bool,
    /// The victim answers `ping` while it waits (default): it is known to run on before `go`.
    pub ping: bool,
    /// It has children: they come back with their ids, and none may stay when it has ended.
    pub tree: bool,
    /// In a network of its own, where that is permitted.
    pub network: bool,
    pub args: Vec<&'static str>,
    pub wrapper: Vec<&'static str>,
    pub dump_args: Vec<&'static str>,
    /// Options of the image; the last restore of `VICTIM::again` goes without.
    pub restore_args: Vec<&'static str>,
    /// What the image is run through.
    pub restore_wrapper: Vec<&'static str>,
}

impl Default for Scenarios {
    fn default() -> Self {
        Self {
            variants: vec![Variant::Dynamic],
            pids: vec![],
            user: true,
            root: true,
            twice: true,
            ping: true,
            tree: false,
            network: false,
            args: vec![],
            wrapper: vec![],
            dump_args: vec![],
            restore_args: vec![],
            restore_wrapper: vec![],
        }
    }
}

impl Scenarios {
    /// For victims with children: as root by `auto`, which is `same`, and in a namespace; as an ordinary
    /// user by `auto`, which is `ns`.
    pub fn tree() -> Self {
        Self { tree: true, pids: vec!["ns"], ..Self::default() }
    }

    pub fn root_only() -> Self {
        Self { user: false, ..Self::default() }
    }

    /// See [`Self::network`].
    pub fn own_network() -> Self {
        Self { network: true, ..Self::default() }
    }

    pub fn pids(mut self, modes: &[&'static str]) -> Self {
        self.pids = modes.to_vec();
        self
    }

    pub fn all_pids(self) -> Self {
        self.pids(&["new", "same", "ns"])
    }

    pub fn variants(mut self, variants: &[Variant]) -> Self {
        self.variants = variants.to_vec();
        self
    }

    pub fn args(mut self, args: &[&'static str]) -> Self {
        self.args = args.to_vec();
        self
    }

    pub fn wrapper(mut self, wrapper: &[&'static str]) -> Self {
        self.wrapper = wrapper.to_vec();
        self
    }

    pub fn no_ping(mut self) -> Self {
        self.ping = false;
        self
    }

    pub fn once(mut self) -> Self {
        self.twice = false;
        self
    }

    fn start(&self, t: &T, victim: &str, variant: Variant) -> anyhow::Result<Proc> {
        if !self.user && t.who() == Who::Me {
            crate::need_root()?;
        }
        if self.network {
            t.own_network()?;
        }
        let (args, wrapper) = (&self.args, &self.wrapper);
        t.victim(victim).variant(variant).args(args).with(|l| l.wrapper(wrapper)).start()
    }

    /// No dump at all: is the victim itself right?
    fn plain(&self, t: &T, victim: &str) -> TestResult {
        let mut original = self.start(t, victim, self.variants[0])?;
        if self.ping {
            self.alive(t, &mut original)?;
        }
        self.finish(t, &mut original)
    }

    /// Dumps with --kill, restores, lets it verify.
    fn restore(&self, t: &T, victim: &str, variant: Variant, pid: Option<&str>) -> TestResult {
        let mut original = self.start(t, victim, variant)?;
        let pid_of_program = original.pid();
        self.dump_kill(t, &mut original, pid_of_program)?;
        let mut restored = self.run_image(t, pid)?;
        self.finish(t, &mut restored)
    }

    /// Dumps with --kill; `pid` is the program itself or what is in front of it. Ids are free afterwards.
    fn dump_kill(&self, t: &T, original: &mut Proc, pid: i32) -> TestResult {
        let mut all = procfs::descendants(original.pid());
        all.push(original.pid());
        t.dump(pid).kill().args(&self.dump_args).ok()?;
        original.expect_signal(nix::sys::signal::Signal::SIGKILL)?;
        t.wait_gone(&all)
    }

    fn run_image(&self, t: &T, pid: Option<&str>) -> anyhow::Result<Proc> {
        let mut attempts = 0;
        t.wait_for("an image whose ids are free", || {
            let mut restore = t.restore("saved.ckpt").with(|l| l.wrapper(&self.restore_wrapper));
            restore = restore.args(&self.restore_args);
            if let Some(mode) = pid {
                restore = restore.pid(mode);
            }
            let mut restored = restore.start()?;
            if self.ping
                && let Err(e) = self.alive(t, &mut restored)
            {
                // Whatever else runs here may have got one of them for a moment.
                attempts += 1;
                let said = restored.stderr();
                let taken =
                    said.contains("the id is in use: process") || said.contains("(EEXIST); it is in use");
                return if taken && attempts < 20 { Ok(None) } else { Err(e) };
            }
            Ok(Some(restored))
        })
    }

    /// Waits for a sign of life, or fails as soon as the process ends.
    fn alive(&self, t: &T, proc: &mut Proc) -> TestResult {
        t.tell("ping")?;
        t.wait_until("sign of life of the victim", || {
            proc.ensure_alive()?;
            Ok(t.path("pong").exists())
        })?;
        std::fs::remove_file(t.path("pong"))?;
        Ok(())
    }

    fn finish(&self, t: &T, proc: &mut Proc) -> TestResult {
        let below = procfs::descendants(proc.pid());
        t.go()?;
        let ended = proc.expect_exit(0);
        t.expect_ok().and(ended)?;
        t.wait_gone(&below)
    }

    /// Dumps and leaves running: the original must not have noticed.
    fn unharmed(&self, t: &T, victim: &str) -> TestResult {
        let mut original = self.start(t, victim, self.variants[0])?;
        t.dump(original.pid()).args(&self.dump_args).ok()?;
        if self.ping {
            self.alive(t, &mut original)?;
        }
        self.finish(t, &mut original)
    }

    /// Dumps the restored one again, twice.
    fn again(&self, t: &T, victim: &str) -> TestResult {
        let mut original = self.start(t, victim, self.variants[0])?;
        let pid = original.pid();
        self.dump_kill(t, &mut original, pid)?;
        if self.tree {
            return self.tree_again(t);
        }
        for _ in 0..2 {
            let mut restored = self.run_image(t, Some("new"))?;
            t.wait_restored(&mut restored)?;
            t.dump(restored.pid()).kill().args(&self.dump_args).ok()?;
            restored.expect_signal(nix::sys::signal::Signal::SIGKILL)?;
        }
        let mut restored = self.plainly().run_image(t, Some("new"))?;
        self.finish(t, &mut restored)
    }

    fn plainly(&self) -> Self {
        Self { restore_args: vec![], ..self.clone() }
    }
}

impl Scenarios {
    /// The supervisor, which stays, is not dumped.
    fn tree_again(&self, t: &T) -> TestResult {
        for mode in ["ns", "same"] {
            let mut restored = self.run_image(t, Some(mode))?;
            t.wait_untraced(&restored)?;
            let program = procfs::program(restored.pid());
            self.dump_kill(t, &mut restored, program)?;
        }
        let mut restored = self.plainly().run_image(t, Some("ns"))?;
        self.finish(t, &mut restored)
    }
}

impl Suite {
    /// Adds a victim on `forms.h`: all scenarios for the plain form, one restore for each other form (a tree,
    /// when shared).
    pub fn forms(&mut self, victim: &'static str, scenarios: Scenarios) -> &mut Self {
        self.victim(victim, scenarios.clone());
        self.other_forms(victim, victim, &[], scenarios)
    }

    /// The same for a victim that knows several kinds: they are its second argument. Tests are named
    /// `VICTIM::KIND::SCENARIO`.
    pub fn forms_of(&mut self, victim: &'static str, kind: &'static str, scenarios: Scenarios) -> &mut Self {
        let name = format!("{victim}::{kind}");
        self.victim_named(&name, victim, scenarios.clone().args(&["plain", kind]));
        self.other_forms(&name, victim, &[kind], scenarios)
    }

    /// Adds `VICTIM::again` and `VICTIM::again-user` alone, for a victim that would notice the options of the
    /// image until it is restored without them.
    pub fn again_only(&mut self, victim: &'static str, scenarios: Scenarios) -> &mut Self {
        for (who, suffix) in [(Who::Me, ""), (Who::User, "-user")] {
            let s = scenarios.clone();
            self.test_as(who, format!("{victim}::again{suffix}"), move |t| s.again(t, victim));
        }
        self
    }

    fn other_forms(
        &mut self,
        name: &str,
        victim: &'static str,
        more: &[&'static str],
        scenarios: Scenarios,
    ) -> &mut Self {
        if std::env::var_os("CKPT_TEST_PLAIN").is_some() {
            return self;
        }
        for form in ["dup", "epoll", "shared"] {
            let args: Vec<&'static str> = [form].iter().chain(more).copied().collect();
            let mut s = scenarios.clone().args(&args);
            s.tree = form == "shared";
            let pid = s.tree.then_some("ns");
            let who = if scenarios.user { Who::User } else { Who::Me };
            let first = s.variants[0];
            self.test_as(who, format!("{name}::{form}"), move |t| s.restore(t, victim, first, pid));
        }
        self
    }

    /// Adds the scenarios of one victim.
    pub fn victim(&mut self, victim: &'static str, scenarios: Scenarios) -> &mut Self {
        self.victim_named(victim, victim, scenarios)
    }

    /// The same under another name, for a victim that is run with different arguments.
    pub fn victim_named(&mut self, name: &str, victim: &'static str, scenarios: Scenarios) -> &mut Self {
        if std::env::var_os("CKPT_TEST_PLAIN").is_some() {
            return self.test(format!("{name}::plain"), move |t| scenarios.plain(t, victim));
        }
        let first = scenarios.variants[0];
        let whos = [(Who::Me, scenarios.root, ""), (Who::User, scenarios.user, "-user")];
        for (who, _, suffix) in whos.into_iter().filter(|(_, wanted, _)| *wanted) {
            let s = scenarios.clone();
            self.test_as(who, format!("{name}::restore{suffix}"), move |t| s.restore(t, victim, first, None));
        }
        let main = if scenarios.root { Who::Me } else { Who::User };
        let s = scenarios.clone();
        self.test_as(main, format!("{name}::unharmed"), move |t| s.unharmed(t, victim));
        for mode in scenarios.pids.clone() {
            let s = scenarios.clone();
            self.test_as(main, format!("{name}::pid-{mode}"), move |t| {
                s.restore(t, victim, first, Some(mode))
            });
        }
        for &variant in &scenarios.variants[1..] {
            let s = scenarios.clone();
            let test = format!("{name}::restore-{variant:?}").to_lowercase();
            self.test_as(main, test, move |t| s.restore(t, victim, variant, None));
        }
        if scenarios.twice {
            let s = scenarios;
            self.test_as(main, format!("{name}::again"), move |t| s.again(t, victim));
        }
        self
    }
}
