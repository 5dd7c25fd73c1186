# A shell in a terminal at the far end of a connection: socat's, or that of ssh and sshd.
import os
import socket
import subprocess
import time
import sys

from programs import *

kind, port = sys.argv[1], int(sys.argv[2])
SHELL = "bash --norc --noprofile -i"


class Shell:
    def __init__(self, write, read):
        self.write, self.read, self.seen = write, read, b""

    def until(self, text):
        while text not in self.seen:
            data = self.read()
            check(data, "the end, instead of %r: %r" % (text, self.seen))
            self.seen += data
        self.seen = self.seen[self.seen.index(text) + len(text):]

    def ask(self, line, answer):
        self.write(line.encode() + b"\n")
        self.until(answer.encode() + b"\r\n")
        self.until(b"ready> ")


if kind == "socat":
    server = start("socat", "TCP-LISTEN:%d,bind=127.0.0.1,reuseaddr" % port,
                   "EXEC:%s,pty,setsid,ctty,stderr" % SHELL)
    wait_until(lambda: listens(port), "socat")
    connection = socket.create_connection(("127.0.0.1", port))
    shell = Shell(connection.sendall, lambda: connection.recv(1000))
else:
    sshd = next(d + "/sshd" for d in ("/usr/sbin", "/sbin", "/usr/bin") if os.path.exists(d + "/sshd"))
    here = os.getcwd()
    for name in "host", "user":
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", name], check=True)
    os.rename("user.pub", "authorized")
    with open("sshd.conf", "w") as conf:
        conf.write("""ListenAddress 127.0.0.1:%d
HostKey %s/host
AuthorizedKeysFile %s/authorized
StrictModes no
UsePAM no
PidFile none
PrintMotd no
PrintLastLog no
PermitRootLogin yes
""" % (port, here, here))
    server = start(sshd, "-D", "-e", "-f", here + "/sshd.conf")
    wait_until(lambda: listens(port), "sshd")
    # Without root sshd may not be able to give a terminal away: script provides one then.
    mine = os.geteuid() != 0
    command = "script -q -e -c '%s' /dev/null" % SHELL if mine else SHELL
    ssh = start("ssh", "-T" if mine else "-tt", "-F", "none", "-i", "user", "-p", str(port), "-o", "StrictHostKeyChecking=no",
                "-o", "UserKnownHostsFile=known", "-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR",
                "127.0.0.1", "exec " + command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    shell = Shell(ssh.stdin.write, lambda: ssh.stdout.read(1000))
# What is typed is echoed: answers must not be in their questions.
shell.write(b"bind 'set enable-bracketed-paste off'; PS1='rea''dy> '\n")
shell.until(b"ready> ")
shell.ask("V=7; echo one=$((V * 2))", "one=14")
shell.ask("stty rows 33 cols 111; stty size", "33 111")
shell.ask("echo done$((V + 1))", "done8")
in_the_middle()
# All is at rest; what comes next is asked when the test says so.
while not may_end():
    time.sleep(0.01)
shell.ask("echo two=$((V * 3))", "two=21")
shell.ask("stty size", "33 111")
shell.ask("[ -c $(tty) ] && echo terminal$((V + 2))", "terminal9")
shell.ask("seq 20000 | tail -1; echo t=$((V + 3))", "t=10")
# Much output, all of it.
shell.write(b"seq 20000 | tr '\\n' ' '; echo e=$((V + 4))\n")
shell.until(b" 19999 20000 e=11\r\n")
shell.until(b"ready> ")
# Ctrl-C reaches what is in the foreground.
shell.write(b"sleep 1000\n")


def sleeps():
    for pid in os.listdir("/proc"):
        try:
            if open("/proc/%s/cmdline" % pid).read() == "sleep\x001000\x00" and descends(int(pid)):
                return True
        except (OSError, ValueError):
            pass
    return False


def descends(pid):
    while pid > 1 and pid != os.getpid():
        pid = int(open("/proc/%d/stat" % pid).read().rsplit(") ", 1)[1].split()[1])
    return pid == os.getpid()


while not sleeps():
    time.sleep(0.01)
shell.write(b"\x03")
shell.until(b"ready> ")
shell.ask("echo status=$?", "status=130")
shell.write(b"exit 5\n")
if kind == "socat":
    # Its status is not that of the shell.
    server.wait()
else:
    ends_well(ssh, 5)
    server.terminate()
    server.wait()
over()
