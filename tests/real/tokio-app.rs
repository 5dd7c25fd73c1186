//! A tokio program on its multi-threaded runtime: tasks, channels, timers, a TCP listener of which it is
//! its own client later, blocking work. Protocol: see chain.py.

use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{interval, sleep};

const TASKS: u64 = 64;
const ROUNDS: u64 = 40;

fn at(name: &str) -> PathBuf {
    PathBuf::from(std::env::var_os("CKPT_DIR").expect("CKPT_DIR")).join(name)
}

fn go() -> bool {
    at("go").exists()
}

fn mix(mut x: u64) -> u64 {
    for _ in 0..1000 {
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9).rotate_left(17);
    }
    x
}

async fn work(id: u64, results: mpsc::Sender<(u64, u64, u64)>) {
    let mut state = id + 1;
    let mut tick = interval(Duration::from_millis(2));
    for round in 0..ROUNDS {
        state = if round % 8 == 7 {
            tokio::task::spawn_blocking(move || mix(state)).await.expect("blocking work")
        } else {
            mix(state)
        };
        results.send((id, round, state)).await.expect("the receiver lives");
        tick.tick().await;
        if round >= ROUNDS / 2 && !go() {
            sleep(Duration::from_millis(20)).await;
        }
    }
    while !go() {
        sleep(Duration::from_millis(2)).await;
    }
}

/// Sums the bytes of each connection and answers with the sum.
async fn serve(listener: TcpListener) {
    loop {
        let (mut peer, _) = listener.accept().await.expect("accept");
        let mut bytes = Vec::new();
        peer.read_to_end(&mut bytes).await.expect("read");
        let sum: u64 = bytes.iter().map(|&b| u64::from(b)).sum();
        peer.write_all(&sum.to_le_bytes()).await.expect("write");
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 3)]
async fn main() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    tokio::spawn(serve(listener));

    let (sender, mut receiver) = mpsc::channel(16);
    for id in 0..TASKS {
        tokio::spawn(work(id, sender.clone()));
    }
    drop(sender);
    let mut lines = Vec::new();
    while let Some((id, round, state)) = receiver.recv().await {
        lines.push(format!("{id:03} {round:03} {state:016x}\n"));
        if lines.len() as u64 == TASKS * ROUNDS / 2 {
            std::fs::write(at("ready"), "").expect("ready");
        }
    }
    lines.sort();
    let text = lines.concat();

    let mut stream = TcpStream::connect(address).await.expect("the own listener still listens");
    stream.write_all(text.as_bytes()).await.expect("write");
    stream.shutdown().await.expect("shutdown");
    let sum = stream.read_u64_le().await.expect("answer");
    std::fs::write(at("result"), format!("{text}{sum}\n")).expect("result");
}
