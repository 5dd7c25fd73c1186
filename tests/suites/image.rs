//! The options of an image: what it tells of itself, and one image for many instances.

use ckpt_tests::{Context, Error, Proc, Suite, T, TestResult, Who, ensure, need_root, procfs};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};

fn main() -> std::process::ExitCode {
    let mut suite = Suite::new("image");
    for (who, name) in [(Who::Me, ""), (Who::User, "-user")] {
        suite.test_as(who, format!("instances{name}"), instances);
        suite.test_as(who, format!("instances_of_nginx{name}"), nginx);
        suite.test_as(who, format!("time_namespace{name}"), |t| goes_on(t, &["--time-namespace"]));
        suite.test_as(who, format!("time_namespace_ns{name}"), |t| {
            goes_on(t, &["--time-namespace", "--pid", "ns"])
        });
        suite.test_as(who, format!("time_namespace_lazy{name}"), |t| {
            goes_on(t, &["--time-namespace", "--memory", "lazy"])
        });
        suite.test_as(who, format!("another_boot{name}"), another_boot);
        suite.test_as(who, format!("log{name}"), log);
    }
    suite.test("time_namespace_same", |t| {
        need_root()?;
        goes_on(t, &["--time-namespace", "--pid", "same"])
    });
    suite.test("time_namespace_new", |t| {
        need_root()?;
        goes_on(t, &["--time-namespace", "--pid", "new"])
    });
    suite.test("time_namespace_again", time_namespace_again);
    suite.test_as(Who::User, "time_namespace_in_place_needs_root", |t| {
        save(t, "counter")?;
        t.restore("saved.ckpt").pid("new").arg("--time-namespace").refused(&["--time-namespace", "--pid ns"])
    });
    suite.test("path_of_nothing", |t| {
        save(t, "counter")?;
        let nothing = t.path("nothing");
        let option = format!("{}=/tmp", nothing.display());
        t.restore("saved.ckpt").arg("--path").arg(option).refused(&["--path", "nothing", "--info"])?;
        t.restore("saved.ckpt").arg("--path=relative=/tmp").refused(&["--path", "absolute"])?;
        t.restore("saved.ckpt").args(["--path", "/usr=/a", "--path=/usr/=/b"]).refused(&["twice", "/usr"])
    });
    suite.test("path_longest_first", longest);
    suite.test("path_of_a_failed_restore", failed_restore);
    suite.test("fd_of_a_new_file", new_file);
    suite.test("info", info);
    suite.test("info_of_a_tree", info_of_a_tree);
    suite.test("verify", |t| verify(t, &[]));
    suite.test("verify_compressed", |t| verify(t, &["--compress"]));
    suite.test("log_of_a_tree", log_of_a_tree);
    suite.test("log_of_a_failure", |t| {
        save(t, "counter")?;
        t.restore("saved.ckpt").args(["--log", "a.log", "--chdir", "/nowhere"]).refused(&["/nowhere"])?;
        ensure!(t.read("a.log")?.contains("/nowhere"), "the log: {}", t.read("a.log")?);
        t.restore("saved.ckpt").args(["--log", "/nowhere/log"]).refused(&["--log", "/nowhere/log"])
    });
    suite.run()
}

fn save(t: &T, victim: &str) -> TestResult {
    let mut victim = t.victim(victim).start()?;
    t.dump(victim.pid()).kill().ok()?;
    victim.wait_exit().map(drop)
}

fn finish(t: &T, mut proc: Proc) -> TestResult {
    t.go()?;
    proc.expect_exit(0)?;
    t.expect_ok()
}

/// What an image says on its standard output, with an option that restores nothing.
fn told(t: &T, image: &str, option: &str) -> Result<String, Error> {
    let mut proc = t.restore(image).arg(option).start()?;
    proc.expect_exit(0)?;
    Ok(proc.stdout())
}

/// A directory for an instance of `template`, with what it finds there.
///
/// The socket is that of who gets letters from it.
fn directory(t: &T, name: &str, data: &str) -> Result<(PathBuf, UnixDatagram), Error> {
    let dir = t.path(name);
    std::fs::create_dir(&dir)?;
    let mut files = vec![dir.clone()];
    for (file, content) in [("data", data.as_bytes()), ("state", &[0; 4096])] {
        std::fs::write(dir.join(file), content)?;
        files.push(dir.join(file));
    }
    let post = UnixDatagram::bind(dir.join("post"))?;
    post.set_nonblocking(true)?;
    files.push(dir.join("post"));
    for file in files {
        t.who().own(&file)?;
    }
    Ok((dir, post))
}

/// Its POSIX shared memory.
fn shared(port: u16) -> String {
    format!("/dev/shm/ckpt-template-{port}")
}

/// The image of a server in the directory `first`, which is gone afterwards, as its shared memory; its port.
fn save_server(t: &T) -> Result<u16, Error> {
    let (first, _post) = directory(t, "first", "0123")?;
    let port = t.free_port()?;
    let mut server = t.victim("template").arg(&first).arg(port.to_string()).start()?;
    t.dump(server.pid()).kill().ok()?;
    server.wait_exit()?;
    std::fs::remove_dir_all(first)?;
    std::fs::remove_file(shared(port))?;
    Ok(port)
}

fn ask(port: u16, what: u8) -> Result<String, Error> {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).context("no server")?;
    connection.write_all(&[what])?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The FIFO is the instance's own to make.
fn mkfifo(t: &T, dir: &Path) -> TestResult {
    nix::unistd::mkfifo(&dir.join("fifo"), nix::sys::stat::Mode::S_IRWXU)?;
    t.who().own(&dir.join("fifo"))
}

/// Ten of one image at once, each with its own port, directory, and all that is in there. Logs are made anew.
fn instances(t: &T) -> TestResult {
    let port = save_server(t)?;
    let mut running = Vec::new();
    for i in 0..10 {
        let data = format!("x{}yz", char::from(b'a' + i));
        let (dir, post) = directory(t, &format!("instance{i}"), &data)?;
        mkfifo(t, &dir)?;
        let own = t.free_port()?;
        let path = format!("{}={}", t.path("first").display(), dir.display());
        let memory = format!("{}={}", shared(port), shared(own));
        let restore = t.restore("saved.ckpt").args(["--path", &path, "--path", &memory]);
        let restore = restore.args(["--port", &format!("{port}={own}")]);
        let restore = restore.pid(if i % 2 == 0 { "ns" } else { "new" });
        running.push((restore.start()?, own, dir, post));
    }
    for (i, (server, port, dir, post)) in running.iter_mut().enumerate() {
        t.wait_until("the server", || {
            server.ensure_alive()?;
            Ok(procfs::status(procfs::program(server.pid()), "TracerPid").as_deref() == Some("0")
                && dir.join("door").exists())
        })?;
        for round in 1..=2 {
            let made = format!("event{round}");
            if round == 2 {
                std::fs::write(dir.join(&made), "")?;
            }
            let answer = ask(*port, b'?');
            let heard = if round == 2 { made.as_str() } else { "" };
            let data = if round == 1 { char::from(b'a' + i as u8) } else { 'y' };
            let dir = dir.display();
            let expected = format!(
                "cwd={dir} data={data} door={dir}/door mail=mail state={round} fifo=1 heard={heard} gone=gone shared={}\n",
                1000 + round
            );
            ensure!(
                answer.as_deref().ok() == Some(&expected[..]),
                "instance {i}: {answer:?}, expected {expected}"
            );
            let mut letter = [0; 6];
            ensure!(
                post.recv(&mut letter).ok() == Some(6) && letter == *b"letter",
                "instance {i}: no letter"
            );
        }
    }
    for (server, port, dir, _) in &mut running {
        let log = std::fs::read_to_string(dir.join("log"))?;
        ensure!(log == "served 1\nserved 2\n", "the log in {}: {log:?}", dir.display());
        UnixStream::connect(dir.join("door")).context("its unix socket")?;
        UnixDatagram::unbound()?.connect(dir.join("mail")).context("its datagram socket")?;
        ask(*port, b'q')?;
        server.expect_exit(0)?;
        std::fs::remove_file(shared(*port))?;
    }
    ensure!(!Path::new(&shared(port)).exists(), "the old shared memory is there");
    ensure!(!t.path("first").exists(), "something was made at the old path");
    Ok(())
}

/// The body of a page.
fn page(port: u16) -> Result<String, Error> {
    let mut connection = TcpStream::connect(("127.0.0.1", port))?;
    connection.write_all(b"GET /page HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
    Ok(body.to_owned())
}

/// A tree that knows nothing of it: ten times a master with two workers, each with its own port and logs.
fn nginx(t: &T) -> TestResult {
    let program =
        ["/usr/sbin/nginx", "/usr/bin/nginx", "/sbin/nginx"].into_iter().find(|p| Path::new(p).exists());
    let Some(program) = program else {
        ckpt_tests::skip!("nginx is not installed (scripts/setup installs it)")
    };
    let (port, dir) = (t.free_port()?, t.dir().display().to_string());
    let logs = |name: String| -> Result<PathBuf, Error> {
        std::fs::create_dir(t.path(&name))?;
        t.who().own(&t.path(&name))?;
        Ok(t.path(name))
    };
    let first = logs("first".into())?;
    t.write("page", "a page\n")?;
    let user = if t.who() == Who::Me && nix::unistd::geteuid().is_root() { "user root;" } else { "" };
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary: String = kinds.map(|kind| format!("{kind}_temp_path {dir}/first/{kind};")).concat();
    let conf = format!(
        "{user} daemon off; worker_processes 2; pid {dir}/first/pid; error_log {dir}/first/error.log info;\n\
         events {{ worker_connections 64; }}\n\
         http {{ {temporary} access_log {dir}/first/access.log; server {{ listen 127.0.0.1:{port}; root {dir}; }} }}\n"
    );
    let conf = t.write("nginx.conf", conf)?;
    let error_log = first.join("error.log").display().to_string();
    let master = t.launch("nginx", program).args(["-e", &error_log, "-p", &dir, "-c"]).arg(conf);
    let mut master = master.start()?;
    let serves = |proc: &mut Proc, port: u16| -> TestResult {
        t.wait_until("a page", || {
            proc.ensure_alive()?;
            Ok(page(port).is_ok_and(|page| page == "a page\n"))
        })
    };
    serves(&mut master, port)?;
    t.wait_until("two workers", || Ok(procfs::descendants(master.pid()).len() == 2))?;
    t.dump(master.pid()).kill().ok()?;
    master.wait_exit()?;
    let log = std::fs::read_to_string(first.join("access.log"))?;
    let mut running = Vec::new();
    for i in 0..10 {
        let (own, logs) = (t.free_port()?, logs(format!("logs{i}"))?);
        let path = format!("{}={}", first.display(), logs.display());
        let restore = t.restore("saved.ckpt").pid("ns").args(["--path", &path]);
        running.push((restore.args(["--port", &format!("{port}={own}")]).start()?, own, logs));
    }
    for (server, port, logs) in &mut running {
        serves(server, *port)?;
        let log = || std::fs::read_to_string(logs.join("access.log")).unwrap_or_default();
        t.wait_until("its own log", || Ok(log().matches("GET /page").count() == 1))?;
    }
    ensure!(page(port).is_err(), "somebody serves at the old port");
    ensure!(std::fs::read_to_string(first.join("access.log"))? == log, "the old log has grown");
    for (server, _, _) in &mut running {
        server.signal(nix::sys::signal::Signal::SIGTERM);
        server.expect_exit(0)?;
    }
    Ok(())
}

/// Of several that fit, the longest OLD decides, wherever it stands.
fn longest(t: &T) -> TestResult {
    let port = save_server(t)?;
    let (dir, _post) = directory(t, "second", "xabc")?;
    mkfifo(t, &dir)?;
    t.write("elsewhere", "xzzz")?;
    let first = t.path("first").display().to_string();
    let paths = [
        format!("--path={first}/data={}", t.path("elsewhere").display()),
        format!("--path={first}/={}", dir.display()),
    ];
    let mut server = t.restore("saved.ckpt").pid("new").args(paths).start()?;
    t.wait_restored(&mut server)?;
    let answer = ask(port, b'?')?;
    ensure!(answer.contains("data=z ") && answer.contains(&format!("cwd={}", dir.display())), "{answer}");
    ask(port, b'q')?;
    server.expect_exit(0)?;
    Ok(std::fs::remove_file(shared(port))?)
}

/// What it made goes from where it made it.
fn failed_restore(t: &T) -> TestResult {
    let port = save_server(t)?;
    let (dir, _post) = directory(t, "second", "xabc")?;
    // It has no FIFO.
    let path = format!("{}={}", t.path("first").display(), dir.display());
    t.restore("saved.ckpt").pid("new").args(["--path", &path]).refused(&["FIFO", "second/fifo"])?;
    let made = ["door", "mail"].map(|name| dir.join(name));
    for path in made.into_iter().chain([PathBuf::from(shared(port))]) {
        t.wait_until("it to go", || Ok(!path.exists()))?;
    }
    Ok(())
}

/// A log that `--fd` makes anew does not begin with a hole.
fn new_file(t: &T) -> TestResult {
    let mut victim = t.launch("shell", "sh");
    victim = victim.args(["-c", "echo before; read line; echo after"]);
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let out = std::fs::File::create(t.path("old.log"))?;
    let mut victim = victim.stdin(read).stdout(out).start()?;
    t.wait_until("its words", || Ok(t.read("old.log")? == "before\n"))?;
    t.dump(victim.pid()).kill().ok()?;
    victim.wait_exit()?;
    drop(write);
    t.restore("saved.ckpt").pid("new").args(["--fd", "1=new.log"]).start()?.wait_exit()?;
    ensure!(t.read("new.log")? == "after\n", "the new log: {:?}", t.read("new.log")?);
    ensure!(t.read("old.log")? == "before\n", "the old log: {:?}", t.read("old.log")?);
    Ok(())
}

fn save_clocks(t: &T, args: &[&str]) -> TestResult {
    let mut victim = t.victim("clocks").args(args).start()?;
    t.dump(victim.pid()).kill().ok()?;
    victim.wait_exit().map(drop)
}

fn goes_on(t: &T, options: &[&str]) -> TestResult {
    save_clocks(t, &[])?;
    let restored = t.restore("saved.ckpt").args(options).start()?;
    finish(t, restored)
}

/// Without the option the difference is named.
fn another_boot(t: &T) -> TestResult {
    save_clocks(t, &["jumps"])?;
    let mut restored = t.restore("saved.ckpt").pid("new").start()?;
    t.ping()?;
    t.wait_restored(&mut restored)?;
    let said = restored.stderr();
    ensure!(said.contains("CLOCK_MONOTONIC") && said.contains("--time-namespace"), "it says {said:?}");
    finish(t, restored)
}

/// A program in a time namespace is dumped, with its clocks.
fn time_namespace_again(t: &T) -> TestResult {
    need_root()?;
    save_clocks(t, &[])?;
    let mut first = t.restore("saved.ckpt").args(["--time-namespace", "--pid", "same"]).start()?;
    t.ping()?;
    t.wait_untraced(&first)?;
    t.dump(procfs::program(first.pid())).kill().ok()?;
    first.wait_exit()?;
    finish(t, t.restore("saved.ckpt").args(["--time-namespace", "--pid", "ns"]).start()?)
}

fn info(t: &T) -> TestResult {
    let (dir, _post) = directory(t, "first", "0123")?;
    let port = t.free_port()?;
    let server = t.victim("template").arg(&dir).arg(port.to_string()).start()?;
    t.dump(server.pid()).ok()?;
    let said = told(t, "saved.ckpt", "--info")?;
    let dir = dir.display();
    let pid = server.pid();
    for words in [
        format!("Command:  {} {dir} {port}\n", t.path("template").display()),
        format!("{pid} template: 1 thread, "),
        format!(" in {dir}\n"),
        format!("{dir}/data at 1\n"),
        format!("{dir}/gone (without a name) at 4\n"),
        format!(" {dir}/door\n"),
        format!("127.0.0.1:{port}, listening\n"),
        format!("Mapped:   {dir}/state\n"),
    ] {
        ensure!(said.contains(&words), "no {words:?} in:\n{said}");
    }
    Ok(std::fs::remove_file(shared(port))?)
}

/// Parents above their children, threads, what is not saved.
fn info_of_a_tree(t: &T) -> TestResult {
    let script = "import os, threading, time\n\
        if os.fork() == 0:\n    threading.Thread(target=time.sleep, args=(1000,)).start()\n    time.sleep(1000)\n\
        if os.fork() == 0: os._exit(3)\n\
        open('ready', 'w')\ntime.sleep(1000)\n";
    if !ckpt_tests::have("python3") {
        ckpt_tests::skip!("python3 is not installed");
    }
    let tree = t.launch("tree", "python3").args(["-c", script]).start()?;
    t.wait_file("ready")?;
    t.wait_until("child and zombie", || {
        let below = procfs::descendants(tree.pid());
        let threads = below.iter().any(|p| procfs::threads(*p).len() == 2);
        Ok(threads && below.iter().any(|p| procfs::state(*p) == Some('Z')))
    })?;
    t.dump(tree.pid()).ok()?;
    let said = told(t, "saved.ckpt", "--info")?;
    let below = procfs::descendants(tree.pid());
    ensure!(said.contains("Contents: 3 processes, 3 threads"), "{said}");
    ensure!(said.contains(&format!("\n{} python3: 1 thread, ", tree.pid())), "no root in {said}");
    ensure!(said.contains(&format!("\n  {} python3: 2 threads, ", below[0])), "no child in {said}");
    ensure!(said.contains("\n    thread ") && said.contains("(has ended, not waited for yet)"), "{said}");
    Ok(())
}

/// All damage is found, and named.
fn verify(t: &T, options: &[&str]) -> TestResult {
    let mut victim = t.victim("mem_file_private").start()?;
    t.dump(victim.pid()).kill().args(options).ok()?;
    victim.wait_exit()?;
    ensure!(told(t, "saved.ckpt", "--verify")?.contains("undamaged"), "no good word");
    ensure!(!t.path("result").exists(), "the program ran");
    let image = ckpt_reader::ImageFile::read(std::fs::File::open(t.path("saved.ckpt"))?)?;
    let extents = image.image()?.extents.to_vec();
    // Contents may be shared by extents: the first and the last bytes of all.
    let first = extents.iter().min_by_key(|e| e.file_offset).context("no extents")?;
    let last = extents.iter().max_by_key(|e| e.file_offset).context("no extents")?;
    let mut bytes = std::fs::read(t.path("saved.ckpt"))?;
    for e in [first, last] {
        bytes[e.file_offset as usize] ^= 0x55;
    }
    std::fs::write(t.path("copy"), bytes)?;
    std::fs::set_permissions(t.path("copy"), std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    ckpt_tests::copy(&t.path("copy"), &t.path("damaged.ckpt"))?;
    let places = [first, last].map(|e| format!("at {} of the image", e.file_offset));
    let words = ["damaged: 0x", " of process ", &places[0], &places[1], "pieces are damaged"];
    t.restore("damaged.ckpt").arg("--verify").refused(&words)
}

fn log(t: &T) -> TestResult {
    save(t, "fd_regular")?;
    let restored = t.restore("saved.ckpt").args(["--log", "a.log"]).start()?;
    finish(t, restored)?;
    let log = t.read("a.log")?;
    for words in [
        " of fd_regular (",
        "made File #",
        "FilePrivate /",
        " rw- Anonymous",
        "memory is filled",
        "the program runs",
    ] {
        ensure!(log.contains(words), "no {words:?} in:\n{log}");
    }
    ensure!(log.lines().all(|line| line.contains(" ms ")), "lines without a time:\n{log}");
    Ok(())
}

fn log_of_a_tree(t: &T) -> TestResult {
    save(t, "tree_family")?;
    let mut restored = t.restore("saved.ckpt").pid("ns").args(["--log", "a.log"]).start()?;
    t.go()?;
    restored.wait_exit()?;
    let log = t.read("a.log")?;
    ensure!(log.matches("becomes process ").count() > 1, "the processes:\n{log}");
    ensure!(log.contains("the program runs"), "the end:\n{log}");
    Ok(())
}
