# What the examples have in common; read by each `run`, whose folder is $here. The work is done in a folder of its own,
# $work, which is gone at the end, with all that has been started.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
PATH=$PATH:/usr/sbin:/sbin

# What our caller left open beyond stdio would be the programs' too, and be refused.
for fd in /proc/$$/fd/*; do
    fd=${fd##*/}
    [ "$fd" -le 2 ] || [ "$fd" = 255 ] || eval "exec $fd>&-"
done

# The first python3 may be a script that starts another one.
python=/usr/bin/python3
[ -x $python ] || python=python3

# Without one of these programs there is nothing to show: exit status 77.
need() {
    local program
    for program in "$@"; do
        command -v "$program" >/dev/null || { echo "skipped: $program is not installed" >&2; exit 77; }
    done
}

running=()
finish() {
    [ ${#running[@]} -eq 0 ] || kill -9 "${running[@]}" 2>/dev/null || true
    wait 2>/dev/null || true
    cd /
    rm -rf "$work"
}
work=$(mktemp -d)
trap finish EXIT
trap 'exit 1' INT TERM
cd "$work"

title() { printf '\n== %s\n' "$*"; }
# A command line as a reader would type it.
show() { printf '$ %s\n' "$*"; }
# The same, and runs it.
step() { show "$@"; "$@"; }
fail() { echo "${here##*/}: $*" >&2; exit 1; }

# wait_for WHAT COMMAND...: until the command succeeds.
wait_for() {
    local what=$1 end=$((SECONDS + ${CKPT_TEST_DEADLINE:-90}))
    shift
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || fail "waited too long for $what"
        sleep 0.05
    done
}

# The end of a child that ckpt-dump has killed.
gone() { wait "$1" 2>/dev/null || true; }
