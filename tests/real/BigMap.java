// A HashMap of a million entries under change, worker threads, garbage for the collector (run with G1
// and a small young generation), timed waits. Protocol: see chain.py.

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;

public class BigMap {
    static final int ENTRIES = 1_000_000;
    static final int ROUNDS = 40;
    static final int THREADS = 4;
    static final Path DIR = Path.of(System.getenv("CKPT_DIR"));

    static boolean go() {
        return Files.exists(DIR.resolve("go"));
    }

    public static void main(String[] args) throws Exception {
        var map = new HashMap<Integer, String>();
        for (int i = 0; i < ENTRIES; i++) {
            map.put(i, "value " + i);
        }
        var sums = new ConcurrentHashMap<Integer, Long>();
        var half = new CountDownLatch(THREADS);
        var pool = Executors.newFixedThreadPool(THREADS);
        var results = new ArrayList<java.util.concurrent.Future<Long>>();
        for (int t = 0; t < THREADS; t++) {
            final int id = t;
            results.add(pool.submit(() -> work(id, map, half, sums)));
        }
        half.await();
        Files.createFile(DIR.resolve("ready"));
        long total = 0;
        for (var result : results) {
            total = total * 31 + result.get();
        }
        pool.shutdown();
        if (!pool.awaitTermination(60, TimeUnit.SECONDS)) {
            throw new IllegalStateException("the pool did not end");
        }
        long check = 0;
        for (var entry : map.entrySet()) {
            check += (long) entry.getKey() * entry.getValue().hashCode();
        }
        Files.writeString(DIR.resolve("result"), total + " " + check + " " + map.size() + " " + sums + "\n");
    }

    static long work(int id, HashMap<Integer, String> map, CountDownLatch half, ConcurrentHashMap<Integer, Long> sums)
            throws InterruptedException, IOException {
        long sum = 0;
        List<byte[]> garbage = new ArrayList<>();
        for (int round = 0; round < ROUNDS; round++) {
            for (int i = id; i < ENTRIES; i += THREADS * 25) {
                synchronized (map) {
                    map.put(i, map.get(i) + "," + round);
                    sum += map.get(i).length();
                }
            }
            garbage.add(new byte[1 << 20]);
            if (garbage.size() > 10) {
                garbage.subList(0, 9).clear();
            }
            sums.put(id, sum);
            if (round == ROUNDS / 2) {
                half.countDown();
            }
            if (round >= ROUNDS / 2 && !go()) {
                Thread.sleep(10);
            }
        }
        while (!go()) {
            Thread.sleep(2);
        }
        return sum;
    }
}
