#!/usr/bin/env bash
# A job script: goes on from job.ckpt if that is there; saves the job when the batch system sends SIGTERM.
#
#SBATCH --requeue --signal=B:TERM@120 --open-mode=append
requeue=99
if [ -e job.ckpt ]; then
    ./job.ckpt --pid new &
else
    "${PYTHON:-python3}" chain.py result.txt 0.2 >progress.txt &
fi
job=$!

# The image takes the old one's name only when it is complete. If it cannot be made, the job goes on.
save() { ckpt-dump $job -o job.ckpt --kill && exit $requeue; told=1; }
trap save TERM
while :; do
    told=
    # A signal for us ends wait, too.
    wait $job && status=0 || status=$?
    [ "$told" ] || break
done
[ $status != 0 ] || rm -f job.ckpt
exit $status
