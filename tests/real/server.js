// node: an HTTP server under the load of a client in another process, over connections that stay open. The
// two talk over an IPC channel as well. Files are read in the thread pool.
'use strict';
const { fork } = require('child_process');
const crypto = require('crypto');
const fs = require('fs');
const http = require('http');

const CONNECTIONS = 12;
const body = (n) => crypto.createHash('sha256').update(`${n}`).digest('hex').repeat((n % 300) + 1);

function server() {
  const answers = http.createServer((request, response) => {
    let received = 0;
    request.on('data', (data) => { received += data.length; });
    // Through the thread pool (or io_uring), too.
    request.on('end', () => fs.readFile('own-file', 'utf8', (error, text) => {
      if (error || text !== 'contents') process.exit(4);
      response.end(body(Number(request.url.slice(1)) + received));
    }));
  });
  answers.keepAliveTimeout = 600000;
  answers.requestTimeout = 0;
  fs.writeFileSync('own-file', 'contents');
  answers.listen(0, '127.0.0.1', () => {
    const child = fork(__filename, [String(answers.address().port)]);
    let said = '';
    let pings = 0;
    child.on('message', (message) => {
      if (message === 'begun') fs.writeFileSync('progress', '');
      else if (message.ping === pings) child.send({ pong: pings++ });
      else said = String(message);
    });
    child.on('exit', (code) => {
      fs.writeFileSync('result', code === 0 && said === 'done' ? 'ok' : `the client ended with ${code}: ${said}`);
      process.exit(code);
    });
  });
}

function ask(agent, port, path, data) {
  return new Promise((resolve, reject) => {
    const request = http.request({ agent, port, host: '127.0.0.1', path, method: 'POST' }, (response) => {
      const parts = [];
      response.on('data', (part) => parts.push(part));
      response.on('end', () => resolve({ reused: request.reusedSocket, answer: Buffer.concat(parts).toString() }));
    });
    request.on('error', reject);
    request.end(data);
  });
}

async function client(port) {
  let begun = 0;
  let pings = 0;
  process.on('message', (message) => {
    if (message.pong !== pings++) process.exit(5);
    setTimeout(() => process.connected && process.send({ ping: pings }), 1);
  });
  process.send({ ping: 0 });
  const connection = async (number) => {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    let after = 0;
    for (let n = 1; after < 40; n++) {
      const { reused, answer } = await ask(agent, port, `/${n * number}`, 'x'.repeat(n % 5000));
      if (answer !== body(n * number + (n % 5000))) throw new Error(`request ${n}: ${answer.length} wrong bytes`);
      if (reused !== (n > 1)) throw new Error(`request ${n}: another connection`);
      if (n === 40 && ++begun === CONNECTIONS) process.send('begun');
      if (fs.existsSync('go')) after++;
    }
    agent.destroy();
  };
  try {
    await Promise.all(Array.from({ length: CONNECTIONS }, (_, i) => connection(i + 1)));
    process.send('done', () => process.exit(0));
  } catch (error) {
    process.send(error.message, () => process.exit(3));
  }
}

if (process.argv[2]) client(Number(process.argv[2]));
else server();
