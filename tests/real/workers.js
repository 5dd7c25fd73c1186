// node: timers in the main thread, hash chains in worker threads that report to it, shared memory with
// Atomics between them. Protocol: see chain.py.
'use strict';
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');
const crypto = require('crypto');
const fs = require('fs');
const path = require('path');

const ROUNDS = 60;
const WORKERS = 3;
const at = (name) => path.join(process.env.CKPT_DIR, name);

if (isMainThread) {
  const shared = new Int32Array(new SharedArrayBuffer(8));
  const chains = {};
  const garbage = [];
  let ended = 0;
  let ticks = 0;
  let ready = false;
  const ticker = setInterval(() => {
    ticks += 1;
    garbage[ticks % 50] = new Array(10000).fill(ticks);
    if (fs.existsSync(at('go'))) {
      Atomics.store(shared, 1, 1);
      Atomics.notify(shared, 1);
    }
    if (!ready && ticks > 3 && Atomics.load(shared, 0) >= (WORKERS * ROUNDS) / 2) {
      ready = true;
      fs.writeFileSync(at('ready'), '');
    }
  }, 2);
  for (let id = 0; id < WORKERS; id++) {
    const worker = new Worker(__filename, { workerData: { id, shared } });
    worker.on('message', ({ round, hash }) => {
      (chains[id] ||= []).push(`${id} ${round} ${hash}`);
    });
    worker.on('exit', (code) => {
      if (code !== 0) process.exit(3);
      if (++ended < WORKERS) return;
      clearInterval(ticker);
      // The last lines are written by a timer of another kind, after a turn of the loop.
      setTimeout(() => {
        const lines = Object.keys(chains).sort().flatMap((k) => chains[k]);
        fs.writeFileSync(at('result'), lines.join('\n') + `\n${Atomics.load(shared, 0)}\n`);
      }, 10);
    });
  }
} else {
  const { id, shared } = workerData;
  let state = `worker ${id}`;
  for (let round = 0; round < ROUNDS; round++) {
    for (let i = 0; i < 400; i++) state = crypto.createHash('sha256').update(state).digest('hex');
    parentPort.postMessage({ round, hash: state });
    Atomics.add(shared, 0, 1);
    // Also a futex wait with a timeout: slow, but at work, until the main thread has seen `go`.
    if (round >= ROUNDS / 2) Atomics.wait(shared, 1, 0, 20);
  }
  Atomics.wait(shared, 1, 0);
}
