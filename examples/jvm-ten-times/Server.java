import java.io.PrintStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;

/** Answers each connection with a line. Before, it warms up: what it will need is computed often enough to be compiled. */
public class Server {
    private static long work(long seed) {
        long x = seed;
        for (int i = 0; i < 1000; i++) {
            x ^= x << 13;
            x ^= x >>> 7;
            x ^= x << 17;
        }
        return x;
    }

    public static void main(String[] args) throws Exception {
        long state = 42;
        final int rounds = 50_000;
        for (int i = 0; i < rounds; i++) {
            state = work(state);
        }
        ServerSocket socket = new ServerSocket(Integer.parseInt(args[0]), 50, InetAddress.getLoopbackAddress());
        System.out.println("warm after " + rounds + " rounds");
        for (int served = 1;; served++) {
            try (Socket client = socket.accept(); PrintStream out = new PrintStream(client.getOutputStream())) {
                state = work(state);
                out.println("request " + served + " of this instance, warm after " + rounds + " rounds, " + state);
            }
        }
    }
}
